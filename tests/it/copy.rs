//! `cp`: between a container, running or not, and the host.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use cata_tests::archive::Layer;
use cata_tests::command::{PATIENCE, Run};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(files_and_directories_both_ways),
        test!(stopped_container_with_volumes),
        test!(streams),
        test!(links_stay_inside),
        test!(hostile_streams),
        test!(what_is_wrong_is_told),
        test!(owners_and_rights),
    ]
}

fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("file"), "of the tree").unwrap();
    fs::write(dir.join("sub/deep"), vec![7; 300_000]).unwrap();
    symlink("file", dir.join("link")).unwrap();
    fs::hard_link(dir.join("file"), dir.join("hard")).unwrap();
}

fn inside(w: &World, script: &str) -> String {
    w.cata(&["exec", "cc", "sh", "-c", script]).text()
}

fn files_and_directories_both_ways(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "--tmpfs", "/mem", "busybox", "sleep", "600"]).ok();
    let scratch = w.scratch();
    let host = |path: &str| scratch.join(path).to_string_lossy().into_owned();
    tree(&scratch.join("tree"));
    let cp = |from: &str, to: &str| w.cata(&["cp", from, to]).ok();
    // Into it: a file under its name, under another, over another; a directory, and what is in one.
    let done = cp(&host("tree/file"), "cc:/tmp");
    assert!(done.stdout.is_empty() && done.stderr.contains("Successfully copied 11B to cc:/tmp"), "{done}");
    let _ = cp(&host("tree/file"), "cc:/tmp/other");
    let _ = cp(&host("tree/file"), "cc:mem/");
    assert_eq!(inside(w, "cat /tmp/file /tmp/other /mem/file"), "of the tree".repeat(3));
    let _ = cp(&host("tree"), "cc:/tmp");
    let _ = cp(&host("tree"), "cc:/tmp/new");
    let _ = cp(&format!("{}/.", host("tree")), "cc:/mem");
    let script = "cd $0 && cat link && wc -c < sub/deep && [ file -ef hard ] && readlink link";
    for dir in ["/tmp/tree", "/tmp/new", "/mem"] {
        let said = w.cata(&["exec", "cc", "sh", "-c", script, dir]).lines().join(" ");
        assert_eq!(said, "of the tree300000 file", "{dir}");
    }
    // Directories are merged, links are not followed unless asked.
    let _ = inside(w, "echo mine > /tmp/tree/own");
    let _ = cp(&host("tree"), "cc:/tmp");
    assert_eq!(inside(w, "cat /tmp/tree/own"), "mine");
    let _ = cp(&host("tree/link"), "cc:/tmp/alink");
    assert_eq!(inside(w, "readlink /tmp/alink"), "file");
    let _ = w.cata(&["cp", "-q", "-L", &host("tree/link"), "cc:/tmp/afile"]).ok();
    assert_eq!(inside(w, "[ -L /tmp/afile ] || cat /tmp/afile"), "of the tree");
    // And out of it again.
    let _ = cp("cc:/tmp/tree", &host("back"));
    assert_eq!(fs::read(scratch.join("back/sub/deep")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read_link(scratch.join("back/link")).unwrap(), Path::new("file"));
    assert_eq!(fs::metadata(scratch.join("back/hard")).unwrap().nlink(), 2);
    let _ = cp("cc:/tmp/tree", &host("back"));
    assert_eq!(fs::read_to_string(scratch.join("back/tree/own")).unwrap(), "mine\n");
    let _ = cp("cc:/etc/hostname", &host("name"));
    assert_eq!(fs::read_to_string(scratch.join("name")).unwrap().trim(), inside(w, "hostname"));
}

fn stopped_container_with_volumes(w: &World) {
    let scratch = w.scratch();
    fs::create_dir(scratch.join("bound")).unwrap();
    let bind = format!("{}:/bound", scratch.join("bound").display());
    let _ = w
        .cata(&["create", "--name", "cc", "-v", "data:/data", "-v", &bind, "busybox", "cat", "/data/x", "/y"])
        .ok();
    let file = w.file("word", "said\n").to_string_lossy().into_owned();
    for to in ["cc:/data/x", "cc:/y", "cc:/bound/z"] {
        let _ = w.cata(&["cp", &file, to]).ok();
    }
    assert_eq!(fs::read_to_string(scratch.join("bound/z")).unwrap(), "said\n");
    assert_eq!(w.cata(&["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/x"]).text(), "said");
    assert_eq!(w.cata(&["start", "-a", "cc"]).text(), "said\nsaid");
    let out = scratch.join("out");
    let _ = w.cata(&["cp", "cc:/data/.", &out.to_string_lossy()]).ok();
    assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "said\n");
    // It can be started at once, and nothing is left mounted.
    assert_eq!(w.cata(&["start", "-a", "cc"]).text(), "said\nsaid");
    let _ = w.cata(&["create", "--name", "ro", "--read-only", "busybox", "true"]).ok();
    w.cata(&["cp", &file, "ro:/y"]).fails(1, &["Read-only file system"]);
}

fn streams(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sleep", "600"]).ok();
    let scratch = w.scratch();
    tree(&scratch.join("tree"));
    let tar = scratch.join("tree.tar");
    let dir = scratch.to_string_lossy().into_owned();
    let _ = Run::new("tar").args(["-C", &dir, "-czf", &tar.to_string_lossy(), "tree"]).done().ok();
    let _ = w.cata_run(["cp", "-", "cc:/tmp"]).input(fs::read(&tar).unwrap()).done().ok();
    assert_eq!(inside(w, "cat /tmp/tree/link"), "of the tree");
    let listed = Run::new("sh")
        .args([
            "-c",
            &format!("{} cp cc:/tmp/tree - | tar -t | sort", cata_tests::command::cata_binary().display()),
        ])
        .done()
        .text();
    assert_eq!(listed, "tree/\ntree/file\ntree/hard\ntree/link\ntree/sub/\ntree/sub/deep");
    w.cata_run(["cp", "-", "cc:/tmp/tree/file"]).input("").done().fails(1, &["not a directory"]);
    w.cata_run(["cp", "-", "cc:/tmp"]).input("no tar at all".repeat(100)).done().fails(1, &["tar"]);
}

/// Links in a container lead where they lead in it, also when it means harm.
fn links_stay_inside(w: &World) {
    fs::write("/tmp/secret", "of the host").unwrap();
    let script = "ln -s /tmp /abs; ln -s ../../../../tmp /up; ln -s /tmp/secret /file; mkdir -p /tmp; \
                  ln -s /proc/1/root/tmp /magic; ln -s loop /loop; exec sleep 600";
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
    cata_tests::command::eventually("links", PATIENCE, || {
        (w.cata(&["exec", "cc", "test", "-L", "/loop"]).code() == 0).then_some(())
    });
    let file = w.file("word", "said").to_string_lossy().into_owned();
    for running in [true, false] {
        for path in ["abs", "up"] {
            let _ = w.cata(&["cp", &file, &format!("cc:/{path}/{path}-{running}")]).ok();
            assert!(!Path::new(&format!("/tmp/{path}-{running}")).exists(), "{path} leads out");
        }
        let out = w.scratch().join("out").to_string_lossy().into_owned();
        for path in ["abs/secret", "up/secret", "magic/secret"] {
            let _ = w.cata(&["cp", &format!("cc:/{path}"), &out]).exits(1);
        }
        w.cata(&["cp", "-L", "cc:/file", &out]).fails(1, &["/file"]);
        let _ = w.cata(&["cp", "-L", "cc:/loop", &out]).exits(1);
        // The link itself is what is copied.
        let _ = w.cata(&["cp", "cc:/file", &out]).ok();
        assert_eq!(fs::read_link(&out).unwrap(), Path::new("/tmp/secret"));
        fs::remove_file(&out).unwrap();
        if running {
            assert_eq!(inside(w, "cat /tmp/abs-true /tmp/up-true"), "saidsaid");
            let _ = w.cata(&["stop", "-t", "0", "cc"]).ok();
        }
    }
    assert_eq!(fs::read_to_string("/tmp/secret").unwrap(), "of the host");
}

/// A tar that climbs out, and a container whose tar would.
fn hostile_streams(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sleep", "600"]).ok();
    let climbing = Layer::default().file("../../etc/climbed", 0o644, "x").finish();
    w.cata_run(["cp", "-", "cc:/tmp"]).input(climbing).done().fails(1, &["climbed"]);
    assert_eq!(inside(w, "test -e /etc/climbed || echo no"), "no");
    // A link in the stream that leads out, and something behind it.
    let outside = w.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    let link = outside.to_string_lossy().into_owned();
    let _ = inside(w, &format!("mkdir /d; ln -s {link} /d/a; mkdir /e; mkdir /e/a; echo x > /e/a/planted"));
    let target = w.scratch().join("target").to_string_lossy().into_owned();
    let _ = w.cata(&["cp", "cc:/d", &target]).ok();
    // What is there already and leads out is not followed either.
    let _ = w.cata(&["cp", "cc:/e/.", &target]).exits(1);
    assert!(!outside.join("planted").exists());
}

fn what_is_wrong_is_told(w: &World) {
    let _ = w.cata(&["create", "--name", "cc", "busybox", "true"]).ok();
    let scratch = w.scratch();
    tree(&scratch.join("tree"));
    let host = |path: &str| scratch.join(path).to_string_lossy().into_owned();
    w.cata(&["cp", "cc:/nothing", "/tmp"]).fails(1, &["/nothing", "cc"]);
    w.cata(&["cp", "nobody:/etc", "/tmp"]).fails(1, &["No such container", "nobody"]);
    w.cata(&["cp", &host("none"), "cc:/tmp"]).fails(1, &["none"]);
    w.cata(&["cp", &host("tree/file"), "cc:/no/such/dir"]).fails(1, &["/no/such"]);
    w.cata(&["cp", &host("tree/file"), "cc:/no/"]).fails(1, &["no such directory", "/no/"]);
    w.cata(&["cp", &host("tree"), "cc:/bin/busybox"]).fails(1, &["cannot copy directory"]);
    w.cata(&["cp", "cc:/etc", &host("no/such/dir")]).fails(1, &["no/such"]);
    w.cata(&["cp", "cc:/etc", &host("tree/file")]).fails(1, &["cannot copy directory"]);
    w.cata(&["cp", "a", "b"]).fails(1, &["container source"]);
    w.cata(&["cp", "cc:/a", "cc:/b"]).fails(1, &["between containers"]);
    // A directory does not turn into a file, nor a file into one.
    fs::create_dir(scratch.join("swap")).unwrap();
    fs::create_dir(scratch.join("swap/etc")).unwrap();
    fs::write(scratch.join("swap/etc/passwd"), "").unwrap();
    fs::create_dir(scratch.join("into")).unwrap();
    fs::write(scratch.join("into/etc"), "").unwrap();
    w.cata(&["cp", "cc:/etc", &host("into")]).fails(1, &["etc"]);
    fs::write(scratch.join("etc"), "").unwrap();
    w.cata(&["cp", &host("etc"), "cc:/"]).fails(1, &["etc"]);
    let _ = w.cata(&["run", "--rm", "busybox", "test", "-d", "/etc"]).ok();
}

fn owners_and_rights(w: &World) {
    let script = "echo x > /mine; chown 33:44 /mine; chmod 4755 /mine; mknod /node c 1 3; exec sleep 600";
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
    cata_tests::command::eventually("files", PATIENCE, || {
        (w.cata(&["exec", "cc", "test", "-e", "/node"]).code() == 0).then_some(())
    });
    let out = |name: &str| w.scratch().join(name);
    let _ = w.cata(&["cp", "cc:/mine", &out("plain").to_string_lossy()]).ok();
    let meta = fs::metadata(out("plain")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (0, 0, 0o755));
    let _ = w.cata(&["cp", "-a", "cc:/mine", &out("kept").to_string_lossy()]).ok();
    let meta = fs::metadata(out("kept")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (33, 44, 0o4755));
    let done = w.cata(&["cp", "cc:/node", &out("node").to_string_lossy()]).ok();
    assert!(done.stderr.contains("device nodes") && !out("node").exists(), "{done}");
    let _ = w.cata(&["cp", &out("kept").to_string_lossy(), "cc:/a"]).ok();
    let _ = w.cata(&["cp", "-a", &out("kept").to_string_lossy(), "cc:/b"]).ok();
    assert_eq!(inside(w, "stat -c '%u %g' /a /b"), "0 0\n33 44");
}
