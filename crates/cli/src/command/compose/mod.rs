//! `compose`: a project of services by its Compose files, without a server.
//!
//! `cata-compose` says what the project is and which steps lead to it; here they are done, with the engine's own
//! requests. Labels are Docker's, so that its tools see the same project.

mod beside;
mod config;
mod converge;
mod down;
mod exec;
mod existing;
mod hooks;
mod image;
mod life;
mod logs;
mod ls;
mod project;
mod resources;
mod run;
mod show;
mod up;
mod watch;

use std::path::PathBuf;

use clap::Args;

use crate::session::Session;
use crate::tree::{Fronted, Node};

/// The flags between `compose` and its command.
#[derive(Debug, Default, Args)]
pub(crate) struct ProjectOptions {
    /// Compose file, or several that are laid over each other (- for standard input)
    #[arg(short, long, value_name = "list")]
    file: Vec<String>,
    /// Name of the project
    #[arg(short, long, value_name = "string")]
    project_name: Option<String>,
    /// Directory of the project (that of the first file)
    #[arg(long, value_name = "string")]
    project_directory: Option<PathBuf>,
    /// Take services of this profile too
    #[arg(long, value_name = "list")]
    profile: Vec<String>,
    /// File of variables in place of .env
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
}

impl Fronted for ProjectOptions {
    fn keep(self, session: &Session) {
        session.keep_project(self);
    }
}

pub(crate) const COMPOSE: Node =
    Node::group("compose", "Run projects of several containers by their Compose files", NODES)
        .with::<ProjectOptions>();

const NODES: &[Node] = &[
    Node::verb::<up::Up>("up", "[SERVICE...]", "Create and start the containers of services"),
    Node::verb::<down::Down>("down", "[SERVICE...]", "Stop and remove containers and networks"),
    Node::verb::<show::Ps>("ps", "[SERVICE...]", "List the containers of the project"),
    Node::verb::<logs::Logs>("logs", "[SERVICE...]", "Print what containers wrote"),
    Node::verb::<exec::Exec>(
        "exec",
        "SERVICE COMMAND [ARG...]",
        "Run a command in a running container of a service",
    ),
    Node::verb::<run::Run>(
        "run",
        "SERVICE [COMMAND] [ARG...]",
        "Run a command in a new container of a service",
    ),
    Node::verb::<up::Create>("create", "[SERVICE...]", "Create the containers of services"),
    Node::verb::<life::Start>("start", "[SERVICE...]", "Start containers that are there"),
    Node::verb::<life::Stop>("stop", "[SERVICE...]", "Stop containers"),
    Node::verb::<life::Restart>("restart", "[SERVICE...]", "Restart containers"),
    Node::verb::<life::Kill>("kill", "[SERVICE...]", "Send a signal to containers (SIGKILL)"),
    Node::verb::<life::Pause>("pause", "[SERVICE...]", "Freeze containers"),
    Node::verb::<life::Unpause>("unpause", "[SERVICE...]", "Thaw containers"),
    Node::verb::<life::Remove>("rm", "[SERVICE...]", "Remove containers that do not run"),
    Node::verb::<image::Build>("build", "[SERVICE...]", "Build the images of services"),
    Node::verb::<image::Pull>("pull", "[SERVICE...]", "Pull the images of services"),
    Node::verb::<image::Images>("images", "[SERVICE...]", "List the images of containers"),
    Node::verb::<beside::Push>("push", "[SERVICE...]", "Push the images that are built of services"),
    Node::verb::<beside::Scale>(
        "scale",
        "SERVICE=NUMBER [SERVICE=NUMBER...]",
        "Have so many containers of services",
    ),
    Node::verb::<beside::Attach>("attach", "SERVICE", "Connect to the streams of a running container"),
    Node::verb::<beside::Cp>(
        "cp",
        "SERVICE:SRC_PATH DEST_PATH|- | SRC_PATH|- SERVICE:DEST_PATH",
        "Copy files between a container and the host",
    ),
    Node::verb::<beside::Wait>(
        "wait",
        "SERVICE [SERVICE...]",
        "Wait until containers of services have ended",
    ),
    Node::verb::<beside::Stats>("stats", "[SERVICE...]", "Show what containers use"),
    Node::verb::<beside::Events>("events", "[SERVICE...]", "Show what happens to containers"),
    Node::verb::<watch::Watch>("watch", "[SERVICE...]", "Bring changed files into containers"),
    Node::verb::<show::Top>("top", "[SERVICE...]", "List the processes of containers"),
    Node::verb::<show::Port>("port", "SERVICE PRIVATE_PORT", "Print where a port is published"),
    Node::verb::<config::Config>("config", "[SERVICE...]", "Print the project as it is understood")
        .also(&["convert"]),
    Node::verb::<ls::Ls>("ls", "", "List projects"),
];
