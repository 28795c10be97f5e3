//! Nodes and links in a container's `/dev`.

use std::path::PathBuf;

use cata_spec::runtime::{LinuxDevice, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::error::PlanError;

/// A node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where, absolute, inside.
    pub path: PathBuf,
    /// What it is.
    pub kind: DeviceKind,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

/// The nodes that the runtime specification promises to every container.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that go with them.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

pub(super) fn links() -> Vec<(PathBuf, PathBuf)> {
    LINKS.iter().map(|(path, target)| (PathBuf::from(path), PathBuf::from(target))).collect()
}

/// The default nodes, unless the specification asks for another node of that name, then the others.
pub(super) fn devices(spec: Option<&Vec<LinuxDevice>>) -> Result<Vec<Device>, PlanError> {
    let asked = spec.map(Vec::as_slice).unwrap_or_default();
    let mut planned: Vec<Device> = DEFAULT
        .iter()
        .filter(|(path, ..)| !asked.iter().any(|d| d.path().as_os_str() == *path))
        .map(|&(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: DeviceKind::Char,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in asked {
        planned.push(one(device)?);
    }
    Ok(planned)
}

fn one(device: &LinuxDevice) -> Result<Device, PlanError> {
    if !device.path().is_absolute() {
        return Err(PlanError::NotAbsolute { what: "device", path: device.path().clone() });
    }
    let wrong = || PlanError::Device(device.path().clone());
    let kind = match device.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => return Err(wrong()),
    };
    Ok(Device {
        path: device.path().clone(),
        kind,
        major: u32::try_from(device.major()).map_err(|_| wrong())?,
        minor: u32::try_from(device.minor()).map_err(|_| wrong())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}
