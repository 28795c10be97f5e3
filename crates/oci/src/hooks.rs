//! The container's state as others read it, and the hooks that run in the runtime's own namespaces.

use cata_runtime::hook::Hook;
use cata_runtime::plan::hook_list;
use cata_spec::runtime::{Hook as OciHook, Spec};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::store::{Record, Status};

/// The state as the specification has it.
pub(crate) fn state(record: &Record, status: Status, pid: i32) -> Value {
    let mut state = json!({
        "ociVersion": record.oci_version, "id": record.id, "status": status.word(), "bundle": record.bundle,
    });
    // Of a container without a process nothing else may be said.
    if status != Status::Stopped {
        state["pid"] = pid.into();
    }
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

/// As bytes for a standard input.
pub(crate) fn text(record: &Record, status: Status, pid: i32) -> Vec<u8> {
    state(record, status, pid).to_string().into_bytes()
}

/// The runtime's own hooks, in the order of the specification.
#[derive(Debug, Default)]
pub(crate) struct Own {
    prestart: Vec<Hook>,
    create_runtime: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

impl Own {
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let Some(hooks) = spec.hooks() else { return Ok(Self::default()) };
        let list = |list: &Option<Vec<OciHook>>| {
            hook_list(list).map_err(|e| Error::chain("invalid specification", &e))
        };
        #[allow(deprecated, reason = "engines still use it")]
        let prestart = list(hooks.prestart())?;
        Ok(Self {
            prestart,
            create_runtime: list(hooks.create_runtime())?,
            poststart: list(hooks.poststart())?,
            poststop: list(hooks.poststop())?,
        })
    }

    /// Before the root changes. The first that fails ends it. To `prestart`, which is older than the status
    /// `creating`, a container is `created`.
    pub(crate) fn create(&self, created: &[u8], state: &[u8]) -> std::result::Result<(), String> {
        keep_descriptors()?;
        self.prestart.iter().try_for_each(|hook| hook.run("prestart", created))?;
        self.create_runtime.iter().try_for_each(|hook| hook.run("createRuntime", state))
    }

    /// After the program was started. The first that fails ends it.
    pub(crate) fn started(&self, state: &[u8]) -> std::result::Result<(), String> {
        keep_descriptors()?;
        self.poststart.iter().try_for_each(|hook| hook.run("poststart", state))
    }

    /// After the container is gone: all of them, what fails is told.
    pub(crate) fn stopped(&self, state: &[u8]) -> Vec<String> {
        if let Err(error) = keep_descriptors() {
            return vec![error];
        }
        self.poststop.iter().filter_map(|hook| hook.run("poststop", state).err()).collect()
    }
}

/// What is handed on to the container (`--preserve-fds`), whose process has its own by now, is not its hooks'.
fn keep_descriptors() -> std::result::Result<(), String> {
    cata_sys::program::close_on_execute_from(3).map_err(|e| format!("close descriptors: {e}"))
}
