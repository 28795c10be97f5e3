//! `--name=value` between an instruction's keyword and what follows.

use crate::error::{Error, Result, nearest};

/// The flags of one instruction, not yet looked at, and the text behind them.
pub(super) struct Flags<'t> {
    instruction: &'static str,
    found: Vec<(String, Option<String>)>,
    pub(super) rest: &'t str,
}

/// Takes the flags off the front.
pub(super) fn take<'t>(instruction: &'static str, text: &'t str, escape: char) -> Flags<'t> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = word(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        let bare = word.trim_start_matches("--");
        found.push(match bare.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (bare.to_owned(), None),
        });
    }
    Flags { instruction, found, rest }
}

/// One word, quotes and escapes taken away, and what follows it.
fn word(text: &str, escape: char) -> (String, &str) {
    let (mut word, mut quote) = (String::new(), None);
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (None, c) if c.is_whitespace() => return (word, &text[at..]),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), c) if c == open => quote = None,
            (_, c) if c == escape => word.extend(characters.next().map(|(_, next)| next)),
            (_, c) => word.push(c),
        }
    }
    (word, "")
}

impl Flags<'_> {
    /// Refuses flags that the instruction does not have, and repeated ones.
    pub(super) fn check(&self, known: &[&str], repeatable: &[&str]) -> Result<()> {
        for (at, (name, _)) in self.found.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let error = Error::new(format!("unknown flag: --{name} for {}", self.instruction))
                    .at(format!("--{name}"));
                return Err(match nearest(name, known.iter().copied()) {
                    Some(known) => error.hint(format!("did you mean --{known}?")),
                    None if known.is_empty() => error.hint(format!("{} has no flags", self.instruction)),
                    None => error.hint(format!("{} has --{}", self.instruction, known.join(", --"))),
                });
            }
            let again = self.found[..at].iter().any(|(earlier, _)| earlier == name);
            if again && !repeatable.contains(&name.as_str()) {
                return Err(Error::new(format!("duplicate flag specified: --{name}")).at(format!("--{name}")));
            }
        }
        Ok(())
    }

    /// The flag's value; a flag without one is an error.
    pub(super) fn value(&self, name: &str) -> Result<Option<String>> {
        Ok(self.values(name)?.pop())
    }

    pub(super) fn values(&self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        for (_, value) in self.found.iter().filter(|(known, _)| known == name) {
            values.push(value.clone().ok_or_else(|| {
                Error::new(format!("missing a value on flag: --{name}")).at(format!("--{name}"))
            })?);
        }
        Ok(values)
    }

    /// A flag that is on or off.
    pub(super) fn switch(&self, name: &str) -> Result<Option<bool>> {
        match self.found.iter().find(|(known, _)| known == name) {
            None => Ok(None),
            Some((_, None)) => Ok(Some(true)),
            Some((_, Some(value))) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(Error::new(format!("expecting boolean value for flag --{name}, not: {value}"))
                    .at(format!("--{name}"))),
            },
        }
    }
}
