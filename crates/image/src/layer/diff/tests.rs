//! Directories made by hand, against what is read back from the layer.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;
use crate::layer::apply::apply;

fn written(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_layer(dir, &mut bytes).unwrap();
    bytes
}

/// Makes a directory with something of every kind; as root, overlay's marks too.
fn everything(dir: &Path) {
    let root = rustix::process::geteuid().is_root();
    fs::create_dir_all(dir.join("b/inner")).unwrap();
    fs::write(dir.join("b/file"), "content").unwrap();
    fs::set_permissions(dir.join("b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(dir.join("b/file"), dir.join("a-hard")).unwrap();
    symlink("../b/file", dir.join("b/soft")).unwrap();
    symlink("t".repeat(150), dir.join("far")).unwrap();
    fs::write(dir.join("n".repeat(150)), "long name").unwrap();
    fs::write(dir.join("\u{1f6a2} ship"), "").unwrap();
    rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let hole = File::create(dir.join("hole")).unwrap();
    hole.set_len(3 << 20).unwrap();
    rustix::io::pwrite(&hole, b"x", 2 << 20).unwrap();
    File::create(dir.join("nothing")).unwrap().set_len(8 << 20).unwrap();
    let _ = rustix::fs::setxattr(dir.join("b/file"), "user.note", b"kept", XattrFlags::empty());
    if root {
        place_marks(dir);
    }
}

fn place_marks(dir: &Path) {
    rustix::fs::mknodat(CWD, dir.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    rustix::fs::setxattr(dir.join("b/inner"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(dir.join("b"), "trusted.overlay.impure", b"y", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(dir.join("b"), Some(3_000_000), Some(7)).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, dir.join("null"), FileType::CharacterDevice, mode, device).unwrap();
}

#[test]
fn a_layer_read_back_is_the_directory() {
    let from = tempfile::tempdir().unwrap();
    everything(from.path());
    let first = written(from.path());
    assert_eq!(first, written(from.path()), "two writings differ");
    assert!(first.len() < 100_000, "holes were written: {} bytes", first.len());
    let to = tempfile::tempdir().unwrap();
    apply(first.as_slice(), to.path()).unwrap();
    assert!(written(to.path()) == first, "what was unpacked is written otherwise");
    let hard = fs::metadata(to.path().join("a-hard")).unwrap();
    assert_eq!(hard.ino(), fs::metadata(to.path().join("b/file")).unwrap().ino());
    assert_eq!(hard.mode() & 0o7777, 0o4751);
    assert_eq!(fs::metadata(to.path().join("hole")).unwrap().len(), 3 << 20);
    assert_eq!(fs::metadata(to.path().join("nothing")).unwrap().len(), 8 << 20);
    assert_eq!(changes(from.path()).unwrap(), changes(to.path()).unwrap());
}

#[test]
fn an_independent_reader_agrees() {
    let from = tempfile::tempdir().unwrap();
    everything(from.path());
    let bytes = written(from.path());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
        .collect();
    assert_eq!(&names[..3], ["a-hard", "b/", "b/file"]);
    if rustix::process::geteuid().is_root() {
        assert!(names.contains(&".wh.gone".to_owned()) && names.contains(&"b/inner/.wh..wh..opq".to_owned()));
    }
}

#[test]
fn an_empty_directory_is_an_empty_layer() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    assert_eq!(write_layer(dir.path(), &mut bytes).unwrap(), Written::default());
    assert_eq!(bytes, vec![0; 1024]);
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.x"), "").unwrap();
    let error = write_layer(dir.path(), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains(".wh.x"), "{error}");
    if rustix::process::geteuid().is_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        rustix::fs::setxattr(dir.path().join("d"), "trusted.overlay.redirect", b"e", XattrFlags::empty())
            .unwrap();
        let error = write_layer(dir.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("redirect"), "{error}");
    }
}

#[test]
fn a_directory_of_sockets_alone_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    assert!(is_empty(dir.path()).unwrap());
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(is_empty(dir.path()).unwrap());
    fs::write(dir.path().join("z"), "").unwrap();
    assert!(!is_empty(dir.path()).unwrap());
}
