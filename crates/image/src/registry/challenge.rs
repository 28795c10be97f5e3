//! `WWW-Authenticate`: what a registry wants to see before it answers.

/// One challenge of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case.
    pub(crate) scheme: String,
    /// Names in lower case.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Parses a header's value; it may hold several challenges. What cannot be read is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        if let Some(value) = spaced.strip_prefix('=') {
            let (value, after) = quoted_or_token(value.trim_start_matches([' ', '\t']));
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = spaced;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn quoted_or_token(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        // Some registries leave the quotes away although the value has slashes and colons.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &inner[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_is_read() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        let challenges = parse(header);
        assert_eq!(challenges.len(), 1);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(challenges[0].get("realm"), Some("https://auth.example/token"));
        assert_eq!(challenges[0].get("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn several_challenges_and_odd_spellings_are_read() {
        let challenges = parse(r#"Negotiate, BASIC Realm = "a \"b\"" , bearer realm=https://x/t,service=y"#);
        let schemes: Vec<&str> = challenges.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(challenges[1].get("realm"), Some("a \"b\""));
        assert_eq!(challenges[2].get("realm"), Some("https://x/t"));
        assert_eq!(challenges[2].get("service"), Some("y"));
        assert!(parse("").is_empty() && parse("\"").is_empty());
        assert_eq!(parse("Basic realm=\"open").len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_harm(text in ".{0,200}") {
            for challenge in parse(&text) {
                assert!(!challenge.scheme.is_empty());
            }
        }

        #[test]
        fn what_is_written_is_read(realm in "[ -~]{0,40}", service in "[a-z0-9.:/-]{1,20}") {
            let escaped = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = parse(&format!("Bearer realm=\"{escaped}\",service=\"{service}\""));
            assert_eq!(parsed.len(), 1);
            assert_eq!(parsed[0].get("realm"), Some(realm.as_str()));
            assert_eq!(parsed[0].get("service"), Some(service.as_str()));
        }
    }
}
