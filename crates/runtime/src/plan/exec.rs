//! One more process in a running container: the container's own plan with what is asked laid over it. Pure.

use serde::{Deserialize, Serialize};

use super::{Capabilities, Plan, Process, WindowSize};
use crate::user::UserSpec;

/// One more process in a running container, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The process.
    pub process: Process,
    /// That of the container.
    #[serde(default)]
    pub personality: Option<u32>,
}

/// What a user can say about one more process; empty: as the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `-e`, laid over the container's environment.
    pub env: Vec<String>,
    /// `-u`, in Docker's form.
    pub user: Option<String>,
    /// `-w`.
    pub cwd: Option<std::path::PathBuf>,
    /// `-t`.
    pub terminal: bool,
    /// The terminal's first size.
    pub window: Option<WindowSize>,
    /// `--privileged`: every capability, no system call filter, no profile.
    pub privileged: bool,
}

impl ExecPlan {
    /// The request laid over the plan of the container. Pure.
    #[must_use]
    pub fn new(container: &Plan, request: ExecRequest) -> Self {
        let mut process = container.process.clone();
        process.argv = request.argv;
        for variable in request.env {
            let name = variable.split('=').next().unwrap_or_default().to_owned();
            process.env.retain(|known| known.split('=').next() != Some(name.as_str()));
            process.env.push(variable);
        }
        if let Some(user) = request.user {
            process.user = UserSpec::Named { user, groups: Vec::new() };
        }
        if let Some(cwd) = request.cwd {
            process.cwd = cwd;
        }
        process.terminal = request.terminal;
        process.window = request.window;
        if request.privileged {
            process.capabilities = Some(Capabilities::ALL);
            process.seccomp = None;
            process.apparmor = None;
        }
        Self { process, personality: container.personality }
    }
}
