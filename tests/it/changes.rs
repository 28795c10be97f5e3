//! `diff`, `export` and `commit`: what a container has made of its image.

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(differences_of_each_kind),
        test!(export_has_the_files_and_no_mounts),
        test!(committed_image_runs),
    ]
}

const WORK: &str = "echo hi > /root/x; rm /bin/vi; mkdir /new; chmod 700 /tmp; rm -r /home; mkdir /home; \
                    echo v > /data/sub/file; echo done > /ready";

/// A container that has done its work and runs on, and one that ended after it.
fn both(w: &World, image: &str) {
    let script = format!("{WORK}; sleep 600");
    let _ = w.cata(&["run", "-d", "--name", "live", "-v", "v1:/data/sub", image, "sh", "-c", &script]).ok();
    let _ = w.cata(&["run", "--name", "ended", "-v", "v2:/data/sub", image, "sh", "-c", WORK]).ok();
    eventually("the work is done", PATIENCE, || {
        (w.cata(&["exec", "live", "cat", "/ready"]).code() == 0).then_some(())
    });
}

fn differences_of_each_kind(w: &World) {
    both(w, "busybox");
    let wanted = ["C /bin", "D /bin/vi", "C /home", "A /new", "A /ready", "C /root", "A /root/x", "C /tmp"];
    for name in ["live", "ended"] {
        assert_eq!(w.cata(&["diff", name]).lines(), wanted, "{name}");
    }
    let _ = w.cata(&["create", "--name", "fresh", "busybox", "true"]).ok();
    assert!(w.cata(&["container", "diff", "fresh"]).ok().stdout.is_empty());
    w.cata(&["diff", "nobody"]).fails(1, &["No such container: nobody"]);
}

fn export_has_the_files_and_no_mounts(w: &World) {
    both(w, "busybox");
    for name in ["live", "ended"] {
        let file = w.scratch().join(format!("{name}.tar"));
        let _ = w.cata(&["export", "-o", file.to_str().unwrap(), name]).ok();
        let listed = Run::new("tar").arg("tf").arg(&file).done().lines();
        let has = |path: &str| listed.iter().any(|line| line == path);
        for path in ["bin/busybox", "root/x", "new/", "ready", "data/sub/"] {
            assert!(has(path), "{name}: {path}: {listed:?}");
        }
        // Neither the volume's file, nor processes, nor what was removed.
        for path in ["data/sub/file", "proc/1/", "bin/vi"] {
            assert!(!has(path), "{name}: {path}: {listed:?}");
        }
    }
    // What was exported is an image's file system again.
    let file = w.scratch().join("ended.tar");
    let _ = w.cata(&["import", "-c", "CMD [\"cat\",\"/root/x\"]", file.to_str().unwrap(), "again"]).ok();
    assert_eq!(w.cata(&["run", "--rm", "again"]).text(), "hi");
    // Nothing half-made is left where a file was asked for.
    let none = w.scratch().join("none.tar");
    w.cata(&["export", "-o", none.to_str().unwrap(), "nobody"]).fails(1, &["No such container"]);
    assert!(!none.exists());
}

fn committed_image_runs(w: &World) {
    both(w, "busybox");
    let args = ["commit", "-a", "me", "-m", "because", "-c", "CMD [\"cat\", \"/root/x\"]", "live", "mine:1"];
    let id = w.cata(&args).text();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(w.cata(&["run", "--rm", "mine:1"]).text(), "hi");
    let script = "ls /bin/vi /data/sub/file /etc/hosts; stat -c %a /tmp; ls -d /new";
    let done = w.cata(&["run", "--rm", "--network", "none", "mine:1", "sh", "-c", script]);
    assert!(
        done.stderr.contains("/bin/vi: No such") && done.stderr.contains("/data/sub/file: No such"),
        "{done}"
    );
    assert!(done.stdout.contains("700\n/new\n"), "{done}");
    // It runs on, thawed; and its image knows who and why.
    assert_eq!(w.field("live", "{{.State.Status}}"), "running");
    assert_eq!(w.cata(&["inspect", "-f", "{{.Author}} {{.Comment}}", "mine:1"]).text(), "me because");
    assert!(w.cata(&["history", "mine:1"]).ok().stdout.contains("because"));
    // Two steps upon one another; the second takes a file of the first away.
    let _ = w.cata(&["run", "--name", "next", "mine:1", "rm", "/root/x", "/ready"]).ok();
    let _ = w.cata(&["commit", "next", "mine:2"]).ok();
    let done = w.cata(&["run", "--rm", "mine:2", "sh", "-c", "ls /root /new"]).ok();
    assert_eq!(done.stdout.trim(), "/new:\n\n/root:", "{done}");
    // Also read by others.
    let archive = w.scratch().join("mine.tar");
    let _ = w.cata(&["save", "-o", archive.to_str().unwrap(), "mine:2"]).ok();
    let _ = w.cata(&["rm", "-f", "live", "ended", "next"]).ok();
    let _ = w.cata(&["rmi", "mine:1", "mine:2"]).ok();
    let _ = w.cata(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(w.cata(&["run", "--rm", "mine:2", "stat", "-c", "%a", "/tmp"]).text(), "700");
    w.cata(&["commit", "-c", "FROM x", "nobody"]).fails(1, &["No such container"]);
    w.cata(&["commit", "--pause=false", "nobody", "UPPER"]).fails(1, &["UPPER"]);
}
