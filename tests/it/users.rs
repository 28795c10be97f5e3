//! User namespaces: whose the ids of a container are, inside and on the host.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(users_of_its_own).also_in_lab_for(30),
        test!(users_mapped_as_said),
        test!(users_copied_in_and_out),
        test!(users_refused),
    ]
}

/// First id on the host and how many, of a map with one range.
fn range(w: &World, container: &str) -> (u32, u32) {
    let map = w.field(container, "{{json .HostConfig.IDMappings.UidMap}}");
    let map: Vec<String> = serde_json::from_str(&map).unwrap();
    let [only] = map.as_slice() else { panic!("{map:?}") };
    let numbers: Vec<u32> = only.split(':').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers[0], 0);
    (numbers[1], numbers[2])
}

/// Of a process of the host: its user and group.
fn ids(pid: &str) -> (u32, u32) {
    let at = fs::metadata(format!("/proc/{pid}")).unwrap();
    (at.uid(), at.gid())
}

fn owner(path: &std::path::Path) -> (u32, u32) {
    let at = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (at.uid(), at.gid())
}

fn users_of_its_own(w: &World) {
    let bind = w.scratch().join("bind");
    fs::create_dir(&bind).unwrap();
    fs::write(bind.join("mine"), "of the host's root").unwrap();
    let bound = format!("{}:/bind", bind.display());
    for name in ["one", "two"] {
        let args = ["run", "-d", "--name", name, "--userns", "auto", "-v", "shared:/data", "-v", &bound];
        let script =
            "chown 1000:1001 /data /tmp && echo begun > /dev/stdout && touch /root/f && exec sleep 600";
        let _ = w.cata(&[&args[..], &["busybox", "sh", "-c", script]].concat()).ok();
    }
    // Nobody else's ids, and not each other's.
    let ((one, count), (two, _)) = (range(w, "one"), range(w, "two"));
    assert!(one >= 524_288 && two >= 524_288 && count == 65536, "{one} {two} {count}");
    assert!(one.abs_diff(two) >= count, "{one} {two}");
    assert_eq!(w.field("one", "{{.HostConfig.UsernsMode}}"), "auto");

    let pid = w.field("one", "{{.State.Pid}}");
    assert_eq!(ids(&pid), (one, one));
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &one.to_string(), "65536"]);
    let inside = |name: &str, script: &str| w.cata(&["exec", name, "sh", "-c", script]).text();
    assert_eq!(
        inside("one", "id -u; cat /proc/self/uid_map | wc -l").lines().collect::<Vec<_>>(),
        ["0", "1"]
    );
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(inside("one", "readlink /proc/self/ns/user"), namespace(&pid).to_str().unwrap());
    assert_ne!(namespace(&pid), namespace("self"));
    let top = w.cata(&["top", "one"]).ok().stdout;
    assert!(top.contains("sleep 600") && top.contains(&one.to_string()), "{top}");

    // Files belong to whom they belong without all this: in the image, in a volume that two share, in a bind, in
    // what the engine puts there, and on disk.
    let script =
        "stat -c '%u:%g' / /bin/busybox /etc/passwd /etc/hosts /etc/resolv.conf /data /root/f /bind/mine";
    for name in ["one", "two"] {
        eventually("the container has begun", PATIENCE, || {
            w.cata(&["exec", name, "test", "-e", "/root/f"]).code().eq(&0).then_some(())
        });
        let owners: Vec<String> = inside(name, script).lines().map(str::to_owned).collect();
        assert_eq!(owners, ["0:0", "0:0", "0:0", "0:0", "0:0", "1000:1001", "0:0", "0:0"], "{name}");
    }
    let _ = w.cata(&["exec", "-u", "1000:1001", "one", "sh", "-c", "echo hello > /data/from-one"]).ok();
    assert_eq!(inside("two", "cat /data/from-one; stat -c %u:%g /data/from-one"), "hello\n1000:1001");
    let _ = w.cata(&["exec", "one", "sh", "-c", "touch /bind/new && chown 7:8 /bind/new"]).ok();
    assert_eq!(owner(&bind.join("new")), (7, 8));
    assert_eq!(owner(&w.root().join("volumes/shared/_data/from-one")), (1000, 1001));
    let id = w.field("one", "{{.Id}}");
    assert_eq!(owner(&w.root().join(format!("containers/{id}/upper/root/f"))), (0, 0));

    // Its own network is its own, and the host's is not. Its output can be opened again by name.
    assert!(w.cata(&["logs", "one"]).ok().stdout.contains("begun"));
    let netadmin = [
        "run",
        "--rm",
        "--userns",
        "auto",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "ip",
        "link",
        "set",
        "lo",
        "down",
    ];
    let _ = w.cata(&netadmin).ok();
    assert_eq!(inside("one", "mkdir /sys/fs/cgroup/x 2>/dev/null; echo $?"), "1");
    w.cata(&["exec", "one", "sh", "-c", "echo 1 > /proc/sys/kernel/printk"]).fails(1, &[]);

    // The same ids after a restart, and files as they were.
    let _ = w.cata(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(range(w, "one").0, one);
    assert_eq!(ids(&w.field("one", "{{.State.Pid}}")), (one, one));
    assert_eq!(inside("one", "stat -c %u:%g /root/f /data"), "0:0\n1000:1001");
    let _ = w.cata(&["rm", "-f", "one", "two"]).ok();
    // What is left of an owner is nothing.
    assert_eq!(fs::read_dir(w.root().join("users")).unwrap().count(), 0);
}

fn users_mapped_as_said(w: &World) {
    let maps = ["--uidmap", "0:200000:1000", "--uidmap", "1000:5:1", "--gidmap", "0:300000:2000"];
    let run = |user: &str, script: &str| {
        let args = [&["run", "--rm", "-u", user], &maps[..], &["busybox", "sh", "-c", script]].concat();
        w.cata(&args)
    };
    let lines = run("0", "cat /proc/self/uid_map /proc/self/gid_map").lines();
    let words: Vec<String> =
        lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(words, ["0 200000 1000", "1000 5 1", "0 300000 2000"]);
    assert_eq!(run("1000:1500", "id -u; id -g").text(), "1000\n1500");
    let failed = run("1001", "true");
    assert_eq!(failed.code(), 125, "{failed:?}");
    // The host's, as without it.
    let own = w.cata(&["run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map"]).text();
    assert_eq!(own.trim(), fs::read_to_string("/proc/self/uid_map").unwrap().trim());
    // Root keeps its ids: they are those of the host, in a namespace without rights on it.
    let script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; stat -c %u:%g / /etc/hosts /v; touch /v/f";
    let kept =
        w.cata(&["run", "--rm", "--userns", "keep-id", "-v", "kept:/v", "busybox", "sh", "-c", script]);
    let kept: Vec<String> =
        kept.lines().iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!([&kept[0], &kept[1]], ["0", "0 0 4294967295"]);
    assert_ne!(kept[2], fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
    assert_eq!(kept[3..], ["0:0", "0:0", "0:0"]);
    assert_eq!(owner(&w.root().join("volumes/kept/_data/f")), (0, 0));
    // The smallest map there is, and no group of terminals in it.
    let smallest = ["run", "--rm", "--userns", "0:100000:1", "--user"];
    assert_eq!(w.cata(&[&smallest[..], &["0:0", "busybox", "id", "-g"]].concat()).text(), "0");
    w.cata(&[&smallest[..], &["7:0", "busybox", "id"]].concat()).fails(125, &["7:0", "does not map"]);
    // A terminal, the reaper, a read-only root, a device and a tmpfs.
    let args = [
        "run",
        "--rm",
        "-t",
        "--init",
        "--read-only",
        "--tmpfs",
        "/t",
        "--device",
        "/dev/fuse",
        "--userns",
        "0:400000:65536",
        "busybox",
        "sh",
        "-c",
        "tty >/dev/null && touch /t/f && stat -c %t:%T /dev/fuse && ! touch /x 2>/dev/null && ls -ln /dev/console",
    ];
    let shown = w.cata(&args).ok().stdout;
    assert!(shown.contains("a:e5"), "{shown}");
}

fn users_copied_in_and_out(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "--userns", "auto", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["exec", "cc", "sh", "-c", "mkdir /d && echo x > /d/f && chown 33:34 /d/f"]).ok();
    let file = w.file("in", "from the host");
    let out = w.scratch().join("out");
    let copied = |state: &str| {
        let _ = w.cata(&["cp", file.to_str().unwrap(), &format!("cc:/d/{state}")]).ok();
        let _ = w.cata(&["cp", "-a", "cc:/d/f", out.to_str().unwrap()]).ok();
        assert_eq!(owner(&out), (33, 34), "{state}");
        fs::remove_file(&out).unwrap();
        let tar = w.scratch().join("tar");
        let _ = w.cata(&["export", "-o", tar.to_str().unwrap(), "cc"]).ok();
        let listed =
            Run::new("tar").args(["--numeric-owner", "-tvf", tar.to_str().unwrap(), "d/f", "etc/passwd"]);
        let listed = listed.done().ok().stdout;
        assert!(listed.contains("33/34") && listed.contains("0/0"), "{state}: {listed}");
    };
    copied("running");
    assert_eq!(w.cata(&["exec", "cc", "stat", "-c", "%u:%g", "/d/running"]).text(), "0:0");
    let _ = w.cata(&["stop", "-t", "0", "cc"]).ok();
    copied("stopped");
    let _ = w.cata(&["start", "cc"]).ok();
    let seen = w.cata(&["exec", "cc", "sh", "-c", "stat -c %u:%g /d/stopped && cat /d/running"]).text();
    assert_eq!(seen, "0:0\nfrom the host");
}

fn users_refused(w: &World) {
    for (args, texts) in [
        (&["--userns", "auto", "--network", "host"][..], &["--network host"][..]),
        (&["--userns", "auto", "--pid", "host"], &["--pid host"]),
        (&["--userns", "auto", "--privileged"], &["--privileged"]),
        (&["--userns", "keep-id:uid=5"], &["keep-id", "without privileges"]),
        (&["--userns", "keep-id", "--network", "host"], &["--network host"]),
        (&["--userns", "nomap"], &["nomap", "without privileges"]),
        (&["--userns", "auto", "--uidmap", "0:1:2"], &["--userns and --uidmap"]),
        (&["--userns", "auto:size=70000"], &["65536"]),
        (&["--uidmap", "1:100000:10"], &["--uidmap", "id 0"]),
        (&["--userns", "auto", "--isolation", "vm"], &["--isolation vm"]),
    ] {
        w.cata(&[&["run", "--rm"], args, &["busybox", "true"]].concat()).fails(125, texts);
    }
    w.cata(&["run", "--userns", "something", "busybox"]).fails(125, &["invalid USER mode 'something'"]);
    assert!(!w.root().join("users").exists() || fs::read_dir(w.root().join("users")).unwrap().count() == 0);
    // A file system that cannot: its files would be nobody's.
    w.cata(&["run", "--rm", "--userns", "auto", "-v", "/proc/self:/p", "busybox", "true"])
        .fails(125, &["/proc/self", "idmapped mounts"]);
}
