//! Taking away what a container held. Every step is idempotent, a missing target is success, and a step
//! that fails does not keep the others from being done.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, open, openat2, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink, send, socket_with};

use crate::launch::Undo;

/// A step that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A file system step.
    #[error("cannot {verb} {path}", path = .path.display())]
    File {
        /// Which step.
        verb: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A netlink step.
    #[error("cannot send to netlink protocol {protocol}")]
    Netlink {
        /// Which.
        protocol: i32,
        /// Why.
        source: io::Error,
    },
}

/// Performs all steps in order; returns what could not be done.
#[must_use]
pub fn perform(steps: &[Undo]) -> Vec<UndoError> {
    steps.iter().filter_map(|step| one(step).err()).collect()
}

fn one(step: &Undo) -> Result<(), UndoError> {
    let file = |verb, path: &Path, result: Result<(), Errno>| match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(UndoError::File { verb, path: path.to_owned(), source: error.into() }),
    };
    match step {
        Undo::Unlink(path) => file("unlink", path, unlinkat(CWD, path, AtFlags::empty())),
        Undo::RemoveTree(path) => file("remove", path, remove_tree(path)),
        Undo::Rename(from, to) => {
            file("rename", from, renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE))
        }
        Undo::Netlink { protocol, batch } => send_netlink(*protocol, batch)
            .map_err(|error| UndoError::Netlink { protocol: *protocol, source: error.into() }),
    }
}

/// Sends prepared messages. The kernel performs them within the call; its replies are not read, because
/// "there is no such thing" is what a second undo expects to hear.
fn send_netlink(protocol: i32, batch: &[u8]) -> Result<(), Errno> {
    let protocol = match protocol {
        // NETLINK_ROUTE is the family's protocol 0.
        0 => None,
        12 => Some(netlink::NETFILTER),
        _ => return Err(Errno::PROTONOSUPPORT),
    };
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    send(&socket, batch, SendFlags::empty()).map(|_| ())
}

/// How deep directories are held open before what is below is moved up.
const DEEPEST: u32 = 48;

/// Removes a whole tree. Links are removed, not followed; a mount below is an error, and untouched. Works at
/// any depth: what is too deep is moved up next to the top and removed from there.
///
/// # Errors
/// The first thing that could not be removed; the rest is removed all the same.
pub fn remove_tree(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(CWD, path, AtFlags::empty()),
        Err(error) => return Err(error),
    };
    let mut tree = Tree { top: top.as_fd(), moved: 0, error: None };
    loop {
        let moved = tree.moved;
        tree.empty(top.as_fd(), 0);
        if tree.moved == moved {
            break;
        }
    }
    match (tree.error, unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        (Some(error), Err(_)) => Err(error),
        (None, Err(error)) => Err(error),
        (_, Ok(())) => Ok(()),
    }
}

struct Tree<'a> {
    top: BorrowedFd<'a>,
    moved: u32,
    error: Option<Errno>,
}

impl Tree<'_> {
    fn note(&mut self, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) {
        let entries = match Dir::read_from(dir) {
            Ok(entries) => entries,
            Err(error) => return self.note(Err(error)),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.note(Err(error)),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == FileType::Directory || entry.file_type() == FileType::Unknown {
                self.directory(dir, name, depth);
            } else {
                self.note(unlinkat(dir, name, AtFlags::empty()));
            }
        }
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: u32) {
        if unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
            return;
        }
        if depth >= DEEPEST {
            self.moved += 1;
            let up = format!(".removed-{}", self.moved);
            let result = renameat(parent, name, self.top, up.as_str());
            if result.is_err() {
                // Without this the caller would look for moved trees for ever.
                self.moved -= 1;
            }
            return self.note(result);
        }
        match beneath(parent, name) {
            Ok(dir) => {
                self.empty(dir.as_fd(), depth + 1);
                self.note(match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    // What was moved up from below comes later.
                    Err(Errno::NOTEMPTY) if self.error.is_some() => Ok(()),
                    result => result,
                });
            }
            Err(Errno::NOTDIR | Errno::LOOP) => self.note(unlinkat(parent, name, AtFlags::empty())),
            Err(error) => self.note(Err(error)),
        }
    }
}

/// Opens a directory without following a link or entering a mount.
fn beneath(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn tree_goes_links_stay_unfollowed_and_twice_is_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("keep"), "x").expect("write");
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).expect("mkdir");
        fs::write(tree.join("a/b/file"), "x").expect("write");
        symlink(&outside, tree.join("a/link")).expect("symlink");
        let steps = [Undo::RemoveTree(tree.clone()), Undo::Unlink(dir.path().join("none"))];
        for _ in 0..2 {
            assert!(perform(&steps).is_empty());
            assert!(!tree.exists());
        }
        assert!(outside.join("keep").exists());
        // A link as the top is removed itself.
        symlink(&outside, &tree).expect("symlink");
        assert!(perform(&steps).is_empty());
        assert!(!tree.is_symlink() && outside.join("keep").exists());
    }

    #[test]
    fn tree_of_any_depth_goes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("mkdir");
        let mut at = open(&tree, OFlags::PATH, Mode::empty()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).expect("mkdir");
            at = rustix::fs::openat(&at, "deeper", OFlags::PATH, Mode::empty()).expect("open");
        }
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
    }

    #[test]
    fn rename_replaces_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "a").expect("write");
        fs::write(&b, "b").expect("write");
        assert_eq!(perform(&[Undo::Rename(a.clone(), b.clone())]).len(), 1);
        assert_eq!(fs::read_to_string(&b).expect("read"), "b");
        fs::remove_file(&b).expect("remove");
        let steps = [Undo::Rename(a, b)];
        assert!(perform(&steps).is_empty() && perform(&steps).is_empty());
    }
}
