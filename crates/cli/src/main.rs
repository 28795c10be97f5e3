//! flags in, text out: the cata command.
//!
//! [`tree`] holds the commands, [`command`] has one file for each, [`options`] and [`parse`] turn what was
//! typed into the engine's requests, [`row`] and [`render`] turn its answers into text, and [`terminal`]
//! connects our own terminal to a container's.

mod command;
mod complete;
mod help;
mod options;
mod parse;
mod refusal;
mod render;
mod rootless;
mod row;
mod session;
mod terminal;
mod tree;
mod unsupported;

use std::path::PathBuf;
use std::process::ExitCode;

use cata_engine::machine;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::render::error::Family;
use crate::session::{Globals, Session};
use crate::tree::{Exit, Outcome};

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let (before, command) = split(&words);
    if !matches!(command, None | Some("help" | "completion")) {
        rootless::enter(&globals_of(before));
    }
    let exit = invoke(&words).unwrap_or_else(|failure| {
        failure.report();
        Exit(failure.exit_code(family(&words)))
    });
    ExitCode::from(exit.0)
}

/// Performs a command line without the program's name.
fn invoke(words: &[String]) -> Outcome {
    if let [word] = words
        && matches!(word.as_str(), "--version" | "-v")
    {
        session::print_line(command::system::version::line())?;
        return Ok(Exit::OK);
    }
    if let Some((word, line)) = words.split_first()
        && word == complete::WORD
    {
        return complete::answer(line, |before| Session::new(globals_of(before)));
    }
    if let Some((word, line)) = words.split_first()
        && word == machine::init::WORD
    {
        return command::machine::init(line);
    }
    if let Some((word, line)) = words.split_first()
        && word == "help"
    {
        return refusal::help_on(line);
    }
    let default = std::env::var("CATA_MACHINE").ok();
    if let Some(line) = command::machine::pass::addressed(words, default) {
        let session = Session::new(globals_of(&line.globals));
        let argv = std::iter::once(machine::PROGRAM.to_owned()).chain(line.words);
        return command::machine::pass::run(&session, &line.machine, argv.collect());
    }
    let arguments = std::iter::once(std::ffi::OsString::from("cata")).chain(std::env::args_os().skip(1));
    match program().try_get_matches_from(arguments) {
        Ok(matches) => {
            let session = Session::new(global_values(&matches));
            let outcome = tree::dispatch(command::TREE, &matches, &session);
            session.tell_damage();
            outcome
        }
        Err(error) => refusal::answer(&error, words),
    }
}

/// Whose exit codes must stay distinguishable from the engine's.
fn family(words: &[String]) -> Family {
    let path = tree::follow(command::TREE, words.iter().map(String::as_str));
    match path.last().map(|node| node.name) {
        Some("run") => Family::Run,
        Some("exec") => Family::Exec,
        _ => Family::Other,
    }
}

/// Clap's view of the whole program; flags of a command are made when it is typed.
fn program() -> Command {
    let program = globals(Command::new("cata"))
        .about("A daemonless container engine with Docker's command line")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true);
    command::TREE.iter().fold(program, |program, node| program.subcommand(node.command()))
}

/// The flags in front of the command.
pub(crate) fn globals(command: Command) -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("string").value_parser(value_parser!(PathBuf)).help(help)
    };
    command
        .arg(path("root", "Where images, containers and volumes are kept").env("CATA_ROOT").hide_env(true))
        .arg(path("state", "Where live state is kept").env("CATA_STATE").hide_env(true))
        .arg(path("config", "The configuration file").env("CATA_CONFIG").hide_env(true))
        .arg(
            Arg::new("machine")
                .long("machine")
                .value_name("string")
                .help("Run the command in this machine (CATA_MACHINE; see `cata machine`)"),
        )
        .arg(
            Arg::new("help")
                .long("help")
                .short('h')
                .action(ArgAction::Help)
                .help("Print this help")
                .hide(true),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version"),
        )
}

fn global_values(matches: &ArgMatches) -> Globals {
    let path =
        |name: &str| matches.get_one::<PathBuf>(name).filter(|p| !p.as_os_str().is_empty()).map(absolute);
    Globals { root: path("root"), state: path("state"), config: path("config") }
}

/// A line's words before its command, and the command.
fn split(words: &[String]) -> (&[String], Option<&str>) {
    let mut at = 0;
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-')) {
        let takes_next = matches!(word.as_str(), "--root" | "--state" | "--config" | "--machine");
        at += 1 + usize::from(takes_next);
    }
    (&words[..at.min(words.len())], words.get(at).map(String::as_str))
}

/// The global flags of a line that may be unfinished.
fn globals_of(words: &[String]) -> Globals {
    let path = |flag: &str| {
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(flag)? {
            "" => words.get(at + 1).map(PathBuf::from),
            rest => rest.strip_prefix('=').map(PathBuf::from),
        })
    };
    let or_env =
        |flag: &str, variable: &str| path(flag).or_else(|| std::env::var_os(variable).map(PathBuf::from));
    Globals {
        root: or_env("--root", "CATA_ROOT"),
        state: or_env("--state", "CATA_STATE"),
        config: or_env("--config", "CATA_CONFIG"),
    }
}

/// A supervisor lives in another directory: paths must not depend on ours.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

#[cfg(test)]
mod tests;
