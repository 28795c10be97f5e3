//! `-e`, `--env-file` and `--label-file`: the text of files is given by the caller.

use super::{ParseError, Parsed};

/// One `-e`: `NAME=value`, or `NAME` for the caller's own value (left out when the caller has none).
pub(crate) fn variable(text: &str, own: impl Fn(&str) -> Option<String>) -> Parsed<Option<(String, String)>> {
    match text.split_once('=') {
        Some(("", _)) => Err(ParseError::new(format!("invalid environment variable: {text}"))),
        Some((name, value)) => Ok(Some((name.to_owned(), value.to_owned()))),
        None if text.is_empty() => Err(ParseError::new("invalid environment variable: empty")),
        None => Ok(own(text).map(|value| (text.to_owned(), value))),
    }
}

/// The lines of an environment file: `#` comments and blank lines are skipped, nothing is unquoted.
pub(crate) fn file(
    path: &str,
    content: &str,
    own: impl Fn(&str) -> Option<String>,
) -> Parsed<Vec<(String, String)>> {
    let mut variables = Vec::new();
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    for (number, line) in content.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(ParseError::new(format!(
                "invalid env file ({path}): no variable name on line {}",
                number + 1
            )));
        }
        if name.contains(char::is_whitespace) {
            return Err(ParseError::new(format!(
                "invalid env file ({path}): variable '{name}' contains whitespaces"
            )));
        }
        match line.split_once('=') {
            Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
            None => variables.extend(own(line).map(|value| (line.to_owned(), value))),
        }
    }
    Ok(variables)
}

/// The lines of a label file, as `--label` takes them.
pub(crate) fn label_file(content: &str) -> Vec<String> {
    let lines = content.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{file, variable};

    fn own(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn variable_takes_the_callers_value_for_a_bare_name() {
        assert_eq!(variable("HOME", own), Ok(Some(("HOME".into(), "/root".into()))));
        assert_eq!(variable("NOPE", own), Ok(None));
        assert_eq!(variable("A=b=c", own), Ok(Some(("A".into(), "b=c".into()))));
        assert_eq!(variable("A=", own), Ok(Some(("A".into(), String::new()))));
        assert_eq!(variable("=b", own).unwrap_err().to_string(), "invalid environment variable: =b");
    }

    #[test]
    fn file_skips_comments_and_keeps_quotes() {
        let parsed = file("f", "\u{feff}# c\n\nA=\"x\" \nHOME\nNOPE\n  B=1\n", own).unwrap();
        let expected = [("A", "\"x\" "), ("HOME", "/root"), ("B", "1")];
        assert_eq!(parsed, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(file("f", "A B=1", own).unwrap_err().to_string().contains("'A B' contains whitespaces"));
        assert!(file("f", "=1", own).is_err());
    }
}
