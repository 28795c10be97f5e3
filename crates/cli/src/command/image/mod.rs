//! `image` and the commands at the top that are the same.

mod history;
mod import;
mod inspect;
mod load;
pub(crate) mod ls;
mod prune;
mod pull;
pub(crate) mod push;
pub(crate) mod rm;
mod save;
mod tag;

use cata_spec::Reference;

use crate::render::error::Failure;
use crate::tree::Node;

pub(crate) const PULL: Node =
    Node::verb::<pull::Pull>("pull", "NAME[:TAG|@DIGEST]", "Download an image from a registry");
pub(crate) const PUSH: Node = Node::verb::<push::Push>("push", "NAME[:TAG]", "Upload an image to a registry");
pub(crate) const TAG: Node =
    Node::verb::<tag::Tag>("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name");
pub(crate) const LOAD: Node =
    Node::verb::<load::Load>("load", "", "Load images from an archive or standard input");
pub(crate) const SAVE: Node = Node::verb::<save::Save>(
    "save",
    "IMAGE [IMAGE...]",
    "Save images to an archive (standard output by default)",
);
pub(crate) const IMPORT: Node = Node::verb::<import::Import>(
    "import",
    "file|- [REPOSITORY[:TAG]]",
    "Make an image of an archive of a file system",
);
pub(crate) const HISTORY: Node =
    Node::verb::<history::History>("history", "IMAGE", "Show how an image was made");

pub(crate) const NODES: &[Node] = &[
    super::build::BUILD,
    PULL,
    PUSH,
    TAG,
    LOAD,
    SAVE,
    IMPORT,
    HISTORY,
    Node::verb::<ls::List>("ls", "[REPOSITORY[:TAG]]", "List images").also(&["list"]),
    Node::verb::<prune::Prune>("prune", "", "Remove images that nobody uses"),
    Node::verb::<rm::Remove>("rm", "IMAGE [IMAGE...]", "Remove images").also(&["remove"]),
    Node::verb::<inspect::Inspect>("inspect", "IMAGE [IMAGE...]", "Print details of images"),
];

/// The repository of a name that has no tag, for what is done with all of its tags.
fn repository(name: &str) -> Result<String, Failure> {
    let reference = Reference::parse_untagged(name).map_err(|e| Failure::usage(e.to_string()))?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(Failure::usage("tag can't be used with --all-tags/-a"));
    }
    Ok(reference.familiar_name())
}
