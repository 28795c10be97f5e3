//! `kernel`.

mod import;
mod inspect;
mod install;
mod ls;
mod rm;
mod switch;

use cata_engine::kernel::Made;

use crate::render::error::Failure;
use crate::session;
use crate::tree::Node;

pub(crate) const NODES: &[Node] = &[
    Node::verb::<import::Import>("import", "FILE", "Take a kernel out of a file or a package"),
    Node::verb::<inspect::Inspect>("inspect", "KERNEL [KERNEL...]", "Print details of kernels"),
    Node::verb::<install::Install>("install", "[PACKAGE]", "Take the distribution's kernel"),
    Node::verb::<ls::List>("ls", "", "List kernels").also(&["list"]),
    Node::verb::<rm::Remove>("rm", "KERNEL [KERNEL...]", "Remove kernels").also(&["remove"]),
    Node::verb::<switch::Use>("use", "KERNEL", "Choose the kernel that is used when none is named"),
];

/// Tells on standard error what became of it, and its name on standard output.
fn tell(made: &Made) -> Result<(), Failure> {
    let name = &made.record.name;
    if made.unchanged {
        session::note(format!("{name} is there already"));
    }
    if !made.default {
        session::note(format!("another kernel is the default: `cata kernel use {name}` changes that"));
    }
    session::print_line(name)
}
