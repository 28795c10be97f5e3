//! What a supervisor says to the hooks of a container that it starts: the state, as the OCI specification has it.

use cata_runtime::Attendant;
use rustix::process::Pid;
use serde_json::json;

use crate::launch::Launch;

/// The version of the specification that the state is of.
const SPECIFICATION: &str = "1.2.0";

/// Beside a process that is being made.
pub(super) struct Company<'a> {
    pub(super) launch: &'a Launch,
}

impl Company<'_> {
    /// Of a container that is not there yet. The bundle is the container's directory, in which the engine left the
    /// document that hooks look for.
    fn state(&self, pid: Pid) -> Vec<u8> {
        let state = json!({
            "ociVersion": SPECIFICATION,
            "id": self.launch.id,
            "status": "creating",
            "pid": pid.as_raw_nonzero().get(),
            "bundle": self.launch.container_dir,
        });
        state.to_string().into_bytes()
    }
}

impl Attendant for Company<'_> {
    fn create_runtime(&mut self, pid: Pid) -> Result<Vec<u8>, String> {
        Ok(self.state(pid))
    }

    fn start_container(&mut self, pid: Pid) -> Result<Vec<u8>, String> {
        Ok(self.state(pid))
    }
}
