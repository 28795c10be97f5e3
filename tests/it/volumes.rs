//! Volumes, bind mounts, tmpfs.

use std::fs;

use cata_tests::command::{PATIENCE, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(volume_outlives_containers),
        test!(volume_is_filled_from_the_image),
        test!(volume_anonymous_goes_with_rm_v),
        test!(volume_in_use_is_kept),
        test!(volumes_of_another_container),
        test!(volume_commands),
        test!(volume_is_a_directory_elsewhere),
        test!(bind_shows_the_host),
        test!(bind_read_only),
        test!(bind_of_a_file),
        test!(bind_source_missing),
        test!(mount_flag_forms),
        test!(tmpfs_is_empty_and_limited),
        test!(target_through_a_link_stays_inside),
    ]
}

fn volume_outlives_containers(w: &World) {
    let _ = w.cata(&["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f"]).ok();
    assert_eq!(w.cata(&["run", "--rm", "-v", "data:/x", "busybox", "cat", "/x/f"]).text(), "kept");
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "data");
    let _ = w.cata(&["run", "--rm", "-v", "data:/d:ro", "busybox", "touch", "/d/g"]).exits(1);
    let _ = w.cata(&["volume", "rm", "data"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
}

fn volume_is_filled_from_the_image(w: &World) {
    let list = w.cata(&["run", "--rm", "-v", "etc:/etc", "busybox", "cat", "/etc/group"]).text();
    assert!(list.contains("root:x:0:"), "{list}");
    let _ =
        w.cata(&["run", "--rm", "-v", "etc:/etc", "busybox", "sh", "-c", "echo changed > /etc/group"]).ok();
    // Filled only while empty.
    assert_eq!(w.cata(&["run", "--rm", "-v", "etc:/etc", "busybox", "cat", "/etc/group"]).text(), "changed");
    let empty = w.cata(&["run", "--rm", "-v", "none:/etc:nocopy", "busybox", "ls", "/etc"]).ok().stdout;
    assert!(!empty.contains("group"), "{empty}");
}

fn volume_anonymous_goes_with_rm_v(w: &World) {
    let _ = w.cata(&["run", "--name", "aa", "-v", "/data", "busybox", "touch", "/data/f"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 1);
    let _ = w.cata(&["rm", "aa"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 1);
    let _ = w.cata(&["create", "--name", "bb", "-v", "/data", "-v", "named:/n", "busybox", "true"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 3);
    let _ = w.cata(&["rm", "-v", "bb"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 2);
    // Trees go after the command is told of the end.
    let _ = w.cata(&["run", "--rm", "-v", "/data", "busybox", "true"]).ok();
    eventually("the volume is gone", PATIENCE, || {
        (w.cata(&["volume", "ls", "-q"]).lines().len() == 2).then_some(())
    });
}

fn volume_in_use_is_kept(w: &World) {
    let _ = w.cata(&["create", "--name", "cc", "-v", "data:/d", "busybox", "true"]).ok();
    w.cata(&["volume", "rm", "data"]).fails(1, &["data", "in use"]);
    let _ = w.cata(&["rm", "cc"]).ok();
    let _ = w.cata(&["volume", "rm", "data"]).ok();
    w.cata(&["volume", "rm", "data"]).fails(1, &["no such volume", "data"]);
}

fn volumes_of_another_container(w: &World) {
    fs::create_dir(w.scratch().join("lent")).unwrap();
    let bind = format!("{}:/bind", w.scratch().join("lent").display());
    let mounts = ["-v", "/data", "-v", "named:/named", "-v", &bind, "--tmpfs", "/memory"];
    let lend = |rm: &[&str], name: &str, command: &[&str]| {
        w.cata(&[&["run", "-d", "--name", name], rm, &mounts, &["busybox"], command].concat()).text()
    };
    let _ = lend(
        &[],
        "lender",
        &["sh", "-c", "for d in data named bind memory; do echo $d > /$d/f; done; sleep 1000"],
    );
    eventually("the files are there", PATIENCE, || {
        w.cata(&["exec", "lender", "cat", "/memory/f"]).status.success().then_some(())
    });
    let from = |lender: &str, more: &[&str], script: &str| {
        let all =
            [&["run", "--rm", "--volumes-from", lender], more, &["busybox", "sh", "-c", script]].concat();
        w.cata(&all)
    };
    let script = "cat /data/f /named/f /bind/f; test ! -e /memory && touch /data/g /bind/g";
    assert_eq!(from("lender", &[], script).text(), "data\nnamed\nbind");
    assert!(w.scratch().join("lent/g").exists());
    assert_eq!(w.cata(&["exec", "lender", "ls", "/data"]).text(), "f\ng");
    // Neither what borrows nor what lends takes with it what the other one has.
    eventually("the borrower is gone", PATIENCE, || {
        (w.cata(&["ps", "-aq"]).lines().len() == 1).then_some(())
    });
    assert_eq!(w.cata(&["exec", "lender", "ls", "/data"]).text(), "f\ng");
    let _ = from("lender:ro", &[], "touch /data/h").exits(1);
    // What is asked for itself is in front.
    assert_eq!(from("lender", &["-v", "own:/data"], "ls /data; cat /named/f").text(), "named");
    let _ = w
        .cata(&["create", "--name", "borrower", "--volumes-from", "lender", "busybox", "cat", "/data/f"])
        .ok();
    let _ = w.cata(&["rm", "-f", "-v", "lender"]).ok();
    assert_eq!(w.cata(&["start", "-a", "borrower"]).text(), "data");
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 3);
    let _ = w.cata(&["rm", "-v", "borrower"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines(), ["named", "own"]);
    from("nobody", &[], "true").fails(125, &["nobody"]);
}

fn volume_commands(w: &World) {
    assert_eq!(w.cata(&["volume", "create", "--label", "a=b", "data"]).text(), "data");
    // Creating what exists is success.
    assert_eq!(w.cata(&["volume", "create", "data"]).text(), "data");
    assert_eq!(w.cata(&["volume", "create"]).text().len(), 64);
    let volume = w.cata(&["volume", "inspect", "data"]).json();
    assert_eq!(volume[0]["Name"], "data");
    assert_eq!(volume[0]["Driver"], "local");
    assert_eq!(volume[0]["Labels"]["a"], "b");
    let place = volume[0]["Mountpoint"].as_str().unwrap();
    fs::write(format!("{place}/from-host"), "x").unwrap();
    let _ = w.cata(&["run", "--rm", "-v", "data:/d", "busybox", "test", "-e", "/d/from-host"]).ok();
    w.cata(&["volume", "create", "no/slashes"]).fails(1, &["no/slashes"]);
    w.cata(&["volume", "inspect", "nothing"]).fails(1, &["nothing"]);
}

fn volume_is_a_directory_elsewhere(w: &World) {
    let there = w.scratch().join("there");
    let device = format!("device={}", there.display());
    let create = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "data"];
    assert_eq!(w.cata(&create).text(), "data");
    let run =
        ["run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "cat /data/in; echo out > /data/out"];
    // It may come later, and until then its absence is an error that leaves nothing.
    w.cata(&run).fails(125, &["volume data", there.to_str().unwrap()]);
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("in"), "in").unwrap();
    assert_eq!(w.cata(&run).text(), "in");
    assert_eq!(fs::read_to_string(there.join("out")).unwrap(), "out\n");
    // The volume goes, what it showed does not.
    let _ = w.cata(&["volume", "rm", "data"]).ok();
    assert!(there.join("in").exists());
    let nfs = ["volume", "create", "-o", "type=nfs", "-o", "o=addr=10.0.0.1", "-o", "device=:/x", "far"];
    w.cata(&nfs).fails(1, &["type nfs is not supported", "mount it on the host"]);
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
}

fn bind_shows_the_host(w: &World) {
    let dir = w.scratch().join("shared");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("in"), "from host").unwrap();
    let bind = format!("{}:/b", dir.display());
    let said =
        w.cata(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "cat /b/in; echo from inside > /b/out"]);
    assert_eq!(said.text(), "from host");
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "from inside\n");
}

fn bind_read_only(w: &World) {
    let dir = w.scratch().join("shared");
    fs::create_dir(&dir).unwrap();
    let bind = format!("{}:/b:ro", dir.display());
    let done = w.cata(&["run", "--rm", "-v", &bind, "busybox", "touch", "/b/f"]).exits(1);
    assert!(done.stderr.contains("Read-only"), "{done}");
    assert!(!dir.join("f").exists());
}

fn bind_of_a_file(w: &World) {
    let file = w.file("one", "content");
    let bind = format!("{}:/etc/deep/file", file.display());
    assert_eq!(w.cata(&["run", "--rm", "-v", &bind, "busybox", "cat", "/etc/deep/file"]).text(), "content");
}

fn bind_source_missing(w: &World) {
    let missing = w.scratch().join("missing");
    let bind = format!("type=bind,source={},target=/b", missing.display());
    w.cata(&["run", "--rm", "--mount", &bind, "busybox", "true"]).fails(125, &[missing.to_str().unwrap()]);
    assert!(!missing.exists());
    // -v makes a directory, as Docker does.
    let bind = format!("{}:/b", missing.display());
    let _ = w.cata(&["run", "--rm", "-v", &bind, "busybox", "touch", "/b/f"]).ok();
    assert!(missing.join("f").exists());
}

fn mount_flag_forms(w: &World) {
    let dir = w.scratch().join("shared");
    fs::create_dir(&dir).unwrap();
    let bind = format!("type=bind,src={},dst=/b,readonly", dir.display());
    let _ = w.cata(&["run", "--rm", "--mount", &bind, "busybox", "touch", "/b/f"]).exits(1);
    let volume = "type=volume,source=data,target=/d";
    let _ = w.cata(&["run", "--rm", "--mount", volume, "busybox", "touch", "/d/f"]).ok();
    let tmpfs = "type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=700";
    let said = w.cata(&[
        "run",
        "--rm",
        "--mount",
        tmpfs,
        "busybox",
        "sh",
        "-c",
        "grep ' /t ' /proc/mounts; stat -c %a /t",
    ]);
    let lines = said.lines();
    assert!(lines[0].contains("size=1024k"), "{lines:?}");
    assert_eq!(lines[1], "700");
    w.cata(&["run", "--rm", "--mount", "type=volume,tarjet=/x", "busybox", "true"]).fails(125, &["tarjet"]);
    w.cata(&["run", "--rm", "--mount", "type=hologram,target=/x", "busybox", "true"])
        .fails(125, &["hologram"]);
}

fn tmpfs_is_empty_and_limited(w: &World) {
    let script = "ls /etc | wc -l; dd if=/dev/zero of=/etc/f bs=1k count=300 2>&1 | tail -1; grep ' /etc ' /proc/mounts";
    let lines =
        w.cata(&["run", "--rm", "--tmpfs", "/etc:size=100k,mode=755", "busybox", "sh", "-c", script]).lines();
    assert!(
        lines.iter().any(|l| l.contains("tmpfs") && l.contains("noexec") && l.contains("nosuid")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|l| l.contains("307200 bytes")), "the size is no limit: {lines:?}");
}

fn target_through_a_link_stays_inside(w: &World) {
    // The image's own link must lead inside the image, not to the host's directory.
    let probe = w.scratch().join("probe");
    fs::create_dir(&probe).unwrap();
    let _ = w.cata(&["create", "--name", "cc", "-v", "trap:/trap", "busybox", "true"]).ok();
    let place = w.cata(&["volume", "inspect", "--format", "{{.Mountpoint}}", "trap"]).text();
    std::os::unix::fs::symlink(&probe, format!("{place}/link")).unwrap();
    let args = ["run", "--rm", "-v", "trap:/trap", "--tmpfs", "/trap/link/dir", "busybox", "true"];
    let _ = w.cata(&args);
    assert_eq!(fs::read_dir(&probe).unwrap().count(), 0, "a mount point was made on the host");
}
