//! AppArmor profiles and SELinux labels, which the kernel gives to the program that is executed next.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::Process;

/// Where labels are written, opened by the host's `/proc`, and what is written.
#[derive(Default)]
pub(super) struct Labels {
    next: Vec<(OwnedFd, String)>,
    /// Of a process that executes nothing: the same profile, from this moment on.
    now: Option<(OwnedFd, String)>,
}

/// Opens what the plan needs; a kernel without it is an error, as a container without its confinement would
/// be.
pub(super) fn open(process: &Process, stays: bool) -> Result<Labels, Failure> {
    let mut labels = Labels::default();
    if let Some(profile) = &process.apparmor {
        if !has_apparmor() {
            return Err(Failure::Unsupported(format!(
                "AppArmor profile `{profile}` cannot be applied: this kernel runs without AppArmor"
            )));
        }
        let file = |name: &str| {
            match attribute(&format!("/proc/thread-self/attr/apparmor/{name}")) {
                Err(Errno::NOENT) => attribute(&format!("/proc/thread-self/attr/{name}")),
                result => result,
            }
            .map_err(Failure::at(Stage::Label, profile))
        };
        labels.next.push((file("exec")?, format!("exec {profile}")));
        if stays {
            labels.now = Some((file("current")?, format!("changeprofile {profile}")));
        }
    }
    if let Some(label) = &process.selinux {
        if !has_selinux() {
            return Err(Failure::Unsupported(format!(
                "SELinux label `{label}` cannot be applied: this kernel runs without SELinux"
            )));
        }
        let file = attribute("/proc/thread-self/attr/exec").map_err(Failure::at(Stage::Label, label))?;
        labels.next.push((file, label.clone()));
    }
    Ok(labels)
}

impl Labels {
    /// From the next program on.
    pub(super) fn set(&self) -> Result<(), Failure> {
        self.next.iter().try_for_each(|(file, text)| write(file, text))
    }

    /// Without another program.
    pub(super) fn set_now(&self) -> Result<(), Failure> {
        self.now.iter().try_for_each(|(file, text)| write(file, text))
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

fn write(file: &OwnedFd, text: &str) -> Result<(), Failure> {
    match rustix::io::write(file, text.as_bytes()) {
        Err(Errno::NOENT) => {
            let name = text.split_once(' ').map_or(text, |(_, name)| name);
            Err(Failure::Unsupported(format!(
                "AppArmor profile `{name}` cannot be applied: it is not loaded into this kernel"
            )))
        }
        result => result.map(drop).map_err(Failure::at(Stage::Label, text)),
    }
}

fn attribute(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn enabled(path: &str, word: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|text| text.starts_with(word))
}
