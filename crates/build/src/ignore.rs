//! PURE: `.dockerignore`: which paths of a context are left out; the last rule that fits wins.

use crate::pattern::Glob;

/// The rules of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
    /// Whether any rule takes something back in.
    has_exceptions: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    exception: bool,
}

impl Ignore {
    /// Reads a file: a pattern a line, `#` comments, `!` exceptions.
    ///
    /// # Errors
    /// A pattern that cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        Self::of(lines.filter(|line| !line.is_empty()))
    }

    /// From patterns.
    ///
    /// # Errors
    /// A pattern that cannot be read.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, String> {
        let mut ignore = Self::default();
        for line in patterns {
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                return Err("illegal exclusion pattern: \"!\"".to_owned());
            }
            let clean = crate::metadata::absolute("/", pattern);
            let glob = Glob::new(&clean).map_err(|why| format!("`{line}` has {why}"))?;
            ignore.has_exceptions |= exception;
            ignore.rules.push(Rule { glob, exception });
        }
        Ok(ignore)
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &[&str]) -> bool {
        let last = self.rules.iter().rev().find(|rule| rule.glob.covers(path));
        last.is_some_and(|rule| !rule.exception)
    }

    /// Whether a directory that is left out must be looked into: an exception may be in it.
    #[must_use]
    pub fn may_hold_exceptions(&self, directory: &[&str]) -> bool {
        self.has_exceptions
            && self.rules.iter().any(|rule| rule.exception && rule.glob.may_fit_below(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_wins() {
        let ignore =
            Ignore::parse("# comment\n*.md\n!README.md\nnode_modules\n/build/*\n!build/keep/**\nsecret*\n")
                .unwrap();
        let out = |path: &str| ignore.leaves_out(&path.split('/').collect::<Vec<_>>());
        assert!(out("a.md") && !out("README.md") && !out("docs/a.md"));
        assert!(out("node_modules") && out("node_modules/x/y") && !out("src/node_modules"));
        assert!(out("build/a") && !out("build/keep/x") && out("secret.txt"));
        assert!(
            ignore.may_hold_exceptions(&["build", "keep"]) && !ignore.may_hold_exceptions(&["node_modules"])
        );
    }

    #[test]
    fn everything_but_is_possible() {
        let ignore = Ignore::parse("*\n!src\n!src/**\nsrc/*.tmp").unwrap();
        let out = |path: &str| ignore.leaves_out(&path.split('/').collect::<Vec<_>>());
        assert!(out("x") && !out("src") && !out("src/a") && out("src/a.tmp"));
        assert!(Ignore::parse("!").is_err() && Ignore::parse("[").is_err());
    }
}
