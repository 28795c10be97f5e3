//! `prune` and `system df`: what nobody uses goes, what anybody uses stays.

use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(what_is_used_stays), test!(filters_spare)]
}

fn names(w: &World, listing: &[&str]) -> Vec<String> {
    let mut names = w.cata(listing).lines();
    names.sort();
    names
}

fn what_is_used_stays(w: &World) {
    let _ = w.cata(&["network", "create", "unused"]).ok();
    let _ = w.cata(&["network", "create", "of-stopped"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "live", "-v", "used:/v", "busybox", "sleep", "600"]).ok();
    let stopped = ["run", "--name", "stopped", "--network", "of-stopped", "-v", "/anonymous", "busybox"];
    let _ = w.cata(&[&stopped[..], &["sh", "-c", "dd if=/dev/zero of=/big bs=1k count=300"]].concat()).ok();
    let _ = w.cata(&["volume", "create", "unused"]).ok();
    let _ = w.cata(&["commit", "stopped"]).ok();
    let _ = w.cata(&["commit", "stopped", "named:1"]).ok();

    let df = w.cata(&["system", "df", "--format", "{{.Type}}: {{.TotalCount}} {{.Active}}"]).lines();
    assert_eq!(df, ["Images: 3 1", "Containers: 2 1", "Local Volumes: 3 2", "Build Cache: 0 0"]);
    assert!(w.cata(&["system", "df", "-v"]).ok().stdout.contains("307kB"));

    // The end of the input says no.
    w.cata(&["container", "prune"]).fails(1, &["cancelled", "-f"]);
    w.cata_run(["container", "prune"]).input("maybe\n").done().fails(1, &["Continue?", "cancelled", "-f"]);
    // A network that a stopped container was made for is kept for its next start.
    let said = w.cata(&["network", "prune", "-f"]).ok();
    assert_eq!(said.stdout, "Deleted Networks:\nunused\n\n");
    let said = w.cata(&["image", "prune", "-f"]).ok().stdout;
    assert!(said.contains("deleted: sha256:") && !said.contains("untagged"), "{said}");
    let ids = names(w, &["images", "--format", "{{.Repository}}"]);
    assert_eq!(ids, ["busybox", "named"]);
    let said = w.cata(&["volume", "prune", "-f"]).ok();
    assert!(said.stdout.starts_with("Total reclaimed space: 0B"), "{said}");

    let said = w.cata(&["container", "prune", "-f"]).ok().stdout;
    assert!(
        said.contains("Deleted Containers:\n") && said.contains("Total reclaimed space: 307kB"),
        "{said}"
    );
    assert_eq!(names(w, &["ps", "-a", "--format", "{{.Names}}"]), ["live"]);

    let said = w.cata(&["system", "prune", "-f", "--volumes"]).ok().stdout;
    assert!(said.contains("of-stopped") && said.contains("Deleted Volumes:"), "{said}");
    assert_eq!(names(w, &["volume", "ls", "-q"]), ["unused", "used"]);
    let said = w.cata(&["volume", "prune", "-f", "--filter", "all=1"]).ok().stdout;
    assert!(said.contains("Deleted Volumes:\nunused\n"), "{said}");
    let said = w.cata(&["system", "prune", "-af"]).ok().stdout;
    assert!(said.contains("untagged: named:1"), "{said}");
    assert_eq!(names(w, &["images", "--format", "{{.Repository}}"]), ["busybox"]);
    assert_eq!(w.cata(&["exec", "live", "echo", "still"]).text(), "still");
}

fn filters_spare(w: &World) {
    for (name, label) in [("kept", "keep=yes"), ("gone", "other=1")] {
        let _ = w.cata(&["run", "--name", name, "--label", label, "busybox", "true"]).ok();
    }
    assert!(!w.cata(&["container", "prune", "-f", "--filter", "until=1h"]).ok().stdout.contains("Deleted"));
    let said = w.cata(&["container", "prune", "-f", "--filter", "label!=keep=yes"]).ok().stdout;
    assert_eq!(said.lines().filter(|line| line.len() == 64).count(), 1, "{said}");
    assert_eq!(names(w, &["ps", "-aq", "--format", "{{.Names}}"]), ["kept"]);
    // One that was made this moment may be about to be started.
    let _ = w.cata(&["create", "--name", "fresh", "busybox", "true"]).ok();
    let _ = w.cata_run(["container", "prune"]).input("y\n").done().ok();
    assert_eq!(names(w, &["ps", "-aq", "--format", "{{.Names}}"]), ["fresh"]);
    w.cata(&["container", "prune", "-f", "--filter", "colour=red"]).fails(1, &["invalid filter 'colour'"]);
}
