//! `--help`, in the layout a Docker user knows.

use clap::{Arg, ArgAction, Command};

use crate::tree::{Body, Node};

/// Help of the place that `path` leads to; an empty path is the program itself.
pub(crate) fn text(path: &[&'static Node], root: &'static [Node], width: usize) -> String {
    let name = std::iter::once("cata").chain(path.iter().map(|n| n.name)).collect::<Vec<_>>().join(" ");
    let Some(node) = path.last() else { return root_text(root, width) };
    let mut text = format!("Usage:  {}\n\n{}\n", usage(&name, node), node.about);
    match &node.body {
        Body::Group(nodes) => {
            if let Some(front) = node.front {
                push_options(&mut text, "Options", &(front.augment)(Command::new(node.name)), width);
            }
            text.push_str("\nCommands:\n");
            push_nodes(&mut text, nodes.iter());
            text.push_str(&format!("\nRun '{name} COMMAND --help' for more information on a command.\n"));
        }
        Body::Verb { augment, .. } => {
            let spellings = aliases(path, root);
            if !spellings.is_empty() {
                text.push_str(&format!("\nAliases:\n  {}\n", spellings.join(", ")));
            }
            push_options(&mut text, "Options", &augment(Command::new(node.name)), width);
        }
    }
    text
}

/// The usage line without its heading.
pub(crate) fn usage(name: &str, node: &Node) -> String {
    match (&node.body, node.usage) {
        (Body::Group(_), usage) if node.front.is_some() => format!("{name} [OPTIONS] {usage}"),
        (Body::Group(_), usage) => format!("{name} {usage}"),
        (Body::Verb { augment, .. }, usage) => {
            let has_options = augment(Command::new(node.name))
                .get_arguments()
                .any(|a| !a.is_positional() && !a.is_hide_set());
            let options = if has_options { " [OPTIONS]" } else { "" };
            let gap = if usage.is_empty() { "" } else { " " };
            format!("{name}{options}{gap}{usage}")
        }
    }
}

/// Every spelling of a command, when there is more than one.
fn aliases(path: &[&'static Node], root: &'static [Node]) -> Vec<String> {
    let Some(node) = path.last() else { return Vec::new() };
    let mut spellings = Vec::new();
    let is_same = |other: &Node| match (&node.body, &other.body) {
        (Body::Verb { augment: a, .. }, Body::Verb { augment: b, .. }) => std::ptr::fn_addr_eq(*a, *b),
        _ => false,
    };
    for outer in root {
        if let Body::Group(inner) = &outer.body {
            for place in inner.iter().filter(|place| is_same(place)) {
                spellings.push(format!("cata {} {}", outer.name, place.name));
                spellings.extend(place.aliases.iter().map(|alias| format!("cata {} {alias}", outer.name)));
            }
        }
    }
    for place in root.iter().filter(|place| is_same(place)) {
        spellings.push(format!("cata {}", place.name));
        spellings.extend(place.aliases.iter().map(|alias| format!("cata {alias}")));
    }
    if spellings.len() > 1 { spellings } else { Vec::new() }
}

fn root_text(root: &'static [Node], width: usize) -> String {
    let mut text = String::from(
        "Usage:  cata [OPTIONS] COMMAND\n\nA daemonless container engine with Docker's command line\n",
    );
    let common = ["run", "exec", "ps", "pull", "push", "images", "version", "info"];
    text.push_str("\nCommon Commands:\n");
    push_nodes(&mut text, root.iter().filter(|n| common.contains(&n.name)));
    text.push_str("\nManagement Commands:\n");
    push_nodes(&mut text, root.iter().filter(|n| matches!(n.body, Body::Group(_))));
    text.push_str("\nCommands:\n");
    let is_verb = |n: &&Node| matches!(n.body, Body::Verb { .. });
    push_nodes(&mut text, root.iter().filter(|n| is_verb(n) && !common.contains(&n.name)));
    push_options(&mut text, "Global Options", &crate::globals(Command::new("cata")), width);
    text.push_str("\nRun 'cata COMMAND --help' for more information on a command.\n");
    text
}

fn push_nodes<'a>(text: &mut String, nodes: impl Iterator<Item = &'a Node>) {
    let mut nodes: Vec<&Node> = nodes.collect();
    nodes.sort_by_key(|node| node.name);
    let widest = nodes.iter().map(|node| node.name.len()).max().unwrap_or_default();
    for node in nodes {
        text.push_str(&format!("  {:widest$}  {}\n", node.name, node.about));
    }
}

fn push_options(text: &mut String, heading: &str, command: &Command, width: usize) {
    let mut options: Vec<&Arg> =
        command.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set()).collect();
    if options.is_empty() {
        return;
    }
    options.sort_by_key(|arg| arg.get_long().unwrap_or_default());
    let heads: Vec<String> = options.iter().map(|arg| head(arg)).collect();
    let widest = heads.iter().map(String::len).max().unwrap_or_default();
    text.push_str(&format!("\n{heading}:\n"));
    for (arg, head) in options.iter().zip(heads) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let indent = widest + 3;
        for (number, line) in wrap(&help, width.saturating_sub(indent).max(24)).iter().enumerate() {
            let head = if number == 0 { head.as_str() } else { "" };
            text.push_str(format!("{head:indent$}{line}").trim_end());
            text.push('\n');
        }
    }
}

/// `  -e, --env list`.
fn head(arg: &Arg) -> String {
    let short = arg.get_short().map_or_else(|| "    ".to_owned(), |c| format!("-{c}, "));
    let long = arg.get_long().unwrap_or_default();
    let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
    let value = match arg.get_action() {
        ArgAction::Set | ArgAction::Append if !optional => arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or(String::new(), |name| format!(" {name}")),
        _ => String::new(),
    };
    format!("  {short}--{long}{value}")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
