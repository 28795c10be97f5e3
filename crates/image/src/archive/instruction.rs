//! `--change`: Dockerfile instructions that only change how an image is run.

use cata_spec::image::{ContainerConfig, Healthcheck};

use crate::error::ArchiveError;

/// Applies one instruction.
///
/// # Errors
/// [`ArchiveError::Change`] naming the instruction.
pub fn apply(line: &str, config: &mut ContainerConfig) -> Result<(), ArchiveError> {
    let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    change(&word.to_ascii_uppercase(), rest.trim(), config)
        .map_err(|reason| ArchiveError::Change { instruction: line.to_owned(), reason })
}

fn change(word: &str, rest: &str, config: &mut ContainerConfig) -> Result<(), String> {
    if rest.is_empty() {
        return Err("it needs an argument".to_owned());
    }
    match word {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                config.env.retain(|known| !known.starts_with(&prefix));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                config.exposed_ports.extend(ports(port)?);
            }
        }
        "VOLUME" => config.volumes.extend(list(rest)?.into_iter().filter(|path| !path.is_empty())),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') || config.working_dir.is_empty() {
                if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
        }
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(format!("{trigger} isn't allowed as an ONBUILD trigger"));
            }
            config.on_build.push(rest.to_owned());
        }
        other => return Err(format!("{other} is not a valid change command")),
    }
    Ok(())
}

/// JSON form, or the shell form that runs `/bin/sh -c`.
fn command(text: &str) -> Vec<String> {
    json(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

fn list(text: &str) -> Result<Vec<String>, String> {
    match json(text) {
        Some(items) => Ok(items),
        None => words(text),
    }
}

/// `a=b c="d e"`, or the old `a the rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("it must have two arguments")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("`{word}` must be of the form name=value")),
        })
        .collect()
}

/// Words, with quotes and backslashes taken away.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let (mut word, mut begun, mut quote) = (String::new(), false, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.extend(characters.next()),
            (_, c) => word.push(c),
        }
        begun = true;
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

/// `80`, `53/udp`, `8000-8010`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("invalid containerPort: {text}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from == 0 || from > to {
        return Err(bad());
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("it has no command")?;
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} needs a value"))?;
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => {
                check.retries = value.parse().map_err(|_| format!("--retries={value} is not a number"))?;
            }
            _ => return Err(format!("unknown flag: {name}")),
        }
        rest = after.trim_start();
    }
    let (kind, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (kind.to_ascii_uppercase().as_str(), argument.trim()) {
        ("NONE", "") => check.test = vec!["NONE".to_owned()],
        ("NONE", _) => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", "") => return Err("missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", argument) => {
            check.test = match json(argument) {
                Some(words) => [vec!["CMD".to_owned()], words].concat(),
                None => vec!["CMD-SHELL".to_owned(), argument.to_owned()],
            };
        }
        (other, _) => return Err(format!("unknown type `{other}` (try CMD)")),
    }
    Ok(check)
}

/// Go's durations: `1h2m3.5s`, `100ms`; in nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid duration `{text}`");
    let mut total = 0f64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    #[allow(clippy::cast_possible_truncation, reason = "saturates, and no probe waits for 292 years")]
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        for line in lines {
            apply(line, &mut config).unwrap();
        }
        config
    }

    #[test]
    fn every_instruction_is_applied() {
        let config = all(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint run me",
            r#"ENV A=1 B="two words" C=three\ words"#,
            "ENV A the rest",
            "LABEL k=v",
            "EXPOSE 80 53/udp 8000-8002/tcp",
            r#"VOLUME ["/data"]"#,
            "VOLUME /a /b",
            "USER u:g",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD pg_isready -q",
            "ONBUILD RUN make",
        ]);
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(config.entrypoint.unwrap()[2], "run me");
        assert_eq!(config.env, ["B=two words", "C=three words", "A=the rest"]);
        assert_eq!(config.exposed_ports.len(), 5);
        assert_eq!(config.volumes.len(), 3);
        assert_eq!(config.working_dir, "/srv/app");
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
        assert_eq!(check.test, ["CMD-SHELL", "pg_isready -q"]);
        assert_eq!(config.on_build, ["RUN make"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for bad in [
            "RUN x",
            "CMD",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 9-8",
            "EXPOSE 80/x",
            "ENV A",
            "ENV A=\"b",
            "ENV A=b =c",
            "HEALTHCHECK x",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=5 CMD x",
            "ONBUILD FROM x",
        ] {
            let error = apply(bad, &mut ContainerConfig::default()).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_without_harm(line in ".{0,80}", word in "(ENV|LABEL|HEALTHCHECK|VOLUME|EXPOSE)") {
            let _ = apply(&line, &mut ContainerConfig::default());
            let _ = apply(&format!("{word} {line}"), &mut ContainerConfig::default());
        }
    }
}
