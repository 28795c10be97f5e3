//! `$NAME` and `${NAME…}` in values, and the `.env` file that gives some.

use crate::error::{Error, Result};
use crate::node::{Node, Value};

/// Whose value a name has.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Deepest nesting of defaults in defaults.
const DEPTH: usize = 32;

/// PURE: text with its variables replaced. Names without a value are handed to `missing`.
///
/// # Errors
/// In words.
pub fn expand(
    text: &str,
    lookup: Lookup<'_>,
    missing: &mut dyn FnMut(&str),
) -> std::result::Result<String, String> {
    let mut expander = Expander { lookup, missing, rest: text, whole: text };
    expander.until(None, 0)
}

struct Expander<'a, 'm> {
    lookup: Lookup<'a>,
    missing: &'m mut dyn FnMut(&str),
    rest: &'a str,
    whole: &'a str,
}

impl Expander<'_, '_> {
    fn take(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn invalid(&self) -> String {
        format!(
            "invalid interpolation format in \"{}\": you may need to escape any $ with another $",
            self.whole
        )
    }

    /// Up to the end, or to the brace that closes what is open.
    fn until(&mut self, close: Option<char>, depth: usize) -> std::result::Result<String, String> {
        if depth > DEPTH {
            return Err(self.invalid());
        }
        let mut text = String::new();
        while let Some(next) = self.rest.chars().next() {
            if Some(next) == close {
                self.take(1);
                return Ok(text);
            }
            if next != '$' {
                text.push(next);
                self.take(next.len_utf8());
                continue;
            }
            self.take(1);
            match self.rest.chars().next() {
                Some('$') => {
                    text.push('$');
                    self.take(1);
                }
                Some('{') => {
                    self.take(1);
                    text.push_str(&self.braced(depth)?);
                }
                Some(c) if c == '_' || c.is_ascii_alphabetic() => {
                    let name = self.name();
                    text.push_str(&self.value(&name));
                }
                _ => return Err(self.invalid()),
            }
        }
        if close.is_some() { Err(self.invalid()) } else { Ok(text) }
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let name = self.rest.get(..end).unwrap_or_default().to_owned();
        self.take(end);
        name
    }

    fn value(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            (self.missing)(name);
            String::new()
        })
    }

    /// Behind `${`.
    fn braced(&mut self, depth: usize) -> std::result::Result<String, String> {
        let name = self.name();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.invalid());
        }
        if self.rest.starts_with('}') {
            self.take(1);
            return Ok(self.value(&name));
        }
        let filled = self.rest.starts_with(':');
        self.take(usize::from(filled));
        let operator = self.rest.chars().next().filter(|c| "-?+".contains(*c));
        let Some(operator) = operator else { return Err(self.invalid()) };
        self.take(1);
        // What stands behind the operator may go unused: what has no value there is not told.
        let start = self.rest;
        let mut unused = |_: &str| {};
        let mut ahead =
            Expander { lookup: self.lookup, missing: &mut unused, rest: start, whole: self.whole };
        let other = ahead.until(Some('}'), depth + 1)?;
        self.rest = ahead.rest;
        let value = (self.lookup)(&name).filter(|value| !filled || !value.is_empty());
        match (operator, value) {
            ('-' | '?', Some(value)) => Ok(value),
            ('-', None) => Ok(other),
            ('?', None) => Err(format!("required variable {name} is missing a value: {other}")),
            (_, Some(_)) => Ok(other),
            (_, None) => Ok(String::new()),
        }
    }
}

/// PURE: a tree with the variables of its values replaced.
///
/// # Errors
/// [`Error::Variable`].
pub fn expand_all(node: &mut Node, lookup: Lookup<'_>, missing: &mut dyn FnMut(&str)) -> Result<()> {
    match &mut node.value {
        Value::Null => Ok(()),
        Value::Scalar { text, .. } => {
            if text.contains('$') {
                let wrong = |why| Error::Variable { place: node.place.clone(), why };
                *text = expand(text, lookup, missing).map_err(wrong)?;
            }
            Ok(())
        }
        Value::List(list) => list.iter_mut().try_for_each(|node| expand_all(node, lookup, missing)),
        Value::Map(entries) => entries.iter_mut().try_for_each(|(_, node)| expand_all(node, lookup, missing)),
    }
}

/// PURE: the variables of an environment file, in order; those before and around are seen by those after.
///
/// # Errors
/// The line, and what is wrong with it.
pub fn env_file(
    text: &str,
    around: Lookup<'_>,
) -> std::result::Result<Vec<(String, String)>, (usize, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let number = at + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((name, value)) = line.split_once('=') else {
            // A name alone takes what is around.
            if line.contains(char::is_whitespace) {
                return Err((number, format!("unexpected text in variable name \"{line}\"")));
            }
            if let Some(value) = around(line) {
                all.push((line.to_owned(), value));
            }
            continue;
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((number, format!("unexpected text in variable name \"{name}\"")));
        }
        let mut value = value.trim_start().to_owned();
        let quote = value.chars().next().filter(|c| "'\"".contains(*c));
        if let Some(quote) = quote {
            // Quoted text may go on over lines.
            while closing(&value, quote).is_none() {
                let Some((_, more)) = lines.next() else {
                    return Err((number, format!("unterminated quoted value of {name}")));
                };
                value.push('\n');
                value.push_str(more);
            }
        }
        let lookup = |name: &str| {
            around(name).or_else(|| all.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
        };
        let value = self::value(&value, quote, &lookup).map_err(|why| (number, why))?;
        all.push((name.to_owned(), value));
    }
    Ok(all)
}

/// Where the quote that `value` begins with ends.
fn closing(value: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn value(raw: &str, quote: Option<char>, lookup: Lookup<'_>) -> std::result::Result<String, String> {
    let inner = quote.and_then(|quote| raw.get(1..closing(raw, quote)?));
    match (quote, inner) {
        (Some('\''), Some(inner)) => Ok(inner.to_owned()),
        (Some(_), Some(inner)) => expand(&unescape(inner), lookup, &mut |_| {}),
        _ => {
            let end = raw.find(" #").unwrap_or(raw.len());
            expand(raw.get(..end).unwrap_or(raw).trim_end(), lookup, &mut |_| {})
        }
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('r')) => plain.push('\r'),
            ('\\', Some('t')) => plain.push('\t'),
            // As an escaped dollar for what comes next.
            ('\\', Some('$')) => plain.push_str("$$"),
            ('\\', Some(other)) => plain.push(other),
            (c, _) => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{env_file, expand};

    fn variable(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn expanded(text: &str) -> Result<String, String> {
        expand(text, &variable, &mut |_| {})
    }

    #[test]
    fn variables_are_replaced_as_the_specification_says() {
        for (text, wanted) in [
            ("$A-${A}b", "a-ab"),
            ("$$A $${A}", "$A ${A}"),
            ("${EMPTY-x}|${EMPTY:-x}|${NONE-x}", "|x|x"),
            ("${A+y}|${EMPTY+y}|${EMPTY:+y}|${NONE+y}", "y|y||"),
            ("${NONE:-${A}-${NONE:-deep}}", "a-deep"),
            ("${NONE:-http://x:80/}", "http://x:80/"),
            ("<$NONE>", "<>"),
            ("${A:?must}", "a"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(
            expanded("${NONE:?set it}"),
            Err("required variable NONE is missing a value: set it".to_owned())
        );
        for wrong in ["$", "${", "${A", "${}", "$1", "${A!}", "${1A}", "a $ b", "${A:-${B}"] {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn missing_variables_are_told_and_those_of_unused_defaults_are_not() {
        let mut missing = Vec::new();
        let text = expand("$X ${A:-$Y} ${Z}", &variable, &mut |name| missing.push(name.to_owned()));
        assert_eq!(text.as_deref(), Ok(" a "));
        assert_eq!(missing, ["X", "Z"]);
    }

    #[test]
    fn environment_files_have_quotes_comments_and_variables() {
        let text = "# c\n\nexport ONE=1 # one\nTWO='$ONE #'\nTHREE=\"x\\n${ONE}\\$\"\nFOUR=$ONE$A\nA\nMORE='a\nb'\nH=a#b\nE=\n";
        let all = env_file(text, &variable).unwrap();
        let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let wanted = [
            ("ONE", "1"),
            ("TWO", "$ONE #"),
            ("THREE", "x\n1$"),
            ("FOUR", "1a"),
            ("A", "a"),
            ("MORE", "a\nb"),
            ("H", "a#b"),
            ("E", ""),
        ];
        assert_eq!(all, wanted);
        assert_eq!(env_file("a b=1", &variable).unwrap_err().0, 1);
        assert_eq!(env_file("\nX='a", &variable).unwrap_err().0, 2);
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_as_it_was(text in "[^$]{0,40}") {
            prop_assert_eq!(expanded(&text), Ok(text));
        }

        #[test]
        fn any_text_ends(text in "[$A{}:?+-]{0,60}") {
            let _ = expanded(&text);
        }

        #[test]
        fn escaped_text_comes_back(text in "[ -~]{0,40}") {
            prop_assert_eq!(expanded(&text.replace('$', "$$")), Ok(text));
        }
    }
}
