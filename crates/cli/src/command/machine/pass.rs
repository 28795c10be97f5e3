//! A command in a machine, as if it were ours: streams, terminal, signals, exit code.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use cata_engine::container::exec::ExecOptions;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::container::run::exit;
use crate::render::error::Failure;
use crate::session::Session;
use crate::terminal::detach::Keys;
use crate::terminal::{self, Link, Manners, signals};
use crate::tree::Outcome;

/// Runs `argv` in a machine and stays until it ends.
pub(crate) fn run(session: &Session, machine: &str, argv: Vec<String>) -> Outcome {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let tty = stdin.is_terminal() && stdout.is_terminal();
    let term = std::env::var("TERM").ok().filter(|_| tty).map(|term| format!("TERM={term}"));
    let options = ExecOptions {
        id: None,
        argv,
        env: std::iter::once("HOME=/root".to_owned()).chain(term).collect(),
        tty,
        window: if tty { terminal::window() } else { None },
        ..ExecOptions::default()
    };
    let stdio = [Some(stdin.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd())];
    let mut process = session.engine()?.machine_exec(machine, options, stdio)?;
    if let Some(master) = process.terminal.take() {
        let clone = || master.try_clone().map_err(|e| Failure::io("duplicate the terminal", &e));
        let link =
            Link { input: Some(clone()?), output: Some(clone()?), errors: None, window: Some(clone()?) };
        drop(master);
        // Keys that detach mean something to the command in the machine, not to us.
        let keys = Keys::default();
        terminal::converse(link, Manners { keys: &keys, forward: None }, process.as_fd())?;
    } else {
        let pid = process.pid;
        let forward = move |signal| {
            // The process that stands for the one in the machine; gone is as good.
            if let (Some(pid), Some(signal)) = (Pid::from_raw(pid), Signal::from_named_raw(signal)) {
                let _ = kill_process(pid, signal);
            }
        };
        signals::watch(Some(Box::new(forward)), None)?;
    }
    Ok(exit(process.finish()?))
}

/// A line that is for the engine in a machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Addressed {
    /// The machine.
    pub(crate) machine: String,
    /// Global flags that mean our own engine.
    pub(crate) globals: Vec<String>,
    /// The command and everything behind it.
    pub(crate) words: Vec<String>,
}

/// PURE: the line taken apart, if `--machine` in front of the command or `default` names a machine; an empty name is none.
/// Commands about machines are never for one.
pub(crate) fn addressed(words: &[String], default: Option<String>) -> Option<Addressed> {
    let (mut machine, mut globals) = (default, Vec::new());
    let mut rest = words.iter();
    let first = loop {
        let Some(word) = rest.next() else { break None };
        if let Some(name) = word.strip_prefix("--machine=") {
            machine = Some(name.to_owned());
        } else if word == "--machine" {
            machine = rest.next().cloned();
        } else if !word.starts_with('-') {
            break Some(word);
        } else {
            globals.push(word.clone());
            if VALUED.contains(&word.as_str()) {
                globals.extend(rest.next().cloned());
            }
        }
    };
    let first = first.filter(|word| !OUTSIDE.contains(&word.as_str()))?;
    let machine = machine.filter(|name| !name.is_empty())?;
    Some(Addressed { machine, globals, words: std::iter::once(first).chain(rest).cloned().collect() })
}

/// Global flags whose value is the next word.
const VALUED: [&str; 3] = ["--root", "--state", "--config"];
/// What is asked of the host's engine in any case.
const OUTSIDE: [&str; 3] = ["machine", "completion", crate::complete::WORD];

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, default: Option<&str>) -> Option<(String, String, String)> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let line = addressed(&words, default.map(str::to_owned))?;
        Some((line.machine, line.globals.join(" "), line.words.join(" ")))
    }

    #[test]
    fn addressed_takes_what_is_in_front_of_the_command_only() {
        let of = |m: &str, g: &str, w: &str| Some((m.to_owned(), g.to_owned(), w.to_owned()));
        assert_eq!(
            line("--root /x --machine dev run -it a --machine b", None),
            of("dev", "--root /x", "run -it a --machine b")
        );
        assert_eq!(line("--machine=dev ps", Some("other")), of("dev", "", "ps"));
        assert_eq!(line("ps -a", Some("other")), of("other", "", "ps -a"));
        assert_eq!(line("run image --machine dev", None), None);
        assert_eq!(line("--machine= ps", Some("other")), None);
        assert_eq!(line("machine ls", Some("other")), None);
        assert_eq!(line("--machine dev", None), None);
    }
}
