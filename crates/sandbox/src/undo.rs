//! Taking away what a container held. Every step is idempotent, a missing target is success, and a step
//! that fails does not keep the others from being done.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, open, openat2, readlinkat,
    renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink, send, socket_with};

use cata_sys::netlink::Socket;

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
        Undo::UnlinkEnding { directory, ending } => {
            let ends = |name: &CStr| !ending.is_empty() && name.to_bytes().ends_with(ending.as_bytes());
            file("unlink from", directory, unlink_those(directory, |_, name| ends(name)))
        }
        Undo::UnlinkPointing { directory, text } => {
            let points = |dir: BorrowedFd<'_>, name: &CStr| {
                readlinkat(dir, name, Vec::new()).is_ok_and(|found| found.as_bytes() == text.as_bytes())
            };
            file("unlink from", directory, unlink_those(directory, points))
        }
        Undo::RemoveTree(path) => file("remove", path, remove_tree(path)),
        // What cannot be looked for is taken to be there: a tree too many does less harm than one too few.
        Undo::RemoveTreeUnless { exists, .. } if exists.try_exists().unwrap_or(true) => Ok(()),
        Undo::RemoveTreeUnless { tree, .. } => file("remove", tree, remove_tree(tree)),
        Undo::Rename(from, to) => {
            file("rename", from, renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE))
        }
        Undo::NetlinkEach { protocol, dump, kind } => netlink_each(*protocol, dump, *kind)
            .map_err(|source| UndoError::Netlink { protocol: *protocol, source }),
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

/// Unlinks the files of a directory that `chosen` picks.
fn unlink_those(directory: &Path, chosen: impl Fn(BorrowedFd<'_>, &CStr) -> bool) -> Result<(), Errno> {
    let dir = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut outcome = Ok(());
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        if chosen(dir.as_fd(), entry.file_name()) {
            match unlinkat(&dir, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => outcome = Err(error),
            }
        }
    }
    outcome
}

/// Sends a dump, and what it answers back as messages of type `kind`.
fn netlink_each(protocol: i32, dump: &[u8], kind: u16) -> io::Result<()> {
    // The kernel goes on with a dump when its answers are received: ours go over another socket.
    let (asking, telling) = (Socket::open(protocol)?, Socket::open(protocol)?);
    asking.send(dump)?;
    let mut buffer = vec![0_u8; 32 * 1024];
    while let Some(datagram) = asking.receive(&mut buffer)? {
        let back = sent_back(datagram, kind);
        if !back.is_empty() {
            telling.send(&back)?;
        }
    }
    Ok(())
}

/// PURE: the messages of a datagram, but for netlink's own, as requests of type `kind`.
fn sent_back(mut datagram: &[u8], kind: u16) -> Vec<u8> {
    const HEADER: usize = 16;
    const FIRST_OF_PROTOCOLS: u16 = 16;
    const REQUEST: u16 = 1;
    let mut back = Vec::new();
    while let Some(&[l0, l1, l2, l3, k0, k1]) = datagram.first_chunk() {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = datagram.get(HEADER..length) else { break };
        if u16::from_ne_bytes([k0, k1]) >= FIRST_OF_PROTOCOLS {
            back.extend_from_slice(&(length as u32).to_ne_bytes());
            back.extend_from_slice(&kind.to_ne_bytes());
            back.extend_from_slice(&REQUEST.to_ne_bytes());
            back.extend_from_slice(&[0; 8]);
            back.extend_from_slice(body);
            back.resize(back.len().next_multiple_of(4), 0);
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    back
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
        fs::create_dir(&tree).expect("mkdir");
        let unless =
            |exists: &str| [Undo::RemoveTreeUnless { tree: tree.clone(), exists: outside.join(exists) }];
        assert!(perform(&unless("keep")).is_empty() && tree.exists());
        assert!(perform(&unless("other")).is_empty() && !tree.exists());
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
    fn unlink_ending_and_pointing_take_what_they_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["web@abc", "alias@abc", "web@abd", "abc"] {
            symlink("10.0.0.2", dir.path().join(name)).expect("symlink");
        }
        symlink("other", dir.path().join("else")).expect("symlink");
        let directory = dir.path().to_owned();
        let step =
            |ending: &str| Undo::UnlinkEnding { directory: directory.clone(), ending: ending.to_owned() };
        assert!(perform(&[step("@abc"), step("")]).is_empty());
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).expect("list").flatten().map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(), ["abc", "else", "web@abd"]);
        let step = Undo::UnlinkPointing { directory: directory.clone(), text: "10.0.0.2".to_owned() };
        assert!(perform(&[step.clone(), step]).is_empty());
        assert_eq!(left(), ["else"]);
        let nowhere = Undo::UnlinkPointing { directory: directory.join("none"), text: "x".to_owned() };
        assert!(perform(&[nowhere]).is_empty());
    }

    #[test]
    fn sent_back_keeps_bodies_and_skips_netlinks_own() {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[2, 0, 1, 0, 0, 0, 9, 9, 9, 9]);
            bytes.extend_from_slice(body);
            bytes
        };
        let datagram = [message(0x100, b"abcd"), message(3, &[0; 4]), message(0x100, b"efgh")].concat();
        let back = sent_back(&datagram, 0x102);
        assert_eq!(back.len(), 40);
        assert_eq!((&back[16..20], &back[36..40]), (&b"abcd"[..], &b"efgh"[..]));
        assert_eq!((back[4], back[5], back[6], back[7]), (2, 1, 1, 0));
        // Cut off, empty and lying datagrams end.
        for end in 0..datagram.len() {
            let _ = sent_back(&datagram[..end], 1);
        }
        assert!(sent_back(&[0; 64], 1).is_empty());
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
