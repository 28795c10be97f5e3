//! `network`.

mod connect;
mod create;
mod disconnect;
mod inspect;
mod ls;
mod prune;
mod rm;

use crate::tree::Node;

pub(crate) const NODES: &[Node] = &[
    Node::verb::<connect::Connect>("connect", "NETWORK CONTAINER", "Connect a container to a network"),
    Node::verb::<create::Create>("create", "NETWORK", "Create a network"),
    Node::verb::<disconnect::Disconnect>(
        "disconnect",
        "NETWORK CONTAINER",
        "Disconnect a container from a network",
    ),
    Node::verb::<inspect::Inspect>("inspect", "NETWORK [NETWORK...]", "Print details of networks"),
    Node::verb::<ls::List>("ls", "", "List networks").also(&["list"]),
    Node::verb::<prune::Prune>("prune", "", "Remove networks that no container was made for"),
    Node::verb::<rm::Remove>("rm", "NETWORK [NETWORK...]", "Remove networks").also(&["remove"]),
];
