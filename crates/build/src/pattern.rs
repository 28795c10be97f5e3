//! Patterns: the shell's in variables, and Go's `filepath.Match` with `**` in paths.

/// Whether the whole of `text` fits: `*` anything, `?` one character, a backslash takes the next literally.
#[must_use]
pub fn shell(pattern: &[char], text: &[char]) -> bool {
    // The last star and how much of the text it took: enough to try again from, as later stars cover earlier.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('\\') if pattern.get(p + 1) == Some(&text[t]) => Some(2),
            Some(c) if *c != '\\' && *c == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                t += 1;
            }
            (None, Some((from, taken))) => {
                p = from + 1;
                t = taken + 1;
                star = Some((from, t));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A pattern of path components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`: any number of components.
    Any,
    /// No wildcard in it.
    Plain(String),
    One(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a pattern; slashes at both ends do not matter.
    ///
    /// # Errors
    /// What is wrong with it: an open bracket, a backslash at the end.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        let parts = pattern
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .map(|part| match part {
                "**" => Ok(Part::Any),
                part if !part.contains(['*', '?', '[', '\\']) => Ok(Part::Plain(part.to_owned())),
                part => tokens(part).map(Part::One),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { parts })
    }

    /// Whether there is any wildcard.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Plain(_)))
    }

    /// Whether the whole path fits.
    #[must_use]
    pub fn matches(&self, path: &[&str]) -> bool {
        fits(&self.parts, path)
    }

    /// Whether the path or one of its parents fits.
    #[must_use]
    pub fn covers(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|end| self.matches(&path[..end]))
    }

    /// Whether something below this directory could fit.
    #[must_use]
    pub fn may_fit_below(&self, directory: &[&str]) -> bool {
        for (at, name) in directory.iter().enumerate() {
            match self.parts.get(at) {
                Some(Part::Any) => return true,
                Some(part) if one(part, name) => {}
                _ => return false,
            }
        }
        self.parts.len() > directory.len()
    }

    /// The longest directory that everything that fits is in: no wildcard in it.
    #[must_use]
    pub fn plain_parent(&self) -> Vec<&str> {
        let mut parent = Vec::new();
        for part in self.parts.iter().take(self.parts.len().saturating_sub(1)) {
            match part {
                Part::Plain(name) => parent.push(name.as_str()),
                _ => break,
            }
        }
        parent
    }
}

/// By components.
fn fits(parts: &[Part], path: &[&str]) -> bool {
    backtrack(parts, path, |part| *part == Part::Any, |part, name| one(part, name))
}

/// As in [`shell`]: what takes any number of items is `wild`, and the last of them is enough to go back to.
fn backtrack<P, T>(
    pattern: &[P],
    items: &[T],
    wild: impl Fn(&P) -> bool,
    takes: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < items.len() {
        match pattern.get(p) {
            Some(part) if wild(part) => {
                star = Some((p, t));
                p += 1;
            }
            Some(part) if takes(part, &items[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((from, taken)) => {
                    p = from + 1;
                    t = taken + 1;
                    star = Some((from, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(wild)
}

fn one(part: &Part, name: &str) -> bool {
    match part {
        Part::Any => true,
        Part::Plain(plain) => plain == name,
        Part::One(tokens) => {
            let text: Vec<char> = name.chars().collect();
            backtrack(tokens, &text, |token| *token == Token::Star, |token, c| takes(token, *c))
        }
    }
}

fn takes(token: &Token, character: char) -> bool {
    match token {
        Token::Star => false,
        Token::Any => true,
        Token::Literal(literal) => *literal == character,
        Token::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
        }
    }
}

fn tokens(part: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut characters = part.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => {
                if tokens.last() == Some(&Token::Star) {
                    continue;
                }
                Token::Star
            }
            '?' => Token::Any,
            '\\' => Token::Literal(characters.next().ok_or("a backslash at its end")?),
            '[' => {
                let negated = characters.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut low = characters.next().ok_or("a bracket that is not closed")?;
                    if low == ']' && !ranges.is_empty() {
                        break;
                    }
                    if low == '\\' {
                        low = characters.next().ok_or("a bracket that is not closed")?;
                    }
                    let mut high = low;
                    if characters.next_if_eq(&'-').is_some() {
                        high = characters.next().ok_or("a bracket that is not closed")?;
                        if high == '\\' {
                            high = characters.next().ok_or("a bracket that is not closed")?;
                        }
                    }
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Literal(other),
        });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(&path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn globs_match_components() {
        assert!(glob("*.go", "a.go") && !glob("*.go", "d/a.go"));
        assert!(glob("**/*.go", "a.go") && glob("**/*.go", "d/e/a.go"));
        assert!(glob("a/**/z", "a/z") && glob("a/**/z", "a/b/c/z") && !glob("a/**/z", "a/b"));
        assert!(glob("[a-c]?[^x]", "bzy") && !glob("[a-c]?[^x]", "bzx"));
        assert!(glob("\\*", "*") && !glob("\\*", "a"));
        assert!(glob("/a/", "a"));
        assert!(Glob::new("[a").is_err() && Glob::new("a\\").is_err());
    }

    #[test]
    fn what_lies_below_is_told() {
        let glob = Glob::new("src/*/x").unwrap();
        assert!(glob.may_fit_below(&["src"]) && glob.may_fit_below(&["src", "a"]));
        assert!(!glob.may_fit_below(&["doc"]) && !glob.may_fit_below(&["src", "a", "x"]));
        assert_eq!(glob.plain_parent(), ["src"]);
        assert!(Glob::new("a").unwrap().covers(&["a", "b"]));
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_read_without_harm(pattern in "[ab*?/\\[\\]^\\\\-]{0,20}", path in "[ab/]{0,30}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let parts: Vec<&str> = path.split('/').collect();
                let _ = (glob.matches(&parts), glob.covers(&parts), glob.may_fit_below(&parts));
            }
        }
    }
}
