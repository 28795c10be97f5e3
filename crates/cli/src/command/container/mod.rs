//! `container` and the commands at the top that are the same.

pub(crate) mod attach;
mod commit;
pub(crate) mod cp;
pub(crate) mod create;
mod diff;
pub(crate) mod exec;
mod export;
mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
mod pause;
mod port;
mod prune;
mod rename;
mod restart;
mod rm;
pub(crate) mod run;
mod start;
pub(crate) mod stats;
mod stop;
pub(crate) mod top;
mod update;
mod wait;

use crate::tree::Node;

pub(crate) const RUN: Node =
    Node::verb::<run::Run>("run", "IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image");
pub(crate) const CREATE: Node =
    Node::verb::<create::Create>("create", "IMAGE [COMMAND] [ARG...]", "Create a new container");
pub(crate) const START: Node =
    Node::verb::<start::Start>("start", "CONTAINER [CONTAINER...]", "Start stopped containers");
pub(crate) const STOP: Node =
    Node::verb::<stop::Stop>("stop", "CONTAINER [CONTAINER...]", "Stop running containers");
pub(crate) const RESTART: Node =
    Node::verb::<restart::Restart>("restart", "CONTAINER [CONTAINER...]", "Restart containers");
pub(crate) const KILL: Node = Node::verb::<kill::Kill>(
    "kill",
    "CONTAINER [CONTAINER...]",
    "Send a signal to running containers (SIGKILL)",
);
pub(crate) const RM: Node = Node::verb::<rm::Remove>("rm", "CONTAINER [CONTAINER...]", "Remove containers");
pub(crate) const LOGS: Node = Node::verb::<logs::Logs>("logs", "CONTAINER", "Print what a container wrote");
pub(crate) const EXEC: Node =
    Node::verb::<exec::Exec>("exec", "CONTAINER COMMAND [ARG...]", "Run a command in a running container");
pub(crate) const ATTACH: Node =
    Node::verb::<attach::Attach>("attach", "CONTAINER", "Connect the terminal to a running container");
pub(crate) const TOP: Node =
    Node::verb::<top::Top>("top", "CONTAINER [ps OPTIONS]", "List the processes of a container");
pub(crate) const STATS: Node =
    Node::verb::<stats::Stats>("stats", "[CONTAINER...]", "Show what containers use, again and again");
pub(crate) const CP: Node = Node::verb::<cp::Cp>(
    "cp",
    "CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files between a container and the host",
);
pub(crate) const WAIT: Node = Node::verb::<wait::Wait>(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Wait until containers stop, and print their exit codes",
);
pub(crate) const PORT: Node = Node::verb::<port::Port>(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List the published ports of a container",
);
pub(crate) const RENAME: Node =
    Node::verb::<rename::Rename>("rename", "CONTAINER NEW_NAME", "Rename a container");
pub(crate) const DIFF: Node =
    Node::verb::<diff::Diff>("diff", "CONTAINER", "List what a container has changed of its image's files");
pub(crate) const EXPORT: Node =
    Node::verb::<export::Export>("export", "CONTAINER", "Write a container's files as a tar archive");
pub(crate) const COMMIT: Node = Node::verb::<commit::Commit>(
    "commit",
    "CONTAINER [REPOSITORY[:TAG]]",
    "Make an image of what a container has changed",
);
pub(crate) const UPDATE: Node = Node::verb::<update::Update>(
    "update",
    "CONTAINER [CONTAINER...]",
    "Change limits and restart policy of containers",
);
pub(crate) const PAUSE: Node =
    Node::verb::<pause::Pause>("pause", "CONTAINER [CONTAINER...]", "Freeze all processes of containers");
pub(crate) const UNPAUSE: Node =
    Node::verb::<pause::Unpause>("unpause", "CONTAINER [CONTAINER...]", "Thaw all processes of containers");

pub(crate) const NODES: &[Node] = &[
    RUN,
    CREATE,
    START,
    STOP,
    RESTART,
    KILL,
    RM.also(&["remove"]),
    Node::verb::<ls::Ps>("ls", "", "List containers").also(&["ps", "list"]),
    LOGS,
    EXEC,
    ATTACH,
    TOP,
    STATS,
    CP,
    Node::verb::<super::inspect::InspectContainer>(
        "inspect",
        "CONTAINER [CONTAINER...]",
        "Print details of containers",
    ),
    WAIT,
    PORT,
    RENAME,
    DIFF,
    EXPORT,
    COMMIT,
    UPDATE,
    Node::verb::<prune::Prune>("prune", "", "Remove containers that do not run"),
    PAUSE,
    UNPAUSE,
];
