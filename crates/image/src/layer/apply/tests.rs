//! Layers made by hand, honest and hostile, against what must be on disk afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A tar stream in the making.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    #[allow(clippy::too_many_arguments, reason = "a header has that many fields")]
    fn header(
        mut self,
        name: &[u8],
        kind: u8,
        mode: u32,
        link: &[u8],
        size: u64,
        change: impl Fn(&mut [u8]),
    ) -> Self {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"14000000000\0");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut block);
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    fn data(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.header(name.as_bytes(), b'0', 0o644, b"", content.len() as u64, |_| {}).data(content)
    }

    fn dir(self, name: &str) -> Self {
        self.header(name.as_bytes(), b'5', 0o755, b"", 0, |_| {})
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'2', 0o777, target.as_bytes(), 0, |_| {})
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'1', 0o644, target.as_bytes(), 0, |_| {})
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length.to_string().len() + body.len() != length {
                length = length.to_string().len() + body.len();
            }
            content.extend_from_slice(length.to_string().as_bytes());
            content.extend_from_slice(&body);
        }
        self.header(b"PaxHeader", b'x', 0o644, b"", content.len() as u64, |_| {}).data(&content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A directory with a witness outside of the place where the layer goes.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/witness"), b"untouched").unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("layer").join(path)
    }

    fn apply(&self, tar: &[u8]) -> Result<Applied, LayerError> {
        apply(tar, &self.dir.path().join("layer"))
    }

    fn assert_outside_is_untouched(&self) {
        let outside: Vec<_> = std::fs::read_dir(self.dir.path().join("outside")).unwrap().flatten().collect();
        assert_eq!(outside.len(), 1);
        let witness = outside[0].path();
        assert_eq!(std::fs::read(&witness).unwrap(), b"untouched");
        assert_eq!(witness.metadata().unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

/// Owners, devices and overlay's attributes need root; without it the test is counted as skipped.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: {}: needs root", std::thread::current().name().unwrap_or("a layer test"));
    }
    root
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn every_kind_of_entry_is_made() {
    if !is_root() {
        return;
    }
    let ground = Ground::new();
    let device = |block: &mut [u8]| {
        block[329..337].copy_from_slice(b"0000001\0");
        block[337..345].copy_from_slice(b"0000003\0");
    };
    let owner = |block: &mut [u8]| {
        block[108..116].copy_from_slice(b"0001750\0");
        block[116..124].copy_from_slice(b"0000012\0");
    };
    let tar = Tar::default()
        .dir("./")
        .dir("etc/")
        .file("etc/passwd", b"root")
        .header(b"bin/su", b'0', 0o4755, b"", 2, owner)
        .data(b"su")
        .symlink("etc/link", "/somewhere/else")
        .hardlink("etc/hard", "etc/passwd")
        .header(b"dev/null", b'3', 0o666, b"", 0, device)
        .header(b"run/fifo", b'6', 0o600, b"", 0, |_| {})
        .end();
    let applied = ground.apply(&tar).unwrap();
    assert_eq!(applied, Applied { size: 6, entries: 8 });
    assert_eq!(std::fs::read(ground.at("etc/passwd")).unwrap(), b"root");
    let su = ground.at("bin/su").metadata().unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 1000, 10));
    assert_eq!(su.mtime(), 0o14_000_000_000);
    assert_eq!(ground.at("etc").metadata().unwrap().mtime(), 0o14_000_000_000);
    assert_eq!(std::fs::read_link(ground.at("etc/link")).unwrap(), PathBuf::from("/somewhere/else"));
    assert_eq!(ground.at("etc/hard").metadata().unwrap().nlink(), 2);
    let null = ground.at("dev/null").symlink_metadata().unwrap();
    assert_eq!((null.rdev(), null.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(ground.at("run/fifo").symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(ground.at("run").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn whiteouts_take_overlays_form() {
    if !is_root() {
        return;
    }
    let ground = Ground::new();
    let tar = Tar::default()
        .file("a/.wh.gone", b"")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"n")
        // In the layer itself: the file hides by being there, the directory by being opaque.
        .file("c/kept", b"k")
        .file("c/.wh.kept", b"")
        .dir("c/dir/")
        .file("c/.wh.dir", b"")
        // Gone and made anew as a directory: what was below must stay hidden.
        .file("c/.wh.again", b"")
        .file("c/again/inner", b"i")
        .file(".wh..wh.plnk/1.2", b"x")
        .end();
    ground.apply(&tar).unwrap();
    assert!(is_whiteout(&ground.at("a/gone")));
    assert_eq!(xattr(&ground.at("b"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(std::fs::read(ground.at("b/new")).unwrap(), b"n");
    assert_eq!(std::fs::read(ground.at("c/kept")).unwrap(), b"k");
    assert!(xattr(&ground.at("c/dir"), "trusted.overlay.opaque").is_some());
    assert!(xattr(&ground.at("c/again"), "trusted.overlay.opaque").is_some());
    assert_eq!(std::fs::read(ground.at("c/again/inner")).unwrap(), b"i");
    assert!(!ground.at(".wh..wh.plnk").exists());
}

#[test]
fn the_later_of_two_entries_wins() {
    let ground = Ground::new();
    let tar = Tar::default()
        .file("x", b"first")
        .file("x", b"second")
        .file("d/inner", b"i")
        .file("d", b"now a file")
        .symlink("l", "x")
        .file("l", b"no link")
        .dir("again/")
        .dir("again/")
        .file("again/f", b"f")
        .end();
    ground.apply(&tar).unwrap();
    assert_eq!(std::fs::read(ground.at("x")).unwrap(), b"second");
    assert_eq!(std::fs::read(ground.at("d")).unwrap(), b"now a file");
    assert!(ground.at("l").symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read(ground.at("again/f")).unwrap(), b"f");
}

#[test]
fn nothing_climbs_out() {
    let up = Tar::default().file("../outside/evil", b"x").end();
    let deep = Tar::default().dir("a/").file("a/../../outside/evil", b"x").end();
    let linked = Tar::default().symlink("a", "../outside").file("a/evil", b"x").end();
    let replaced = Tar::default().symlink("a", "../outside/witness").file("a", b"x").end();
    let absolute_link = Tar::default().symlink("a", "/tmp").file("a/catamaran-evil", b"x").end();
    let hard = Tar::default().hardlink("a", "../outside/witness").end();
    let hard_by_link = Tar::default().symlink("s", "../outside").hardlink("a", "s/witness").end();
    let dir_by_link = Tar::default().symlink("a", "../outside").dir("a/evil").end();
    let white_by_link = Tar::default().symlink("a", "../outside").file("a/.wh.witness", b"").end();
    let opaque_by_link = Tar::default().symlink("a", "../outside").file("a/.wh..wh..opq", b"").end();
    for (what, tar, escapes) in [
        ("up", up, true),
        ("deep", deep, true),
        ("through a link", linked, true),
        ("onto a link", replaced, false),
        ("through an absolute link", absolute_link, true),
        ("hard link", hard, true),
        ("hard link through a link", hard_by_link, true),
        ("directory through a link", dir_by_link, true),
        ("whiteout through a link", white_by_link, true),
        ("opaque through a link", opaque_by_link, true),
    ] {
        let ground = Ground::new();
        match ground.apply(&tar) {
            Err(LayerError::Escapes(entry)) => assert!(escapes && !entry.is_empty(), "{what}"),
            other => assert!(!escapes && other.is_ok(), "{what}: {other:?}"),
        }
        ground.assert_outside_is_untouched();
    }
    assert!(!Path::new("/tmp/catamaran-evil").exists());
}

#[test]
fn an_absolute_name_means_the_layers_root() {
    let ground = Ground::new();
    ground.apply(&Tar::default().file("/etc/catamaran-absolute", b"x").end()).unwrap();
    assert_eq!(std::fs::read(ground.at("etc/catamaran-absolute")).unwrap(), b"x");
    assert!(!Path::new("/etc/catamaran-absolute").exists());
}

#[test]
fn a_link_within_the_layer_is_followed() {
    let ground = Ground::new();
    let tar = Tar::default().dir("usr/lib/").symlink("lib", "usr/lib").file("lib/x", b"x").end();
    ground.apply(&tar).unwrap();
    assert_eq!(std::fs::read(ground.at("usr/lib/x")).unwrap(), b"x");
}

#[test]
fn what_makes_no_sense_is_an_error_that_names_the_entry() {
    let nul_device = Tar::default().header(b"dev/x", b'3', 0o666, b"", 0, |_| {}).end();
    let unknown = Tar::default().header(b"odd", b'V', 0, b"", 0, |_| {}).end();
    let lost = Tar::default().hardlink("dangling", "nowhere").end();
    let own = Tar::default().hardlink("self", "self").end();
    let beneath_file = Tar::default().file("f", b"").file("f/below", b"").end();
    let root_file = Tar::default().file("./", b"").header(b".", b'0', 0, b"", 0, |_| {}).end();
    let whiteout = Tar::default().file(".wh..", b"").end();
    for (name, tar) in [
        ("dev/x", nul_device),
        ("odd", unknown),
        ("dangling", lost),
        ("self", own),
        ("f/below", beneath_file),
        (".", root_file),
        (".wh..", whiteout),
    ] {
        let error = Ground::new().apply(&tar).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{name}: {error}");
    }
}

#[test]
fn a_stream_that_ends_early_is_truncated() {
    let whole = Tar::default().file("a", &[7; 3000]).file("b", b"x").end();
    for length in [1, 511, 513, 1024, 3500, 3584 + 100] {
        let error = Ground::new().apply(&whole[..length]).unwrap_err();
        assert!(matches!(error, LayerError::Truncated), "{length}: {error}");
    }
    // Without the end's zero blocks, but between entries: tolerated, as by everybody.
    assert!(Ground::new().apply(&whole[..whole.len() - 1024]).is_ok());
}

#[test]
fn impossible_sizes_are_refused_before_anything_is_reserved() {
    let huge = |block: &mut [u8]| {
        block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    };
    let tar = Tar::default().header(b"huge", b'0', 0o644, b"", 0, huge).end();
    assert!(Ground::new().apply(&tar).is_err());
    let pax = Tar::default().header(b"PaxHeader", b'x', 0, b"", 1 << 32, |_| {}).end();
    assert!(Ground::new().apply(&pax).is_err());
    let long = Tar::default().pax(&[("path", "a/".repeat(3000).as_bytes())]).file("short", b"").end();
    assert!(Ground::new().apply(&long).unwrap_err().to_string().contains("too long"));
}

#[test]
fn pax_and_gnu_extensions_are_read() {
    let ground = Ground::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let gnu = format!("{}/g\0", "e".repeat(140));
    let tar = Tar::default()
        .pax(&[("path", long.as_bytes()), ("mtime", b"1700000000.25"), ("SCHILY.xattr.user.note", b"hello")])
        .file("short", b"pax")
        .header(b"././@LongLink", b'L', 0, b"", gnu.len() as u64, |_| {})
        .data(gnu.as_bytes())
        .file("short", b"gnu")
        .end();
    ground.apply(&tar).unwrap();
    let file = ground.at(&long);
    assert_eq!(std::fs::read(&file).unwrap(), b"pax");
    let at = file.metadata().unwrap();
    assert_eq!((at.mtime(), at.mtime_nsec()), (1_700_000_000, 250_000_000));
    if let Some(value) = xattr(&file, "user.note") {
        assert_eq!(value, b"hello");
    }
    assert_eq!(std::fs::read(ground.at(gnu.trim_end_matches('\0'))).unwrap(), b"gnu");
}

#[test]
fn capabilities_are_kept_and_overlays_attributes_are_not_taken() {
    if !is_root() {
        return;
    }
    let ground = Ground::new();
    // VFS_CAP_REVISION_2 with cap_net_raw permitted.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owner = |block: &mut [u8]| block[108..116].copy_from_slice(b"0001750\0");
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/x"),
        ])
        .header(b"ping", b'0', 0o755, b"", 1, owner)
        .data(b"p")
        .end();
    ground.apply(&tar).unwrap();
    assert_eq!(xattr(&ground.at("ping"), "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&ground.at("ping"), "trusted.overlay.redirect"), None);
}

#[test]
fn sparse_files_have_their_holes() {
    let ground = Ground::new();
    let old = |block: &mut [u8]| {
        for (at, text) in [
            (386, "00000010000\0"),
            (398, "00000000005\0"),
            (410, "00000020000\0"),
            (422, "00000000000\0"),
            (483, "00000020000\0"),
        ] {
            block[at..at + 12].copy_from_slice(text.as_bytes());
        }
    };
    let map = format!("{:\0<512}", "1\n4096\n5\n");
    let content = [map.as_bytes(), b"world"].concat();
    let tar = Tar::default()
        .header(b"old", b'S', 0o644, b"", 5, old)
        .data(b"hello")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"8192"),
        ])
        .file("GNUSparseFile.0/new", &content)
        .file("after", b"a")
        .end();
    let applied = ground.apply(&tar).unwrap();
    for (name, text) in [("old", b"hello"), ("new", b"world")] {
        let made = std::fs::read(ground.at(name)).unwrap();
        assert_eq!(made.len(), 8192, "{name}");
        assert_eq!(&made[4096..4101], text, "{name}");
        assert!(made[..4096].iter().chain(&made[4101..]).all(|b| *b == 0), "{name}");
    }
    assert_eq!(std::fs::read(ground.at("after")).unwrap(), b"a");
    assert_eq!(applied.size, 2 * 8192 + 1);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for (map, size) in
        [("1\n0\n9\n", "4"), ("2\n4\n1\n0\n1\n", "8"), ("1\n0\n3\n", "8"), ("999999999\n", "8"), ("x\n", "8")]
    {
        let content = format!("{map:\0<512}xx");
        let tar = Tar::default()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", size.as_bytes()),
            ])
            .file("s", content.as_bytes())
            .end();
        assert!(Ground::new().apply(&tar).is_err(), "{map:?}");
    }
}

/// What the model knows of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Directory,
    Link(String),
}

#[derive(Debug, Clone)]
enum Step {
    File(Vec<u8>, Vec<u8>),
    Directory(Vec<u8>),
    Link(Vec<u8>, String),
}

/// A layer as a map: what stands in the way goes, with everything beneath it. `None`: an error.
fn model(steps: &[Step]) -> Option<BTreeMap<Vec<u8>, Node>> {
    let mut tree: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    for step in steps {
        let (path, node) = match step {
            Step::File(path, content) => (path, Node::File(content.clone())),
            Step::Directory(path) => (path, Node::Directory),
            Step::Link(path, target) => (path, Node::Link(target.clone())),
        };
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            match tree.entry(path[..at].to_vec()).or_insert(Node::Directory) {
                Node::Directory => {}
                _ => return None,
            }
        }
        if !(node == Node::Directory && tree.get(path) == Some(&Node::Directory)) {
            let beneath = [path, &b"/"[..]].concat();
            tree.retain(|known, _| !known.starts_with(&beneath));
        }
        tree.insert(path.clone(), node);
    }
    Some(tree)
}

fn on_disk(dir: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut tree = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(place) = waiting.pop() {
        for entry in std::fs::read_dir(&place).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let node = if kind.is_dir() {
                waiting.push(path.clone());
                Node::Directory
            } else if kind.is_symlink() {
                Node::Link(std::fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
            } else {
                Node::File(std::fs::read(&path).unwrap())
            };
            tree.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().as_bytes().to_vec(), node);
        }
    }
    tree
}

fn step() -> impl Strategy<Value = Step> {
    let path = proptest::string::string_regex("[abc](/[abc]){0,2}").unwrap().prop_map(String::into_bytes);
    let content = proptest::collection::vec(any::<u8>(), 0..1200);
    (path, content, 0..4u8).prop_map(|(path, content, kind)| match kind {
        0 => Step::Directory(path),
        // Nowhere: so that no later entry can be meant to go through it.
        1 => Step::Link(path, "nowhere/at/all".to_owned()),
        _ => Step::File(path, content),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_is_what_the_model_says(steps in proptest::collection::vec(step(), 0..14)) {
        let root = rustix::process::geteuid().is_root();
        prop_assume!(root);
        let mut tar = Tar::default();
        for step in &steps {
            let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
            tar = match step {
                Step::File(path, content) => tar.file(&text(path), content),
                Step::Directory(path) => tar.dir(&text(path)),
                Step::Link(path, target) => tar.symlink(&text(path), target),
            };
        }
        let ground = Ground::new();
        let applied = ground.apply(&tar.end());
        match model(&steps) {
            Some(tree) => {
                prop_assert!(applied.is_ok(), "{applied:?}");
                prop_assert_eq!(on_disk(&ground.at("")), tree);
            }
            // A link that leads nowhere in the way: the model says error; so must the layer.
            None => prop_assert!(applied.is_err()),
        }
        ground.assert_outside_is_untouched();
    }

    #[test]
    fn damaged_streams_do_no_harm(
        at in 0usize..4000,
        with in any::<u8>(),
        cut in 0usize..4000,
    ) {
        let mut tar = Tar::default()
            .dir("a/")
            .pax(&[("path", b"a/b"), ("SCHILY.xattr.user.x", b"y")])
            .file("f", &[1; 700])
            .symlink("s", "a")
            .hardlink("h", "a/b")
            .end();
        let length = tar.len();
        tar[at % length] = with;
        tar.truncate(length - cut % length);
        let ground = Ground::new();
        let _ = ground.apply(&tar);
        let _ = apply_to_null(&tar[..]);
        ground.assert_outside_is_untouched();
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = apply_to_null(&bytes[..]);
    }
}
