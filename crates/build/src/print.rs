//! A Dockerfile written out again: what [`parse`](fn@crate::parse) reads from it is the same.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::ast::{Arg, Command, Copy, Dockerfile, Healthcheck, Heredoc, Instruction, Kind, Pair, Run};

impl Display for Dockerfile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(syntax) = &self.directives.syntax {
            writeln!(f, "# syntax={syntax}")?;
        }
        if self.directives.escape != '\\' {
            writeln!(f, "# escape={}", self.directives.escape)?;
        }
        if let Some(check) = &self.directives.check {
            writeln!(f, "# check={check}")?;
        }
        for instruction in &self.instructions {
            let usual = self.directives.escape == '\\';
            let text = if usual { format!("{instruction}") } else { format!("{instruction:#}") };
            f.write_str(&text)?;
            // Only the last one can end so: its line would go on, had the file not ended. One is taken for that.
            if text.ends_with(self.directives.escape) {
                f.write_char(self.directives.escape)?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

/// Escapes are backslashes; in the alternate form (`{:#}`) backquotes.
impl Display for Instruction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.keyword())?;
        match &self.kind {
            Kind::From(from) => {
                flag(f, "platform", from.platform.as_deref())?;
                end_flags(f, &from.image)?;
                write!(f, " {}", from.image)?;
                match &from.name {
                    Some(name) => write!(f, " AS {name}"),
                    None => Ok(()),
                }
            }
            Kind::Run(run) => write_run(f, run),
            Kind::Cmd(command) | Kind::Entrypoint(command) => write_command(f, command),
            Kind::Copy(copy) | Kind::Add(copy) => write_copy(f, copy),
            Kind::Env(pairs) | Kind::Label(pairs) => pairs.iter().try_for_each(|pair| write_pair(f, pair)),
            Kind::Arg(args) => args.iter().try_for_each(|Arg { name, default }| match default {
                Some(default) => write!(f, " {name}={default}"),
                None => write!(f, " {name}"),
            }),
            Kind::Expose(ports) => ports.iter().try_for_each(|port| write!(f, " {port}")),
            Kind::Volume(words) | Kind::Shell(words) => write!(f, " {}", json(words)),
            Kind::User(text) | Kind::Workdir(text) | Kind::Stopsignal(text) | Kind::Maintainer(text) => {
                write!(f, " {text}")
            }
            Kind::Healthcheck(check) => write_healthcheck(f, check),
            Kind::Onbuild(onbuild) => write!(f, " {}", onbuild.trigger),
        }
    }
}

fn flag(f: &mut Formatter<'_>, name: &str, value: Option<&str>) -> fmt::Result {
    match value {
        Some(value) => {
            let escape = if f.alternate() { '`' } else { '\\' };
            write!(f, " --{name}=")?;
            for character in value.chars() {
                if character.is_whitespace() || matches!(character, '"' | '\'') || character == escape {
                    f.write_char(escape)?;
                }
                f.write_char(character)?;
            }
            Ok(())
        }
        None => Ok(()),
    }
}

/// What comes behind flags and looks like one is set off from them.
fn end_flags(f: &mut Formatter<'_>, behind: &str) -> fmt::Result {
    if behind.starts_with("--") { f.write_str(" --") } else { Ok(()) }
}

fn write_command(f: &mut Formatter<'_>, command: &Command) -> fmt::Result {
    match command {
        Command::Shell(line) => write!(f, " {line}"),
        Command::Exec(words) => write!(f, " {}", json(words)),
    }
}

fn write_pair(f: &mut Formatter<'_>, pair: &Pair) -> fmt::Result {
    let between = if pair.legacy { ' ' } else { '=' };
    write!(f, " {}{between}{}", pair.name, pair.value)
}

fn write_run(f: &mut Formatter<'_>, run: &Run) -> fmt::Result {
    for mount in &run.mounts {
        flag(f, "mount", Some(mount))?;
    }
    for device in &run.devices {
        flag(f, "device", Some(device))?;
    }
    flag(f, "network", run.network.as_deref())?;
    flag(f, "security", run.security.as_deref())?;
    if let Command::Shell(line) = &run.command {
        end_flags(f, line)?;
    }
    write_command(f, &run.command)?;
    write_heredocs(f, &run.heredocs)
}

fn write_copy(f: &mut Formatter<'_>, copy: &Copy) -> fmt::Result {
    flag(f, "from", copy.from.as_deref())?;
    flag(f, "chown", copy.chown.as_deref())?;
    flag(f, "chmod", copy.chmod.as_deref())?;
    flag(f, "checksum", copy.checksum.as_deref())?;
    for exclude in &copy.exclude {
        flag(f, "exclude", Some(exclude))?;
    }
    for (set, name) in [(copy.link, "link"), (copy.parents, "parents"), (copy.keep_git_dir, "keep-git-dir")] {
        if set {
            write!(f, " --{name}")?;
        }
    }
    if let Some(unpack) = copy.unpack {
        write!(f, " --unpack={unpack}")?;
    }
    let plain = |word: &String| !word.is_empty() && !word.contains([' ', '\t', '[']) && word.is_ascii();
    if !copy.heredocs.is_empty() || copy.sources.iter().chain([&copy.destination]).all(plain) {
        end_flags(f, copy.sources.first().unwrap_or(&copy.destination))?;
        copy.sources.iter().try_for_each(|source| write!(f, " {source}"))?;
        write!(f, " {}", copy.destination)?;
    } else {
        let words: Vec<String> = copy.sources.iter().chain([&copy.destination]).cloned().collect();
        write!(f, " {}", json(&words))?;
    }
    write_heredocs(f, &copy.heredocs)
}

fn write_heredocs(f: &mut Formatter<'_>, heredocs: &[Heredoc]) -> fmt::Result {
    heredocs.iter().try_for_each(|heredoc| write!(f, "\n{}{}", heredoc.content, heredoc.name))
}

fn write_healthcheck(f: &mut Formatter<'_>, check: &Healthcheck) -> fmt::Result {
    let Some(command) = &check.command else { return f.write_str(" NONE") };
    for (name, nanos) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if let Some(nanos) = nanos {
            write!(f, " --{name}={nanos}ns")?;
        }
    }
    if let Some(retries) = check.retries {
        write!(f, " --retries={retries}")?;
    }
    f.write_str(" CMD")?;
    write_command(f, command)
}

/// Words as a JSON list.
#[must_use]
pub fn json(words: &[String]) -> String {
    let mut text = String::from("[");
    for (at, word) in words.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        text.push('"');
        for character in word.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                // Writing to a String cannot fail.
                c if c.is_control() => drop(write!(text, "\\u{:04x}", u32::from(c))),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push(']');
    text
}
