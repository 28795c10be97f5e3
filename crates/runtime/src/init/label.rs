//! AppArmor profiles and SELinux labels, which the kernel gives to the program that is executed next.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::Process;

/// Where labels are written, opened by the host's `/proc`, and what is written.
#[derive(Default)]
pub(super) struct Labels(Vec<(OwnedFd, String)>);

/// Opens what the plan needs; a kernel without it is an error, as a container without its confinement would
/// be.
pub(super) fn open(process: &Process) -> Result<Labels, Failure> {
    let mut labels = Vec::new();
    if let Some(profile) = &process.apparmor {
        if !has_apparmor() {
            return Err(Failure::Unsupported(format!(
                "AppArmor profile `{profile}` cannot be applied: this kernel runs without AppArmor"
            )));
        }
        let file = match attribute("/proc/thread-self/attr/apparmor/exec") {
            Err(Errno::NOENT) => attribute("/proc/thread-self/attr/exec"),
            result => result,
        };
        labels.push((file.map_err(Failure::at(Stage::Label, profile))?, format!("exec {profile}")));
    }
    if let Some(label) = &process.selinux {
        if !has_selinux() {
            return Err(Failure::Unsupported(format!(
                "SELinux label `{label}` cannot be applied: this kernel runs without SELinux"
            )));
        }
        let file = attribute("/proc/thread-self/attr/exec").map_err(Failure::at(Stage::Label, label))?;
        labels.push((file, label.clone()));
    }
    Ok(Labels(labels))
}

impl Labels {
    /// From the next program on.
    pub(super) fn set(self) -> Result<(), Failure> {
        for (file, text) in self.0 {
            rustix::io::write(&file, text.as_bytes()).map_err(Failure::at(Stage::Label, &text))?;
        }
        Ok(())
    }
}

/// Whether this kernel runs with AppArmor.
#[must_use]
pub fn has_apparmor() -> bool {
    enabled("/sys/module/apparmor/parameters/enabled", b"Y")
}

/// Whether this kernel runs with SELinux.
#[must_use]
pub fn has_selinux() -> bool {
    rustix::fs::stat("/sys/fs/selinux/enforce").is_ok()
}

fn attribute(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn enabled(path: &str, word: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|text| text.starts_with(word))
}
