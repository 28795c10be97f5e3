//! `post_start` and `pre_stop`: commands of the project's in containers that run.

use std::os::fd::AsFd as _;

use cata_compose::hook::Hook;
use cata_engine::Engine;
use cata_engine::container::exec::ExecOptions;

use crate::render::error::Failure;

/// Runs them one after the other; what they write goes to standard error, beside what is said of the container.
///
/// # Errors
/// One that cannot be started, or that does not end well: those behind it are not run.
pub(super) fn run(engine: &Engine, id: &str, name: &str, hooks: &[Hook]) -> Result<(), Failure> {
    for hook in hooks {
        let options = ExecOptions {
            argv: hook.command.clone(),
            env: hook.env.clone(),
            user: hook.user.clone(),
            workdir: hook.workdir.clone(),
            privileged: hook.privileged,
            ..ExecOptions::default()
        };
        let said = std::io::stderr();
        let streams = [None, Some(said.as_fd()), Some(said.as_fd())];
        let code = engine.exec(id, options, streams)?.finish()?;
        if code != 0 {
            let what = hook.command.join(" ");
            return Err(Failure::client(format!(
                "container {name}: its hook `{what}` exited with code {code}"
            )));
        }
    }
    Ok(())
}
