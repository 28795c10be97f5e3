//! `machine`, and what goes into one (`cata --machine NAME …`).

mod create;
mod inspect;
mod ls;
pub(crate) mod pass;
mod rm;
mod shell;
mod start;
mod stop;

use cata_engine::machine::init as first;

use crate::command::system;
use crate::tree::{Exit, Node, Outcome};

pub(crate) const NODES: &[Node] = &[
    Node::verb::<create::Create>(
        "create",
        "NAME",
        "Create a machine: a lasting microVM with the engine in it",
    ),
    Node::verb::<inspect::Inspect>("inspect", "MACHINE [MACHINE...]", "Print details of machines"),
    Node::verb::<ls::List>("ls", "", "List machines").also(&["list"]),
    Node::verb::<rm::Remove>("rm", "MACHINE [MACHINE...]", "Remove machines and their disks")
        .also(&["remove"]),
    Node::verb::<shell::Shell>(
        "shell",
        "MACHINE [COMMAND] [ARG...]",
        "A shell in a machine, beside its containers",
    ),
    Node::verb::<start::Start>("start", "MACHINE [MACHINE...]", "Start machines"),
    Node::verb::<stop::Stop>(
        "stop",
        "MACHINE [MACHINE...]",
        "Stop the containers of machines, then the machines",
    ),
];

/// What the first process of a machine does; with `--wait`, waits until it has begun.
pub(crate) fn init(words: &[String]) -> Outcome {
    if words.iter().any(|word| word == "--wait") {
        first::wait_ready()?;
        return Ok(Exit::OK);
    }
    system::boot::told(|tell| first::run(tell))
}
