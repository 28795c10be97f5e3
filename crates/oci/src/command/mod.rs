//! The commands, one file each (or a pair that belongs together).

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod spec;
mod start;
mod update;

use std::fmt::Write as _;

use crate::World;
use crate::args::{self, Flag, Given, switch};
use crate::error::{Error, Result};

/// A command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    name: &'static str,
    /// Its words.
    words: &'static str,
    help: &'static str,
    pub(crate) flags: &'static [Flag],
    /// Behind so many words no flags are looked for.
    pub(crate) stop: usize,
    /// Fewest and most words.
    count: (usize, usize),
    /// It makes a process, which must not get at this program.
    pub(crate) makes: bool,
    pub(crate) run: fn(&World, &Given) -> Result<u8>,
}

const HELP: Flag = switch("help", "h", "show help");

const ALL: &[Command] = &[
    create::CREATE,
    create::RUN,
    start::COMMAND,
    exec::COMMAND,
    list::STATE,
    list::LIST,
    ps::COMMAND,
    kill::COMMAND,
    delete::COMMAND,
    pause::PAUSE,
    pause::RESUME,
    update::COMMAND,
    events::COMMAND,
    spec::COMMAND,
    features::COMMAND,
    checkpoint::COMMAND,
    restore::COMMAND,
];

/// By name.
pub(crate) fn find(name: &str) -> Result<&'static Command> {
    ALL.iter()
        .find(|command| command.name == name)
        .ok_or_else(|| Error::usage(format!("`{name}` is not a command: see cata-runtime --help")))
}

/// All of them.
pub(crate) fn help(global: &[Flag]) -> String {
    let mut text = String::from(
        "cata-runtime: an OCI runtime\n\nUsage: cata-runtime [FLAGS] COMMAND [FLAGS] [WORDS]\n\nCommands:\n",
    );
    for command in ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<12} {}", command.name, command.help);
    }
    let _ = write!(text, "\nFlags:\n{}", args::describe(global));
    text.push_str("\n`cata-runtime COMMAND --help` says more.");
    text
}

impl Command {
    /// Its own help.
    pub(crate) fn usage(&self) -> String {
        let flags = args::describe(self.flags);
        let flags = flags.trim_end();
        format!(
            "{}\n\nUsage: cata-runtime {} [FLAGS] {}\n\nFlags:\n{flags}",
            self.help, self.name, self.words
        )
    }

    /// Whether there are as many words as it wants.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        let (fewest, most) = self.count;
        if (fewest..=most).contains(&given.words.len()) {
            return Ok(());
        }
        Err(Error::usage(format!("usage: cata-runtime {} [FLAGS] {}", self.name, self.words)))
    }
}

/// The first word: a container's id.
fn id(given: &Given) -> &str {
    given.words.first().map_or("", String::as_str)
}
