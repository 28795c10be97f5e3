//! `volume`.

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use crate::tree::Node;

pub(crate) const NODES: &[Node] = &[
    Node::verb::<create::Create>("create", "[VOLUME]", "Create a volume"),
    Node::verb::<inspect::Inspect>("inspect", "VOLUME [VOLUME...]", "Print details of volumes"),
    Node::verb::<ls::List>("ls", "", "List volumes").also(&["list"]),
    Node::verb::<prune::Prune>("prune", "", "Remove volumes that no container uses"),
    Node::verb::<rm::Remove>("rm", "VOLUME [VOLUME...]", "Remove volumes").also(&["remove"]),
];
