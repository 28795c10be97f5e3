//! Words of the command line, by a table: runc's flags in Go's manner (`-f`, `-flag`, `--flag=x`, `--flag x`).
//!
//! Own code rather than a library: a runtime is started for every container, and this costs microseconds.

use std::fmt::Write as _;

use crate::error::Error;

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Long name.
    pub(crate) name: &'static str,
    /// One letter, or empty.
    pub(crate) short: &'static str,
    /// What its value is called; empty: it has none.
    pub(crate) value: &'static str,
    /// One line.
    pub(crate) help: &'static str,
}

/// A flag with a value.
pub(crate) const fn value(
    name: &'static str,
    short: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short, value, help }
}

/// A flag without.
pub(crate) const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, value: "", help }
}

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    flags: Vec<(&'static str, String)>,
    /// What is no flag, in order.
    pub(crate) words: Vec<String>,
}

impl Given {
    /// The last value given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Every value given.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }

    /// A value as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Error::usage(format!("--{name}: `{text}` is not a number in range")))
    }
}

/// Takes flags until the first word that is none (`stop`), or all of them; what follows `--` is words.
pub(crate) fn parse(
    flags: &'static [Flag],
    mut words: impl Iterator<Item = String>,
    stop: usize,
) -> Result<Given, Error> {
    let mut given = Given::default();
    while let Some(word) = words.next() {
        if given.words.len() >= stop {
            given.words.push(word);
            given.words.extend(words);
            break;
        }
        if word == "--" {
            given.words.extend(words);
            break;
        }
        let Some(dashed) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            given.words.push(word);
            continue;
        };
        let long = dashed.strip_prefix('-').unwrap_or(dashed);
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let known =
            flags.iter().find(|flag| flag.name == name || (!flag.short.is_empty() && flag.short == name));
        let flag = known.ok_or_else(|| Error::usage(format!("flag provided but not defined: {word}")))?;
        let value = match (flag.value, attached) {
            ("", attached) => attached.unwrap_or_else(|| "true".to_owned()),
            (_, Some(value)) => value,
            (_, None) => {
                words.next().ok_or_else(|| Error::usage(format!("flag needs an argument: {word}")))?
            }
        };
        given.flags.push((flag.name, value));
    }
    Ok(given)
}

/// Flags, one a line.
pub(crate) fn describe(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags {
        let short = if flag.short.is_empty() { String::new() } else { format!("-{}, ", flag.short) };
        let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<34} {}", format!("{short}--{}{value}", flag.name), flag.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] =
        &[value("bundle", "b", "DIR", ""), switch("detach", "d", ""), value("env", "e", "NAME=VALUE", "")];

    fn given(words: &[&str], stop: usize) -> Result<Given, Error> {
        parse(FLAGS, words.iter().map(|word| (*word).to_owned()), stop)
    }

    #[test]
    fn flags_are_taken_in_every_form_of_go() {
        let given =
            given(&["-b", "/a", "--detach", "-e=A=b", "--env", "C=d", "id", "-bundle", "/c"], 9).unwrap();
        assert_eq!(given.get("bundle"), Some("/c"));
        assert!(given.on("detach"));
        assert_eq!(given.all("env").collect::<Vec<_>>(), ["A=b", "C=d"]);
        assert_eq!(given.words, ["id"]);
    }

    #[test]
    fn words_after_the_last_expected_one_are_nobodys_flags() {
        let given = given(&["-d=false", "id", "ls", "--detach", "-x"], 2).unwrap();
        assert!(!given.on("detach"));
        assert_eq!(given.words, ["id", "ls", "--detach", "-x"]);
    }

    #[test]
    fn unknown_and_incomplete_flags_are_errors() {
        assert!(given(&["--frob"], 9).unwrap_err().to_string().contains("--frob"));
        assert!(given(&["-b"], 9).unwrap_err().to_string().contains("-b"));
        assert!(given(&["-b", "x"], 9).unwrap().number::<u32>("bundle").is_err());
    }
}
