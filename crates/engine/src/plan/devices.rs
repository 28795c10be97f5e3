//! PURE: device nodes and the device cgroup's list: Docker's defaults and what was asked for.

use std::path::PathBuf;

use cata_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::error::Error;
use crate::request::DeviceRule;

/// A host device as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Inside.
    pub path: PathBuf,
    /// Block device (else character device).
    pub block: bool,
    /// Device numbers.
    pub major: u32,
    /// Device numbers.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A subset of `rwm`.
    pub access: String,
}

impl Found {
    fn kind(&self) -> LinuxDeviceType {
        if self.block { LinuxDeviceType::B } else { LinuxDeviceType::C }
    }

    /// The node to make.
    ///
    /// # Errors
    /// Never in practice: the builder has every field.
    pub fn node(&self) -> Result<LinuxDevice, Error> {
        LinuxDeviceBuilder::default()
            .path(self.path.clone())
            .typ(self.kind())
            .major(i64::from(self.major))
            .minor(i64::from(self.minor))
            .file_mode(self.mode)
            .uid(self.uid)
            .gid(self.gid)
            .build()
            .map_err(|e| Error::Invalid(e.to_string()))
    }
}

/// What every container may use: (type, major, minor, access); -1 is any.
///
/// `mknod` of anything is allowed (moby `oci/defaults.go`), opening only of these.
const ALLOWED: [(LinuxDeviceType, i64, i64, &str); 11] = [
    (LinuxDeviceType::C, -1, -1, "m"),
    (LinuxDeviceType::B, -1, -1, "m"),
    (LinuxDeviceType::C, 1, 3, "rwm"),    // null
    (LinuxDeviceType::C, 1, 5, "rwm"),    // zero
    (LinuxDeviceType::C, 1, 7, "rwm"),    // full
    (LinuxDeviceType::C, 1, 8, "rwm"),    // random
    (LinuxDeviceType::C, 1, 9, "rwm"),    // urandom
    (LinuxDeviceType::C, 5, 0, "rwm"),    // tty
    (LinuxDeviceType::C, 5, 1, "rwm"),    // console
    (LinuxDeviceType::C, 5, 2, "rwm"),    // ptmx
    (LinuxDeviceType::C, 136, -1, "rwm"), // pts
];

/// The device cgroup's rules.
///
/// # Errors
/// Never in practice: the builders have every field.
pub fn rules(
    privileged: bool,
    found: &[Found],
    further: &[DeviceRule],
) -> Result<Vec<LinuxDeviceCgroup>, Error> {
    if privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, -1, -1, "rwm")?]);
    }
    let mut rules = vec![rule(false, LinuxDeviceType::A, -1, -1, "rwm")?];
    for (kind, major, minor, access) in ALLOWED {
        rules.push(rule(true, kind, major, minor, access)?);
    }
    for device in found {
        rules.push(rule(
            true,
            device.kind(),
            i64::from(device.major),
            i64::from(device.minor),
            &device.access,
        )?);
    }
    for further in further {
        let kind = match further.kind {
            'b' => LinuxDeviceType::B,
            'c' => LinuxDeviceType::C,
            _ => LinuxDeviceType::A,
        };
        let number = |number: Option<u32>| number.map_or(-1, i64::from);
        rules.push(rule(true, kind, number(further.major), number(further.minor), &further.access)?);
    }
    Ok(rules)
}

/// One rule of the device cgroup; -1 is any number.
///
/// # Errors
/// Never in practice: the builder has every field.
pub(crate) fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    access: &str,
) -> Result<LinuxDeviceCgroup, Error> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if major >= 0 {
        rule = rule.major(major);
    }
    if minor >= 0 {
        rule = rule.minor(minor);
    }
    rule.build().map_err(|e| Error::Invalid(e.to_string()))
}
