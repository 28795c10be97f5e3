//! `cata` for somebody who is not root: before anything else this process enters the user's namespaces, in which it
//! is.

use std::path::PathBuf;
use std::sync::OnceLock;

use cata_engine::{Paths, rootless};
use rustix::process::geteuid;

use crate::session::Globals;

/// Who called, outside.
static CALLER: OnceLock<u32> = OnceLock::new();

/// Why there is no user namespace: told when an engine is opened.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Becomes root of the user's namespaces, unless this is root already. `globals`: where the command says that its
/// engine is.
pub(crate) fn enter(globals: &Globals) {
    if geteuid().is_root() {
        return;
    }
    CALLER.get_or_init(|| geteuid().as_raw());
    let entered = paths(globals).and_then(|Paths { state, .. }| {
        let state = std::path::absolute(&state).map_err(|e| format!("find {}: {e}", state.display()))?;
        let supervisor = cata_engine::companion(cata_engine::SUPERVISOR).map_err(|e| e.to_string())?;
        rootless::enter(&state, &supervisor)
    });
    match entered {
        Ok(warning) => {
            if let Some(text) = warning {
                crate::session::note(format!("WARNING: {text}"));
            }
        }
        Err(text) => {
            REFUSED.get_or_init(|| text);
        }
    }
}

/// Why there is no engine for this user.
pub(crate) fn refusal() -> Option<String> {
    REFUSED.get().cloned()
}

/// Where an engine is: where the command says, or by default; the caller's own directories if he is not root.
pub(crate) fn paths(globals: &Globals) -> Result<Paths, String> {
    let default = Paths::default();
    let [root, state, config] = match CALLER.get() {
        None => [Ok(default.root), Ok(default.state), Ok(default.config)],
        Some(uid) => own(*uid, default.config),
    };
    Ok(Paths {
        root: globals.root.clone().map_or(root, Ok)?,
        state: globals.state.clone().map_or(state, Ok)?,
        config: globals.config.clone().map_or(config, Ok)?,
        supervisor: default.supervisor,
    })
}

/// Root, state and configuration of a user without privileges.
fn own(uid: u32, of_all: PathBuf) -> [Result<PathBuf, String>; 3] {
    let directory = |name: &str| std::env::var_os(name).filter(|d| !d.is_empty()).map(PathBuf::from);
    let home = directory("HOME");
    let data = directory("XDG_DATA_HOME").or_else(|| Some(home.as_ref()?.join(".local/share")));
    let runtime = directory("XDG_RUNTIME_DIR").or_else(|| {
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        usual.is_dir().then_some(usual)
    });
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
    let config = config.map(|dir| dir.join("catamaran/config.toml")).filter(|file| file.exists());
    let lacking = |what: &str, flag: &str| format!("{what} is not set: say where with {flag}");
    let state = "--state, in a directory that a reboot empties";
    [
        data.map(|dir| dir.join("catamaran")).ok_or_else(|| lacking("HOME", "--root")),
        runtime.map(|dir| dir.join("catamaran")).ok_or_else(|| lacking("XDG_RUNTIME_DIR", state)),
        Ok(config.unwrap_or(of_all)),
    ]
}
