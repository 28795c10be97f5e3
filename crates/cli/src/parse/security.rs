//! `--security-opt`: `no-new-privileges`, `seccomp=…`, `systempaths=…`, `apparmor=…`, `label=…`.

use cata_engine::request::{SeccompRequest, Security};

use super::{ParseError, Parsed, boolean};

/// All options together; `read` gives the text of a seccomp profile's file.
pub(crate) fn parse(typed: &[String], read: impl Fn(&str) -> Parsed<String>) -> Parsed<Security> {
    let mut security = Security::default();
    for text in typed {
        // Docker reads the old `key:value` too.
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (text.as_str(), None),
        };
        match (key, value) {
            ("no-new-privileges", None) => security.no_new_privileges = true,
            ("no-new-privileges", Some(value)) => security.no_new_privileges = boolean::parse(value)?,
            ("seccomp", Some("unconfined")) => security.seccomp = SeccompRequest::Unconfined,
            ("seccomp", Some("builtin")) => security.seccomp = SeccompRequest::Default,
            ("seccomp", Some(path)) if !path.is_empty() => {
                security.seccomp = SeccompRequest::Profile(profile(path, &read(path)?)?);
            }
            ("systempaths", Some("unconfined")) => security.unconfined_paths = true,
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                security.apparmor = Some(profile.to_owned());
            }
            ("label", Some(label)) if !label.is_empty() => security.label.push(label.to_owned()),
            ("writable-cgroups", _) => {
                return Err(ParseError::new("--security-opt writable-cgroups is not supported yet"));
            }
            _ => return Err(ParseError::new(format!("invalid --security-opt: \"{text}\""))),
        }
    }
    Ok(security)
}

/// The profile must at least be JSON: what is in it is the runtime's to judge.
fn profile(path: &str, text: &str) -> Parsed<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|e| ParseError::new(format!("compacting json for seccomp profile ({path}) failed: {e}")))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use cata_engine::request::SeccompRequest;

    use super::parse;
    use crate::parse::ParseError;

    #[test]
    fn parse_reads_every_option() {
        let typed = [
            "no-new-privileges",
            "seccomp=p.json",
            "systempaths=unconfined",
            "apparmor=unconfined",
            "label:disable",
        ]
        .map(str::to_owned);
        let security = parse(&typed, |_| Ok("{}".to_owned())).unwrap();
        assert!(security.no_new_privileges && security.unconfined_paths);
        assert_eq!(security.seccomp, SeccompRequest::Profile("{}".to_owned()));
        assert_eq!(security.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(security.label, ["disable"]);
    }

    #[test]
    fn parse_refuses_what_it_does_not_know() {
        let read = |_: &str| Err(ParseError::new("no such file"));
        for bad in ["x=y", "seccomp", "seccomp=", "seccomp=missing.json", "no-new-privileges=maybe"] {
            assert!(parse(&[bad.to_owned()], read).is_err(), "{bad}");
        }
        assert!(parse(&["seccomp=x".to_owned()], |_| Ok("{".to_owned())).is_err());
    }
}
