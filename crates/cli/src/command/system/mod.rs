//! `system` with its `check`, `df`, `events`, `prune`, `start`, `stop` and `unit`, `login`, `logout`, `serve`, `version`, `info` and `completion`.

pub(crate) mod boot;
mod check;
pub(crate) mod completion;
mod df;
pub(crate) mod events;
mod info;
mod login;
mod prune;
mod serve;
pub(crate) mod version;

use crate::tree::Node;

pub(crate) const INFO: Node =
    Node::verb::<info::Info>("info", "", "Print what the engine knows of itself and the host");

pub(crate) const EVENTS: Node = Node::verb::<events::Events>(
    "events",
    "",
    "Print what happens to containers, images, networks and volumes",
);

pub(crate) const SERVE: Node =
    Node::verb::<serve::Serve>("serve", "", "Serve Docker's Engine API on a unix socket");

pub(crate) const LOGIN: Node = Node::verb::<login::Login>("login", "[SERVER]", "Log in to a registry");
pub(crate) const LOGOUT: Node = Node::verb::<login::Logout>("logout", "[SERVER]", "Log out from a registry");

pub(crate) const NODES: &[Node] = &[
    INFO,
    EVENTS,
    Node::verb::<check::Check>("check", "", "Look whether what is kept is whole, and mend it"),
    Node::verb::<df::Df>("df", "", "Show what takes up the disk"),
    Node::verb::<prune::Prune>("prune", "", "Remove what nobody uses"),
    Node::verb::<boot::Start>("start", "", "Start what a restart policy starts at boot"),
    Node::verb::<boot::Stop>("stop", "", "Stop every container for a shutdown"),
    Node::verb::<boot::Unit>("unit", "", "Print a systemd unit that does both"),
];
