//! Variables in words: `$a`, `${a}`, `${a:-word}` and its relatives, quotes and escapes.

use crate::error::{Error, Result};
use crate::pattern;

/// How deep `${a:-${b:-…}}` may go.
const DEPTH_MAX: usize = 32;
/// What variables may grow a word to.
const LENGTH_MAX: usize = 1 << 20;

/// Where values come from, and what was asked for in vain.
pub struct Scope<'s> {
    lookup: &'s dyn Fn(&str) -> Option<String>,
    escape: char,
    /// Names that had no value, once each.
    pub undefined: Vec<String>,
    /// Names that were used.
    pub used: Vec<String>,
}

impl<'s> Scope<'s> {
    /// With these values.
    pub fn new(lookup: &'s dyn Fn(&str) -> Option<String>, escape: char) -> Self {
        Self { lookup, escape, undefined: Vec::new(), used: Vec::new() }
    }

    /// A word with variables replaced, quotes and escapes taken away.
    ///
    /// # Errors
    /// An open quote or brace; `${a:?message}` of an unset variable.
    pub fn word(&mut self, text: &str) -> Result<String> {
        let words = self.lex(text, Keep::Nothing)?;
        Ok(words.whole)
    }

    /// As [`Scope::word`], and split at space that was not quoted.
    ///
    /// # Errors
    /// As [`Scope::word`].
    pub fn words(&mut self, text: &str) -> Result<Vec<String>> {
        Ok(self.lex(text, Keep::Nothing)?.parts)
    }

    /// Variables are replaced, all else stays: for here-documents.
    ///
    /// # Errors
    /// As [`Scope::word`].
    pub fn document(&mut self, text: &str) -> Result<String> {
        Ok(self.lex(text, Keep::Quotes)?.whole)
    }

    fn lex(&mut self, text: &str, keep: Keep) -> Result<Words> {
        let escape = self.escape;
        let mut lexer = Lexer {
            scope: self,
            rest: text.chars().collect::<Vec<_>>(),
            at: 0,
            out: Words::default(),
            keep,
            escape,
            depth: 0,
        };
        lexer.run(None)?;
        lexer.out.finish();
        Ok(lexer.out)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Quotes,
}

#[derive(Default)]
struct Words {
    whole: String,
    parts: Vec<String>,
    part: String,
    begun: bool,
}

impl Words {
    fn quoted(&mut self, character: char) {
        self.whole.push(character);
        self.part.push(character);
        self.begun = true;
    }

    /// Outside of quotes space ends a part.
    fn bare(&mut self, character: char) {
        self.whole.push(character);
        if character.is_whitespace() {
            self.finish();
        } else {
            self.part.push(character);
            self.begun = true;
        }
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.parts.push(std::mem::take(&mut self.part));
        }
    }
}

struct Lexer<'l, 's> {
    scope: &'l mut Scope<'s>,
    rest: Vec<char>,
    at: usize,
    out: Words,
    keep: Keep,
    escape: char,
    depth: usize,
}

impl Lexer<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    /// Up to the end, or up to `until`, which is left there.
    fn run(&mut self, until: Option<char>) -> Result<()> {
        while let Some(character) = self.peek() {
            if Some(character) == until {
                return Ok(());
            }
            if self.out.whole.len() > LENGTH_MAX {
                return Err(Error::new("variables make this word too long"));
            }
            match character {
                '\'' if self.keep == Keep::Nothing => self.single()?,
                '"' if self.keep == Keep::Nothing => self.double()?,
                '$' => {
                    for c in self.dollar()?.chars() {
                        self.out.bare(c);
                    }
                }
                c if c == self.escape => {
                    self.at += 1;
                    match (self.next(), self.keep) {
                        (Some(next), Keep::Nothing) => self.out.quoted(next),
                        (Some('$'), Keep::Quotes) => self.out.quoted('$'),
                        (Some(next), Keep::Quotes) => {
                            self.out.quoted(c);
                            self.out.quoted(next);
                        }
                        // At the very end it escapes nothing.
                        (None, Keep::Nothing) => {}
                        (None, Keep::Quotes) => self.out.quoted(c),
                    }
                }
                c => {
                    self.at += 1;
                    self.out.bare(c);
                }
            }
        }
        match until {
            Some(_) => Err(Error::new("syntax error: missing `}` of a variable")),
            None => Ok(()),
        }
    }

    fn single(&mut self) -> Result<()> {
        self.at += 1;
        self.out.begun = true;
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(character) => self.out.quoted(character),
                None => {
                    return Err(Error::new(
                        "unexpected end of statement while looking for matching single-quote",
                    ));
                }
            }
        }
    }

    fn double(&mut self) -> Result<()> {
        self.at += 1;
        self.out.begun = true;
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some('$') => {
                    for character in self.dollar()?.chars() {
                        self.out.quoted(character);
                    }
                }
                Some(c) if c == self.escape => {
                    self.at += 1;
                    match self.next() {
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.out.quoted(next);
                        }
                        Some(next) => {
                            self.out.quoted(c);
                            self.out.quoted(next);
                        }
                        None => self.out.quoted(c),
                    }
                }
                Some(character) => {
                    self.at += 1;
                    self.out.quoted(character);
                }
                None => {
                    return Err(Error::new(
                        "unexpected end of statement while looking for matching double-quote",
                    ));
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            // $@ and the like are one character long, $10 is a number.
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.at += 1;
                }
            }
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.rest[start..self.at].iter().collect()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.scope.lookup)(name);
        let list = if value.is_some() { &mut self.scope.used } else { &mut self.scope.undefined };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
        value
    }

    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err(Error::new("syntax error: bad substitution").at("${"));
        }
        match self.next() {
            Some('}') => Ok(self.value(&name).unwrap_or_default()),
            Some(':') => {
                let operator = self.next().ok_or_else(|| Error::new("syntax error: missing `}`"))?;
                self.alternative(&name, operator, true)
            }
            Some(operator @ ('-' | '+' | '?')) => self.alternative(&name, operator, false),
            Some(operator @ ('#' | '%')) => self.strip(&name, operator),
            Some('/') => self.replace(&name),
            Some(other) => Err(Error::new(format!("unsupported modifier ({other}) in substitution"))
                .at(format!("${{{name}{other}"))),
            None => {
                Err(Error::new(format!("syntax error: missing `}}` of `${{{name}`")).at(format!("${{{name}")))
            }
        }
    }

    /// `${a:-b}`, `${a-b}`, `${a:+b}`, `${a+b}`, `${a:?b}`, `${a?b}`.
    fn alternative(&mut self, name: &str, operator: char, or_empty: bool) -> Result<String> {
        let known = self.scope.undefined.len();
        let value = self.value(name);
        // Asking with an alternative is not asking in vain.
        self.scope.undefined.truncate(known);
        let other = self.inner()?;
        let set = value.as_ref().is_some_and(|value| !or_empty || !value.is_empty());
        match operator {
            '-' => Ok(if set { value.unwrap_or_default() } else { other }),
            '+' => Ok(if set { other } else { String::new() }),
            '?' if set => Ok(value.unwrap_or_default()),
            '?' => {
                let message = if other.is_empty() { "is not allowed to be unset".to_owned() } else { other };
                Err(Error::new(format!("{name}: {message}")).at(name))
            }
            other => Err(Error::new(format!("unsupported modifier (:{other}) in substitution"))
                .at(format!("${{{name}:{other}"))),
        }
    }

    /// What stands up to the closing brace, itself expanded.
    fn inner(&mut self) -> Result<String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::new("variables are nested too deeply"));
        }
        let outer = std::mem::take(&mut self.out);
        let result = self.run(Some('}'));
        let inner = std::mem::replace(&mut self.out, outer);
        self.depth -= 1;
        result?;
        self.at += 1;
        Ok(inner.whole)
    }

    /// `${a#p}`, `${a##p}`, `${a%p}`, `${a%%p}`.
    fn strip(&mut self, name: &str, operator: char) -> Result<String> {
        let longest = self.peek() == Some(operator);
        self.at += usize::from(longest);
        let pattern: Vec<char> = self.raw_pattern(&['}'])?.chars().collect();
        self.at += 1;
        let value: Vec<char> = self.value(name).unwrap_or_default().chars().collect();
        let mut cuts: Vec<usize> = (0..=value.len()).collect();
        let kept = if operator == '#' {
            if longest {
                cuts.reverse();
            }
            cuts.into_iter().find(|cut| pattern::shell(&pattern, &value[..*cut])).map(|cut| &value[cut..])
        } else {
            if !longest {
                cuts.reverse();
            }
            cuts.into_iter().find(|cut| pattern::shell(&pattern, &value[*cut..])).map(|cut| &value[..cut])
        };
        Ok(kept.unwrap_or(&value).iter().collect())
    }

    /// `${a/p/r}`, `${a//p/r}`.
    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern: Vec<char> = self.raw_pattern(&['/', '}'])?.chars().collect();
        let replacement = match self.next() {
            Some('/') => self.inner()?,
            _ => String::new(),
        };
        let value: Vec<char> = self.value(name).unwrap_or_default().chars().collect();
        if value.len() > 1 << 12 {
            return Err(Error::new(format!("the value of {name} is too long for a replacement")));
        }
        let mut out = String::new();
        let (mut at, mut done) = (0, false);
        while at < value.len() {
            let end = (at + 1..=value.len()).rev().find(|end| pattern::shell(&pattern, &value[at..*end]));
            match end {
                Some(end) if !done || all => {
                    out.push_str(&replacement);
                    at = end;
                    done = true;
                }
                _ => {
                    out.push(value[at]);
                    at += 1;
                }
            }
        }
        Ok(out)
    }

    /// A pattern up to one of `ends`, which is left there; variables in it are replaced.
    fn raw_pattern(&mut self, ends: &[char]) -> Result<String> {
        let mut pattern = String::new();
        loop {
            match self.peek() {
                Some(character) if ends.contains(&character) => return Ok(pattern),
                Some('$') => pattern.push_str(&self.dollar()?),
                Some(character) if character == self.escape => {
                    self.at += 1;
                    pattern.push('\\');
                    pattern.extend(self.next());
                }
                Some(character) => {
                    self.at += 1;
                    pattern.push(character);
                }
                None => return Err(Error::new("syntax error: missing `}` of a variable")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String> {
        let values = |name: &str| match name {
            "a" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("/usr/local/lib.tar.gz".to_owned()),
            "two" => Some("x y".to_owned()),
            _ => None,
        };
        Scope::new(&values, '\\').word(text)
    }

    #[test]
    fn every_form_is_expanded() {
        for (text, wanted) in [
            ("$a", "value"),
            ("${a}b$a", "valuebvalue"),
            ("'$a'", "$a"),
            ("\"$a '\"", "value '"),
            ("\\$a", "$a"),
            ("\"\\$a \\\\ \\n\"", "$a \\ \\n"),
            ("$", "$"),
            ("a$", "a$"),
            ("${none:-x}", "x"),
            ("${empty:-x}", "x"),
            ("${empty-x}", ""),
            ("${none-x$a}", "xvalue"),
            ("${a:+x}", "x"),
            ("${empty:+x}", ""),
            ("${empty+x}", "x"),
            ("${none:-${a:+deep}}", "deep"),
            ("${a:?no}", "value"),
            ("${path#*/}", "usr/local/lib.tar.gz"),
            ("${path##*/}", "lib.tar.gz"),
            ("${path%.*}", "/usr/local/lib.tar"),
            ("${path%%.*}", "/usr/local/lib"),
            ("${path/local/share}", "/usr/share/lib.tar.gz"),
            ("${path//\\//:}", ":usr:local:lib.tar.gz"),
            ("${a//?/x}", "xxxxx"),
            ("${none}", ""),
            ("a\\ b", "a b"),
            ("a\\", "a"),
            ("$12b$$c", "bc"),
            ("${34:-x}${$:-y}", "xy"),
        ] {
            assert_eq!(expand(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_closed_is_named() {
        for bad in ["'a", "\"a", "${a", "${a:-b", "${}", "${none:?gone}", "${a^}", "${a:=x}", "${a/x"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert_eq!(expand("${none:?is needed}").unwrap_err().message, "none: is needed");
    }

    #[test]
    fn unquoted_space_separates_words() {
        let values = |_: &str| Some("x y".to_owned());
        let mut scope = Scope::new(&values, '\\');
        assert_eq!(scope.words("$v \"$v\" z").unwrap(), ["x", "y", "x y", "z"]);
        assert_eq!(scope.words("''").unwrap(), [""]);
    }

    proptest::proptest! {
        #[test]
        fn any_word_is_read_without_harm(text in "[$a{}:+?#%/'\"\\\\ -]{0,40}") {
            let _ = expand(&text);
        }
    }
}
