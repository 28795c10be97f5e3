//! `post_start` and `pre_stop`: commands in a service's containers.

use crate::error::Result;
use crate::fields::{Fields, items, wrong};
use crate::project::Around;
use crate::service::words;

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What is run.
    pub command: Vec<String>,
    /// By whom, if not by the container's user.
    pub user: Option<String>,
    /// Where, if not in the container's directory.
    pub workdir: Option<String>,
    /// With all rights.
    pub privileged: bool,
    /// `NAME=value`.
    pub env: Vec<String>,
}

/// PURE: the hooks of a key.
pub(crate) fn read(fields: &mut Fields<'_>, key: &'static str, around: &Around<'_>) -> Result<Vec<Hook>> {
    let name = fields.name(key);
    let mut hooks = Vec::new();
    for item in fields.take(key).map(items).unwrap_or_default() {
        let mut hook = Fields::of(item, name.clone())?;
        let command = words(&mut hook, "command")?.filter(|words| !words.is_empty());
        let command = command.ok_or_else(|| wrong(item, &name, "a mapping with a command"))?;
        let (user, workdir) = (hook.text("user")?, hook.text("working_dir")?);
        let privileged = hook.flag("privileged")?;
        let pairs = hook.pairs("environment")?.into_iter();
        let known = pairs.filter_map(|(name, value)| {
            let value = value.or_else(|| (around.variable)(&name))?;
            Some(format!("{name}={value}"))
        });
        let env = known.collect();
        hook.finish(&[])?;
        hooks.push(Hook { command, user, workdir, privileged, env });
    }
    Ok(hooks)
}
