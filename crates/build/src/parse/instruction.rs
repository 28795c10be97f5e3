//! One logical line becomes one instruction.

use super::lines::{Lines, Logical};
use super::words::{duration, json_list, list, split};
use super::{flags, heredoc};
use crate::ast::{Arg, Command, Copy, From, Healthcheck, Instruction, Kind, Onbuild, Pair, Run};
use crate::error::{Error, Result, nearest};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads an instruction, and from `lines` the here-documents it asks for.
pub(super) fn read(line: Logical, lines: &mut Lines<'_>) -> Result<Instruction> {
    let (keyword, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let rest = rest.trim();
    let upper = keyword.to_ascii_uppercase();
    let Some(name) = KEYWORDS.iter().find(|known| **known == upper) else {
        let error = Error::new(format!("unknown instruction: {keyword}")).at(keyword);
        return Err(match nearest(&upper, KEYWORDS) {
            Some(known) => error.hint(format!("did you mean {known}?")),
            None => error,
        });
    };
    let kind = kind(name, rest, lines)?;
    Ok(Instruction {
        line: line.number,
        last_line: lines.taken().max(line.number),
        keyword: keyword.to_owned(),
        kind,
        text: line.text,
        comments: line.comments,
    })
}

fn kind(name: &'static str, rest: &str, lines: &mut Lines<'_>) -> Result<Kind> {
    let escape = lines.escape;
    let some = || {
        if rest.is_empty() {
            Err(Error::new(format!("{name} requires at least one argument")))
        } else {
            Ok(())
        }
    };
    let one = || {
        some()?;
        let words = split(rest, escape);
        match words.as_slice() {
            [_] => Ok(rest.to_owned()),
            [_, second, ..] => {
                Err(Error::new(format!("{name} requires exactly one argument")).at(second.clone()))
            }
            [] => Err(Error::new(format!("{name} requires exactly one argument"))),
        }
    };
    Ok(match name {
        "FROM" => Kind::From(from(rest, escape)?),
        "RUN" => Kind::Run(run(rest, lines)?),
        "CMD" => Kind::Cmd(command(rest)),
        "ENTRYPOINT" => Kind::Entrypoint(command(rest)),
        "COPY" => Kind::Copy(copy("COPY", rest, lines)?),
        "ADD" => Kind::Add(copy("ADD", rest, lines)?),
        "ENV" => Kind::Env(pairs(name, rest, escape)?),
        "LABEL" => Kind::Label(pairs(name, rest, escape)?),
        "ARG" => Kind::Arg(args(rest, escape)?),
        "EXPOSE" => {
            some()?;
            Kind::Expose(split(rest, escape))
        }
        "VOLUME" => {
            some()?;
            let paths = list(rest);
            if paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
                return Err(Error::new("VOLUME specified can not be an empty string"));
            }
            Kind::Volume(paths)
        }
        "USER" => Kind::User(one()?),
        "STOPSIGNAL" => Kind::Stopsignal(one()?),
        "WORKDIR" => {
            some()?;
            Kind::Workdir(rest.to_owned())
        }
        "MAINTAINER" => {
            some()?;
            Kind::Maintainer(rest.to_owned())
        }
        "SHELL" => match json_list(rest) {
            Some(words) if !words.is_empty() => Kind::Shell(words),
            Some(_) => return Err(Error::new("SHELL requires at least one argument")),
            None => {
                return Err(Error::new("SHELL requires the arguments to be in JSON form")
                    .at(rest)
                    .hint("SHELL [\"/bin/bash\", \"-c\"]"));
            }
        },
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(rest, escape)?),
        _ => Kind::Onbuild(onbuild(rest, lines)?),
    })
}

fn from(rest: &str, escape: char) -> Result<From> {
    let flags = flags::take("FROM", rest, escape);
    flags.check(&["platform"], &[])?;
    let platform = flags.value("platform")?;
    let words: Vec<&str> = flags.rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, as_, name] if as_.eq_ignore_ascii_case("as") => (*image, Some(*name)),
        [] => return Err(Error::new("FROM requires an image")),
        [_, other, ..] => {
            return Err(Error::new("FROM requires either one or three arguments")
                .at(*other)
                .hint("FROM image, or FROM image AS name"));
        }
    };
    if let Some(name) = name {
        let lower = name.to_ascii_lowercase();
        let fits = lower.starts_with(|c: char| c.is_ascii_lowercase())
            && lower.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !fits {
            return Err(Error::new(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ))
            .at(name));
        }
    }
    Ok(From { image: image.to_owned(), platform, name: name.map(str::to_owned) })
}

fn command(text: &str) -> Command {
    match json_list(text) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(text.to_owned()),
    }
}

fn run(rest: &str, lines: &mut Lines<'_>) -> Result<Run> {
    let flags = flags::take("RUN", rest, lines.escape);
    flags.check(&["mount", "network", "security", "device"], &["mount", "device"])?;
    let command = command(flags.rest);
    if matches!(&command, Command::Shell(line) if line.is_empty())
        || matches!(&command, Command::Exec(words) if words.is_empty())
    {
        return Err(Error::new("RUN requires at least one argument"));
    }
    let heredocs =
        if matches!(command, Command::Shell(_)) { heredoc::read(flags.rest, lines)? } else { Vec::new() };
    Ok(Run {
        mounts: flags.values("mount")?,
        network: flags.value("network")?,
        security: flags.value("security")?,
        devices: flags.values("device")?,
        command,
        heredocs,
    })
}

fn copy(name: &'static str, rest: &str, lines: &mut Lines<'_>) -> Result<Copy> {
    let flags = flags::take(name, rest, lines.escape);
    let known: &[&str] = if name == "COPY" {
        &["from", "chown", "chmod", "link", "parents", "exclude"]
    } else {
        &["chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"]
    };
    flags.check(known, &["exclude"])?;
    let mut words = list(flags.rest);
    let in_json = json_list(flags.rest).is_some();
    let heredocs = if in_json { Vec::new() } else { heredoc::read(flags.rest, lines)? };
    let destination = match (words.len(), words.pop()) {
        (2.., Some(destination)) => destination,
        (_, given) => {
            let error = Error::new(format!(
                "{name} requires at least two arguments, but only {} was provided. Destination could not be determined",
                usize::from(given.is_some())
            ));
            return Err(error.hint(format!("{name} source... destination")));
        }
    };
    if heredoc::mark(&destination).is_some() && !in_json {
        return Err(Error::new("the destination cannot be a heredoc").at(destination));
    }
    if words.len() > 1
        && !destination.ends_with('/')
        && !matches!(destination.as_str(), "." | "..")
        && !destination.contains('$')
    {
        return Err(Error::new(format!(
            "when using {name} with more than one source file, the destination must be a directory and end with a /"
        ))
        .at(destination.clone())
        .hint(format!("{destination}/")));
    }
    Ok(Copy {
        from: flags.value("from")?,
        chown: flags.value("chown")?,
        chmod: flags.value("chmod")?,
        checksum: flags.value("checksum")?,
        exclude: flags.values("exclude")?,
        link: flags.switch("link")?.unwrap_or(false),
        parents: flags.switch("parents")?.unwrap_or(false),
        keep_git_dir: flags.switch("keep-git-dir")?.unwrap_or(false),
        unpack: flags.switch("unpack")?,
        sources: words,
        destination,
        heredocs,
    })
}

fn pairs(name: &str, rest: &str, escape: char) -> Result<Vec<Pair>> {
    let words = split(rest, escape);
    let Some(first) = words.first() else {
        return Err(Error::new(format!("{name} requires at least one argument")));
    };
    if !first.contains('=') {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| {
            Error::new(format!("{name} must have two arguments"))
                .at(first.clone())
                .hint(format!("{name} {first}=value"))
        })?;
        let value = value.trim().to_owned();
        return Ok(vec![Pair { name: key.to_owned(), value, legacy: true }]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("" | "\"\"" | "''", _)) => {
                Err(Error::new(format!("{name} names can not be blank")).at(word))
            }
            Some((key, value)) => Ok(Pair { name: key.to_owned(), value: value.to_owned(), legacy: false }),
            None => Err(Error::new(format!(
                "syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))
            .at(word)
            .hint("a value with spaces needs quotes")),
        })
        .collect()
}

fn args(rest: &str, escape: char) -> Result<Vec<Arg>> {
    let words = split(rest, escape);
    if words.is_empty() {
        return Err(Error::new("ARG requires at least one argument"));
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::new("ARG names can not be blank").at(word)),
            Some((name, default)) => Ok(Arg { name: name.to_owned(), default: Some(default.to_owned()) }),
            None => Ok(Arg { name: word, default: None }),
        })
        .collect()
}

fn healthcheck(rest: &str, escape: char) -> Result<Healthcheck> {
    let flags = flags::take("HEALTHCHECK", rest, escape);
    flags.check(&["interval", "timeout", "start-period", "start-interval", "retries"], &[])?;
    let time = |name: &str| flags.value(name)?.map(|text| duration(name, &text)).transpose();
    let retries = flags
        .value("retries")?
        .map(|text| {
            text.parse::<i64>()
                .ok()
                .filter(|count| *count >= 0)
                .ok_or_else(|| Error::new(format!("--retries must be a number, not `{text}`")).at(text))
        })
        .transpose()?;
    let (kind, argument) = flags.rest.split_once(char::is_whitespace).unwrap_or((flags.rest, ""));
    let command = match (kind.to_ascii_uppercase().as_str(), argument.trim()) {
        ("NONE", "") => None,
        ("NONE", more) => return Err(Error::new("HEALTHCHECK NONE takes no arguments").at(more)),
        ("CMD", "") => return Err(Error::new("missing command after HEALTHCHECK CMD")),
        ("CMD", argument) => Some(command(argument)),
        ("", _) => return Err(Error::new("HEALTHCHECK requires at least one argument")),
        _ => {
            return Err(Error::new(format!("unknown type {kind:?} in HEALTHCHECK (try CMD)")).at(kind));
        }
    };
    if command.is_none() && !flags.rest.is_empty() && rest.trim_start().starts_with("--") {
        return Err(Error::new("HEALTHCHECK NONE takes no flags"));
    }
    Ok(Healthcheck {
        command,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    })
}

fn onbuild(rest: &str, lines: &mut Lines<'_>) -> Result<Onbuild> {
    if rest.is_empty() {
        return Err(Error::new("ONBUILD requires at least one argument"));
    }
    let word = rest.split_whitespace().next().unwrap_or_default();
    if matches!(word.to_ascii_uppercase().as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(
            Error::new(format!("{} isn't allowed as an ONBUILD trigger", word.to_ascii_uppercase())).at(word)
        );
    }
    let inner = read(Logical { number: lines.taken(), text: rest.to_owned(), comments: Vec::new() }, lines)?;
    let heredocs = match &inner.kind {
        Kind::Run(run) => run.heredocs.as_slice(),
        Kind::Copy(copy) | Kind::Add(copy) => copy.heredocs.as_slice(),
        _ => &[],
    };
    let mut trigger = rest.to_owned();
    for heredoc in heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    Ok(Onbuild { trigger })
}
