//! PURE: what a container gets for its devices, put into its OCI document.

use std::path::Path;

use cata_spec::runtime as oci;
use cata_spec::runtime::{HookBuilder, LinuxDeviceType, MountBuilder};

use super::document::{Edits, Hook, Node};
use crate::error::Error;
use crate::plan::devices::Found;
use crate::request::DeviceName;

/// Puts all edits into `spec`, and says which further groups the process has. `find` looks up a node of the host:
/// (block device, major, minor).
///
/// # Errors
/// [`Error::Unsupported`] for what this engine cannot do for a container; [`Error::Invalid`] for what no container
/// can have; what `find` says.
pub(crate) fn apply(
    spec: &mut oci::Spec,
    edits: &[(DeviceName, Edits)],
    find: &dyn Fn(&Path) -> Result<(bool, u32, u32), Error>,
) -> Result<(), Error> {
    for (name, edits) in edits {
        refuse(name, edits)?;
        environment(spec, &edits.env);
        for node in &edits.device_nodes {
            device(spec, name, node, find)?;
        }
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for mount in &edits.mounts {
            // What the vendor put there takes the place of what would be.
            mounts.retain(|other| other.destination() != &mount.container_path);
            let made = MountBuilder::default()
                .destination(&mount.container_path)
                .source(&mount.host_path)
                .typ(mount.kind.clone().unwrap_or_else(|| "none".to_owned()))
                .options(mount.options.clone());
            mounts.push(made.build().map_err(|error| wrong(name, &error))?);
        }
        spec.set_mounts(Some(mounts));
        hooks(spec, name, &edits.hooks)?;
        if let Some(process) = spec.process_mut() {
            let mut groups = process.user().additional_gids().clone().unwrap_or_default();
            groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
            process.user_mut().set_additional_gids(Some(groups).filter(|groups| !groups.is_empty()));
        }
    }
    Ok(())
}

fn wrong(name: &DeviceName, why: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("the description of device {name}: {why}"))
}

/// Nothing a device needs is left out in silence.
fn refuse(name: &DeviceName, edits: &Edits) -> Result<(), Error> {
    let needs = |what: String| {
        Err(Error::Unsupported {
            what: format!("device {name} needs {what}"),
            hint: "devices can be given with environment, nodes, mounts, groups, and hooks named createContainer and \
                   startContainer"
                .to_owned(),
        })
    };
    if let Some(device) = edits.net_devices.first() {
        return needs(format!("the network device {}", device.host_interface_name));
    }
    if edits.intel_rdt.is_some() {
        return needs("Intel RDT".to_owned());
    }
    let inside = |hook: &&Hook| !matches!(hook.hook_name.as_str(), "createContainer" | "startContainer");
    match edits.hooks.iter().find(inside) {
        Some(hook) => needs(format!("a {} hook ({})", hook.hook_name, hook.path.display())),
        None => Ok(()),
    }
}

/// A variable of the same name gives way.
fn environment(spec: &mut oci::Spec, added: &[String]) {
    let Some(process) = spec.process_mut() else { return };
    let mut env = process.env().clone().unwrap_or_default();
    for variable in added {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
}

fn device(
    spec: &mut oci::Spec,
    name: &DeviceName,
    node: &Node,
    find: &dyn Fn(&Path) -> Result<(bool, u32, u32), Error>,
) -> Result<(), Error> {
    let said = match node.kind.as_deref() {
        None => None,
        Some("b") => Some(true),
        Some("c" | "u") => Some(false),
        Some(other) => return Err(wrong(name, &format!("a node of type {other} is no device"))),
    };
    let (block, major, minor) = match (said, node.major, node.minor) {
        (Some(block), Some(major), Some(minor)) => (block, major, minor),
        _ => {
            let (block, major, minor) = find(node.host_path.as_ref().unwrap_or(&node.path))?;
            if said.is_some_and(|said| said != block) {
                return Err(wrong(name, &format!("{} is another type of device", node.path.display())));
            }
            (block, node.major.unwrap_or(major), node.minor.unwrap_or(minor))
        }
    };
    let access = node.permissions.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    if access.chars().any(|c| !"rwm".contains(c)) {
        return Err(wrong(name, &format!("permissions {access} are not of r, w and m")));
    }
    let found = Found {
        path: node.path.clone(),
        block,
        major,
        minor,
        // As other engines' runtimes have it where nothing is said.
        mode: node.file_mode.unwrap_or(0o666) & 0o777,
        uid: node.uid.unwrap_or(0),
        gid: node.gid.unwrap_or(0),
        access: access.to_owned(),
    };
    let kind = if block { LinuxDeviceType::B } else { LinuxDeviceType::C };
    let rule = crate::plan::devices::rule(true, kind, i64::from(major), i64::from(minor), access)?;
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|other| other.path() != &found.path);
    devices.push(found.node()?);
    linux.set_devices(Some(devices));
    if let Some(resources) = linux.resources_mut() {
        let mut rules = resources.devices().clone().unwrap_or_default();
        rules.push(rule);
        resources.set_devices(Some(rules));
    }
    Ok(())
}

fn hooks(spec: &mut oci::Spec, name: &DeviceName, added: &[Hook]) -> Result<(), Error> {
    if added.is_empty() {
        return Ok(());
    }
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    for hook in added {
        let mut made = HookBuilder::default().path(&hook.path).env(hook.env.clone());
        if !hook.args.is_empty() {
            made = made.args(hook.args.clone());
        }
        if let Some(seconds) = hook.timeout {
            made = made.timeout(seconds);
        }
        let made = made.build().map_err(|error| wrong(name, &error))?;
        if hook.hook_name == "createContainer" {
            let mut list = hooks.create_container().clone().unwrap_or_default();
            list.push(made);
            hooks.set_create_container(Some(list));
        } else {
            let mut list = hooks.start_container().clone().unwrap_or_default();
            list.push(made);
            hooks.set_start_container(Some(list));
        }
    }
    spec.set_hooks(Some(hooks));
    Ok(())
}
