//! The tree of commands: which exist, under which names, and who answers them.
//!
//! It is data, so that the same verb can stand at the top (`cata run`) and in its group (`cata container
//! run`), and clap builds the flags of the one command that was typed only: the tree is wide, starts must
//! be fast.

use clap::{ArgAction, ArgMatches, Args, Command};

use crate::render::error::Failure;
use crate::session::Session;

/// The process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// All went well.
    pub(crate) const OK: Self = Self(0);
}

/// What every verb returns.
pub(crate) type Outcome = Result<Exit, Failure>;

/// One command: its flags, and what it does with them.
pub(crate) trait Verb: Args {
    /// Does it.
    fn call(self, session: &Session) -> Outcome;
}

/// One place in the tree.
pub(crate) struct Node {
    /// As typed.
    pub(crate) name: &'static str,
    /// Other spellings.
    pub(crate) aliases: &'static [&'static str],
    /// One line for listings.
    pub(crate) about: &'static str,
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    pub(crate) body: Body,
    /// Flags of a group, which stand before the command in it.
    pub(crate) front: Option<Front>,
}

/// Flags of a group: how they are added, and how they are kept for the command that follows.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) augment: fn(Command) -> Command,
    keep: fn(&ArgMatches, &Session) -> Result<(), Failure>,
}

/// What a group's flags are.
pub(crate) trait Fronted: Args {
    /// Keeps them.
    fn keep(self, session: &Session);
}

/// What is at a place.
pub(crate) enum Body {
    /// A command.
    Verb {
        /// Adds its flags.
        augment: fn(Command) -> Command,
        /// Performs it.
        call: fn(&ArgMatches, &Session) -> Outcome,
    },
    /// More places.
    Group(&'static [Node]),
}

impl Node {
    /// A place with a command.
    pub(crate) const fn verb<V: Verb>(name: &'static str, usage: &'static str, about: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            about,
            usage,
            front: None,
            body: Body::Verb { augment: augment::<V>, call: call::<V> },
        }
    }

    /// A place with further places.
    pub(crate) const fn group(name: &'static str, about: &'static str, nodes: &'static [Self]) -> Self {
        Self { name, aliases: &[], about, usage: "COMMAND", body: Body::Group(nodes), front: None }
    }

    /// The same place with flags before its commands.
    pub(crate) const fn with<F: Fronted>(self) -> Self {
        let front = Some(Front { augment: augment_front::<F>, keep: keep::<F> });
        Self {
            name: self.name,
            aliases: self.aliases,
            about: self.about,
            usage: self.usage,
            body: self.body,
            front,
        }
    }

    /// The same place under further names.
    pub(crate) const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self {
            name: self.name,
            aliases,
            about: self.about,
            usage: self.usage,
            body: self.body,
            front: self.front,
        }
    }

    /// Whether this place answers to `name`.
    pub(crate) fn answers(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Clap's view of it; flags of a verb are made when it is the one that was typed.
    pub(crate) fn command(&self) -> Command {
        let command = Command::new(self.name)
            .about(self.about)
            .aliases(self.aliases)
            .disable_help_flag(true)
            .disable_help_subcommand(true);
        match &self.body {
            Body::Verb { augment, .. } => command.defer(*augment),
            Body::Group(nodes) => {
                let command = command.subcommand_required(true).arg(help_flag(true));
                let command = self.front.map_or(command.clone(), |front| (front.augment)(command));
                nodes.iter().fold(command, |command, node| command.subcommand(node.command()))
            }
        }
    }
}

/// Walks down the tree with what clap matched and performs the verb found.
pub(crate) fn dispatch(nodes: &[Node], matches: &ArgMatches, session: &Session) -> Outcome {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Failure::usage("a command is missing"));
    };
    match nodes.iter().find(|node| node.name == name) {
        Some(Node { body: Body::Verb { call, .. }, .. }) => call(matches, session),
        Some(Node { body: Body::Group(nodes), front, .. }) => {
            if let Some(front) = front {
                (front.keep)(matches, session)?;
            }
            dispatch(nodes, matches, session)
        }
        None => Err(Failure::usage(format!("'{name}' is not a cata command"))),
    }
}

/// The places on the way to the command that `words` (the arguments without the program's name) name, as far
/// as they can be followed.
pub(crate) fn follow<'a>(nodes: &'static [Node], words: impl Iterator<Item = &'a str>) -> Vec<&'static Node> {
    let mut path: Vec<&'static Node> = Vec::new();
    let mut nodes = nodes;
    let mut skip = false;
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word.starts_with('-') {
            // Before the first command only global flags can stand; these take a value in the next word.
            let valued = [
                "--root",
                "--state",
                "--config",
                "--machine",
                "--context",
                "-c",
                "--host",
                "-H",
                "--log-level",
                "-l",
            ];
            skip = match path.last() {
                None => valued.contains(&word),
                Some(node) => node.front.is_some_and(|front| takes_a_word(&front, word)),
            };
            continue;
        }
        match nodes.iter().find(|node| node.answers(word)) {
            Some(node) => {
                path.push(node);
                match &node.body {
                    Body::Group(inner) => nodes = inner,
                    Body::Verb { .. } => break,
                }
            }
            None => break,
        }
    }
    path
}

/// A command as if these words had been typed behind its name.
pub(crate) fn typed<V: Verb>(node: &'static Node, words: Vec<String>) -> Result<V, Failure> {
    let command = relaxed(V::augment_args(Command::new(node.name)));
    let command = command.no_binary_name(true).disable_help_flag(true);
    let parsed = command.try_get_matches_from(words).and_then(|matches| V::from_arg_matches(&matches));
    parsed.map_err(|error| crate::refusal::failure(&error, &[node], &[]))
}

fn augment_front<F: Fronted>(command: Command) -> Command {
    relaxed(F::augment_args(command))
}

fn keep<F: Fronted>(matches: &ArgMatches, session: &Session) -> Result<(), Failure> {
    let front = F::from_arg_matches(matches).map_err(|e| Failure::usage(e.to_string()))?;
    front.keep(session);
    Ok(())
}

/// Whether the value of a group's flag is the next word.
fn takes_a_word(front: &Front, word: &str) -> bool {
    let command = (front.augment)(Command::new(""));
    let mut flags = command.get_arguments().filter(|arg| !arg.is_require_equals_set());
    flags.any(|arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.len() == 2 && arg.get_short() == word.chars().nth(1),
    })
}

fn augment<V: Verb>(command: Command) -> Command {
    let command = relaxed(V::augment_args(command));
    let has_h = command.get_arguments().any(|arg| arg.get_short() == Some('h'));
    command.arg(help_flag(!has_h))
}

fn call<V: Verb>(matches: &ArgMatches, session: &Session) -> Outcome {
    let verb = V::from_arg_matches(matches).map_err(|e| Failure::usage(e.to_string()))?;
    verb.call(session)
}

/// Go's flag rules: a boolean may have a value (`--rm=false`), the last of a repeated flag wins, and a flag
/// with a value takes the next word whatever it begins with (`--cpus -1`).
pub(crate) fn relaxed(command: Command) -> Command {
    command.args_override_self(true).mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(crate::parse::boolean::parse),
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    })
}

fn help_flag(short: bool) -> clap::Arg {
    let flag = clap::Arg::new("help").long("help").action(ArgAction::Help).help("Print this help").hide(true);
    if short { flag.short('h') } else { flag }
}

#[cfg(test)]
mod tests {
    use super::follow;
    use crate::command::TREE;

    fn path(line: &str) -> String {
        let nodes = follow(TREE, line.split_whitespace());
        nodes.iter().map(|node| node.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn follow_finds_the_command_behind_global_flags() {
        assert_eq!(path("--root /x -D container ps -a"), "container ls");
        assert_eq!(path("--root=/x run -h box ps"), "run");
        assert_eq!(path("container --help"), "container");
        assert_eq!(path("nonsense"), "");
    }
}
