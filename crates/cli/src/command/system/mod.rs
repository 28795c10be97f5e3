//! `system`, `version`, `info` and `completion`.

pub(crate) mod completion;
mod info;
pub(crate) mod version;

use crate::tree::Node;

pub(crate) const INFO: Node =
    Node::verb::<info::Info>("info", "", "Print what the engine knows of itself and the host");

pub(crate) const NODES: &[Node] = &[INFO];
