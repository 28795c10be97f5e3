//! What clap refuses, said the way Docker says it: help, unknown flags and commands, bad values, missing
//! arguments.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::command::TREE;
use crate::render::error::Failure;
use crate::tree::{Body, Exit, Node, Outcome, follow};
use crate::{command, help, session, unsupported};

/// Answers an error of clap's: help and version are printed, everything else is a failure.
pub(crate) fn answer(error: &clap::Error, words: &[String]) -> Outcome {
    let path = follow(TREE, words.iter().map(String::as_str));
    match error.kind() {
        ErrorKind::DisplayHelp => {
            session::print(help::text(&path, TREE, width()))?;
            Ok(Exit::OK)
        }
        ErrorKind::DisplayVersion => {
            session::print_line(command::system::version::line())?;
            Ok(Exit::OK)
        }
        // A group or the program alone shows what there is, as Docker does.
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            session::print(help::text(&path, TREE, width()))?;
            Ok(if path.is_empty() && words.is_empty() { Exit::OK } else { Exit(1) })
        }
        _ => Err(failure(error, &path, words)),
    }
}

/// `help COMMAND`, which is `COMMAND --help`.
pub(crate) fn help_on(words: &[String]) -> Outcome {
    let path = follow(TREE, words.iter().map(String::as_str));
    if path.len() < words.len() {
        let text = format!("unknown help topic: {}", words.join(" "));
        return Err(Failure::usage(text).with_hint("see 'cata --help'"));
    }
    session::print(help::text(&path, TREE, width()))?;
    Ok(Exit::OK)
}

/// Columns of the terminal, or 80.
fn width() -> usize {
    crate::terminal::window().map_or(80, |(_, columns)| usize::from(columns))
}

pub(crate) fn failure(error: &clap::Error, path: &[&'static Node], words: &[String]) -> Failure {
    let argument = context(error, ContextKind::InvalidArg);
    // A flag in front of the command is the program's, whatever the command is.
    let in_front = path.first().is_some_and(|first| {
        words.iter().take_while(|word| !first.answers(word)).any(|word| flag_of(word) == flag_of(&argument))
    });
    let path = if in_front { &[] } else { path };
    let name = std::iter::once("cata").chain(path.iter().map(|n| n.name)).collect::<Vec<_>>().join(" ");
    let see = format!("see '{name} --help'");
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_argument(&argument, path, &see),
        ErrorKind::InvalidSubcommand => {
            let word = context(error, ContextKind::InvalidSubcommand);
            let group = path.last().map_or("", |node| node.name);
            if let Some(hint) = unsupported::instead_of_buildx(group, &word) {
                return Failure::usage(format!("command '{}{word}' is not supported", prefix(&name)))
                    .with_hint(hint);
            }
            if unsupported::is_unsupported_command(&word) {
                return Failure::usage(format!("command '{}{word}' is not supported yet", prefix(&name)))
                    .with_hint(unsupported::instead_of_command(&word));
            }
            let what = if path.is_empty() {
                format!("'{word}' is not a cata command")
            } else {
                format!("unknown command: {name} {word}")
            };
            Failure::usage(what).with_hint(see)
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let value = context(error, ContextKind::InvalidValue);
            if value.is_empty() {
                return Failure::flag(format!("flag needs an argument: {}", flag_of(&argument)))
                    .with_hint(see);
            }
            let why = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_else(|| "invalid value".to_owned());
            let why = if why == "invalid digit found in string" {
                format!("strconv.ParseInt: parsing \"{value}\": invalid syntax")
            } else {
                why
            };
            Failure::flag(format!(
                "invalid argument \"{value}\" for \"{}\" flag: {why}",
                full_flag(&argument, path)
            ))
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            if argument.starts_with('-') {
                return Failure::flag(format!("flag needs an argument: {}", flag_of(&argument)))
                    .with_hint(see);
            }
            Failure::usage(format!("'{name}' {}", wanted_arguments(path))).with_hint(see)
        }
        ErrorKind::NoEquals => {
            Failure::flag(format!("flag {} takes a value only after '='", flag_of(&argument)))
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            Failure::usage(line.strip_prefix("error: ").unwrap_or(line)).with_hint(see)
        }
    }
}

/// `cata network ` to `network `, and nothing for the program itself.
fn prefix(name: &str) -> String {
    name.strip_prefix("cata ").map_or_else(String::new, |rest| format!("{rest} "))
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(list)) => list.join(" "),
        _ => String::new(),
    }
}

/// `--memory <bytes>` to `--memory`.
fn flag_of(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

/// `--memory` to `-m, --memory`, as Docker names flags in errors.
fn full_flag(argument: &str, path: &[&'static Node]) -> String {
    let flag = flag_of(argument);
    let long = flag.strip_prefix("--").unwrap_or(flag);
    let Some(Node { body: Body::Verb { augment, .. }, .. }) = path.last() else { return flag.to_owned() };
    let command = augment(clap::Command::new(""));
    let short = command.get_arguments().find(|a| a.get_long() == Some(long)).and_then(clap::Arg::get_short);
    short.map_or_else(|| flag.to_owned(), |short| format!("-{short}, --{long}"))
}

fn unknown_argument(argument: &str, path: &[&'static Node], see: &str) -> Failure {
    let command = path.last().map_or("", |node| node.name);
    if !argument.starts_with('-') {
        return Failure::usage(format!("unexpected argument: {argument}")).with_hint(see);
    }
    let flag = flag_of(argument);
    if unsupported::is_unsupported_flag(command, flag) {
        if let Some(hint) = unsupported::instead_of_flag(command, flag) {
            return Failure::flag(format!("flag {flag} is not supported")).with_hint(hint);
        }
        return Failure::flag(format!("flag {flag} is not supported yet"))
            .with_hint(format!("leave it out; {see} for the flags there are"));
    }
    let what = if flag.starts_with("--") { "unknown flag" } else { "unknown shorthand flag" };
    Failure::flag(format!("{what}: {flag}")).with_hint(see)
}

/// How many arguments the usage line asks for, in Docker's words.
fn wanted_arguments(path: &[&'static Node]) -> String {
    // Of several forms (`A B | C D`) the first: they ask for as many.
    let usage = path.last().map_or("", |node| node.usage).split(" | ").next().unwrap_or_default();
    let required = usage.split(' ').filter(|word| !word.starts_with('[') && !word.is_empty()).count();
    let open_ended = usage.contains("...");
    let arguments = if required == 1 { "argument" } else { "arguments" };
    let least = if open_ended || usage.contains('[') { "at least " } else { "" };
    format!("requires {least}{required} {arguments}")
}
