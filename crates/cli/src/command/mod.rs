//! The commands: one file each, with its flags, the call to the engine and what it prints.

pub(crate) mod build;
mod compare;
pub(crate) mod compose;
pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod prune;
pub(crate) mod system;
pub(crate) mod volume;

use crate::render::error::Failure;
use crate::tree::{Exit, Node, Outcome};

/// Every command there is.
pub(crate) const TREE: &[Node] = &[
    container::RUN,
    container::CREATE,
    container::START,
    container::STOP,
    container::RESTART,
    container::KILL,
    container::RM,
    Node::verb::<container::ls::Ps>("ps", "", "List containers"),
    container::LOGS,
    container::EXEC,
    container::ATTACH,
    container::TOP,
    container::STATS,
    container::CP,
    Node::verb::<inspect::Inspect>(
        "inspect",
        "NAME|ID [NAME|ID...]",
        "Print details of containers, images, networks and volumes",
    ),
    container::WAIT,
    container::PORT,
    container::RENAME,
    container::DIFF,
    container::EXPORT,
    container::COMMIT,
    container::UPDATE,
    container::PAUSE,
    container::UNPAUSE,
    Node::verb::<compare::Compare>(
        "compare",
        "IMAGE [COMMAND] [ARG...]",
        "Run an image as a container and as a microVM, and print both side by side",
    ),
    build::BUILD,
    image::PULL,
    image::PUSH,
    Node::verb::<image::ls::List>("images", "[REPOSITORY[:TAG]]", "List images"),
    image::TAG,
    Node::verb::<image::rm::Remove>("rmi", "IMAGE [IMAGE...]", "Remove images"),
    image::LOAD,
    image::SAVE,
    image::IMPORT,
    image::HISTORY,
    system::LOGIN,
    system::LOGOUT,
    Node::verb::<system::version::Version>("version", "", "Print the version"),
    system::INFO,
    system::EVENTS,
    system::SERVE,
    Node::verb::<system::completion::Completion>(
        "completion",
        "bash|zsh|fish",
        "Print a completion script for a shell",
    ),
    build::BUILDER,
    build::BUILDX,
    compose::COMPOSE,
    Node::group("container", "Manage containers", container::NODES),
    Node::group("image", "Manage images", image::NODES),
    Node::group("network", "Manage networks", network::NODES),
    Node::group("volume", "Manage volumes", volume::NODES),
    Node::group("machine", "Manage lasting microVMs with the engine in them", machine::NODES),
    Node::group("kernel", "Manage the kernels of microVMs", kernel::NODES),
    Node::group("system", "Manage the engine", system::NODES),
];

/// Does something to each name; every failure is said, and one is enough for exit code 1.
pub(crate) fn each<'a>(
    names: impl IntoIterator<Item = &'a String>,
    act: impl Fn(&str) -> Result<(), Failure>,
) -> Outcome {
    let mut exit = Exit::OK;
    for name in names {
        if let Err(failure) = act(name) {
            failure.report();
            exit = Exit(1);
        }
    }
    Ok(exit)
}

/// As [`each`], all at once: stopping takes as long as the slowest, not as all together.
pub(crate) fn each_at_once<T: Send>(
    names: &[String],
    act: impl Fn(&str) -> Result<T, Failure> + Sync,
    print: impl Fn(&str, T) -> Result<(), Failure>,
) -> Outcome {
    if let [name] = names {
        print(name, act(name)?)?;
        return Ok(Exit::OK);
    }
    let mut exit = Exit::OK;
    std::thread::scope(|scope| {
        let act = &act;
        let handles: Vec<_> = names.iter().map(|name| (name, scope.spawn(move || act(name)))).collect();
        for (name, handle) in handles {
            let result =
                handle.join().unwrap_or_else(|_| Err(Failure::client(format!("{name}: internal error"))));
            if let Err(failure) = result.and_then(|value| print(name, value)) {
                failure.report();
                exit = Exit(1);
            }
        }
    });
    Ok(exit)
}
