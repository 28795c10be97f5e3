//! Namespaces by their files: opened, entered, given maps of ids. What only the caller of `spawn` and `exec` can do there.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use crate::error::{SpawnError, Stage, at};
use crate::plan::{IdMapping, NamespaceKind};

/// A namespace, by the name of its file.
pub(crate) fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// As `setns` is told of it.
pub(crate) fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::User => LinkNameSpaceType::User,
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::Network => LinkNameSpaceType::Network,
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::Time => LinkNameSpaceType::Time,
    }
}

/// Whether this process can leave its pid namespace for its children and come back: it tries to come back first.
pub(crate) fn may_return(own: BorrowedFd<'_>) -> bool {
    rustix::thread::move_into_link_name_space(own, Some(LinkNameSpaceType::ProcessID)).is_ok()
}

/// Writes both maps of a new user namespace.
pub(crate) fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), SpawnError> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        if mappings.is_empty() {
            continue;
        }
        let path = format!("/proc/{pid}/{file}");
        let text = map_text(mappings);
        let written = match write_file(&path, &text) {
            // Without rights of its own a process maps its group only where nobody can drop groups.
            Err(Errno::PERM) if file == "gid_map" => {
                let denied = write_file(&format!("/proc/{pid}/setgroups"), "deny");
                denied.and_then(|()| write_file(&path, &text))
            }
            result => result,
        };
        written.map_err(at(Stage::IdMapping, &path))?;
    }
    Ok(())
}

/// As `/proc/<pid>/uid_map` takes them.
fn map_text(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

/// One write: the kernel takes these files whole.
pub(crate) fn write_file(path: &str, text: &str) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}
