//! Nodes and links in the container's `/dev`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cata_sys::mount::Depth;
use cata_sys::path::Make;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::tree::Tree;
use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::{Device, DeviceKind, NamespaceKind, Plan};

/// All of them.
pub(super) fn all(root: &Tree, plan: &Plan) -> Result<(), Failure> {
    let mapped = plan.namespace(NamespaceKind::User).is_some();
    for device in &plan.devices {
        let subject = device.path.display();
        if is_there(root, device) {
            continue;
        }
        let made = if mapped { Err(Errno::PERM) } else { make(root, device) };
        match made {
            Ok(()) => {}
            // Nodes cannot be made in a user namespace; the host's are bound instead.
            Err(Errno::PERM) if device.kind != DeviceKind::Fifo => {
                bind(root, device).map_err(Failure::at(Stage::Device, &subject))?;
            }
            Err(errno) => return Err(Failure::at(Stage::Device, &subject)(errno)),
        }
    }
    for (path, target) in &plan.links {
        let (root, rest) = root.place(path);
        root.make_link(rest, target).map_err(Failure::at(Stage::Link, path.display()))?;
    }
    Ok(())
}

/// A mount of the host's `/dev` already has it.
fn is_there(root: &Tree, device: &Device) -> bool {
    let (root, rest) = root.place(&device.path);
    let Ok(found) = root.open_without_links(rest, OFlags::PATH) else { return false };
    rustix::fs::fstat(&found).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == file_type(device.kind)
            && (device.kind == DeviceKind::Fifo || stat.st_rdev == number(device))
    })
}

fn make(root: &Tree, device: &Device) -> Result<(), Errno> {
    let (root, rest) = root.place(&device.path);
    let node = root.make_node(rest, file_type(device.kind), device.mode, number(device))?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
        rustix::fs::chownat(&node, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

fn bind(root: &Tree, device: &Device) -> Result<(), Errno> {
    let source = match node(&device.path, device) {
        Ok(source) => source,
        // In the container it may have another name than on the host.
        Err(errno) => node(&own_name(device).ok_or(errno)?, device)?,
    };
    let tree = cata_sys::mount::clone_fd(source.as_fd(), Depth::This)?;
    let target = root.target(&device.path, Make::File, 0o666)?;
    cata_sys::mount::attach(tree.as_fd(), target.as_fd())
}

/// The host's node, if it is that device's.
fn node(path: &Path, device: &Device) -> Result<OwnedFd, Errno> {
    let source = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstat(&source)?.st_rdev == number(device) { Ok(source) } else { Err(Errno::NODEV) }
}

/// As the kernel calls it.
fn own_name(device: &Device) -> Option<PathBuf> {
    let kind = if device.kind == DeviceKind::Block { "block" } else { "char" };
    let event = format!("/sys/dev/{kind}/{}:{}/uevent", device.major, device.minor);
    let text = std::fs::read_to_string(event).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

fn number(device: &Device) -> rustix::fs::Dev {
    rustix::fs::makedev(device.major, device.minor)
}
