//! Mounts, masks, devices, and images that try to climb out.

use std::fs;
use std::os::unix::fs::symlink;

use cata_runtime::plan::{Options, Root};
use serde_json::json;

use crate::Case;
use crate::world::{World, spec};

pub(crate) const CASES: &[Case] = &[
    ("root_is_the_overlay", root),
    ("root_by_path_and_read_only", root_path),
    ("devices_and_links_are_there", devices),
    ("masked_and_read_only_paths", masks),
    ("binds_of_files_and_directories", binds),
    ("bind_propagation", propagation),
    ("links_in_the_image_do_not_lead_out", links),
    ("proc_behind_a_link_is_refused", proc_link),
    ("missing_source_is_named", missing_source),
    ("tmpfs_options", tmpfs),
    ("many_layers", layers),
];

fn with_mount(argv: &[&str], mount: serde_json::Value) -> serde_json::Value {
    let mut document = spec(argv);
    document["mounts"].as_array_mut().expect("a list").push(mount);
    document
}

fn root(world: &World) {
    let output =
        world.sh("touch /new && grep -c ' / overlay rw' /proc/mounts; ls /; cat /proc/mounts | wc -l").output;
    assert!(output.starts_with("1\n"), "{output}");
    assert!(output.contains("\nnew\n"), "{output}");
    assert!(!world.layer().join("new").exists());
    let host: usize = output.lines().last().expect("a count").parse().expect("a number");
    assert!(host < 30, "the host's mounts are still there: {output}");
}

fn root_path(world: &World) {
    let options = Options { root: Some(Root::Path(world.layer())), ..Options::default() };
    let mut document = spec(&["sh", "-c", "touch /x 2>&1; touch /dev/shm/ok && echo shm"]);
    document["root"]["readonly"] = json!(true);
    let output = world.run(&world.plan_with(&document, &options)).output;
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(output.ends_with("shm"), "{output}");
}

fn devices(world: &World) {
    let output = world
        .sh("for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done; \
             for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null; \
             head -c 3 /dev/zero | wc -c")
        .output;
    assert!(output.contains("/dev/null 666 1:3"), "{output}");
    assert!(output.contains("/dev/tty 666 5:0"), "{output}");
    assert!(
        output.ends_with("/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n3")
    );
    let mut document = spec(&["stat", "-c", "%F %a %u:%g %t:%T", "/dev/deep/mine"]);
    document["linux"]["devices"] = json!([{"path": "/dev/deep/mine", "type": "c", "major": 1, "minor": 5,
        "fileMode": 0o640, "uid": 999, "gid": 101}]);
    assert_eq!(world.run(&world.plan(&document)).output, "character special file 640 999:101 1:5");
}

fn masks(world: &World) {
    let output = world
        .sh("cat /proc/keys | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
             echo 1 > /proc/sys/kernel/pid_max 2>&1; touch /sys/firmware/x; \
             touch /sys/x; ls -d /proc/sys/kernel")
        .output;
    assert!(output.starts_with("0\n0\n0\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
    assert!(output.ends_with("/proc/sys/kernel"));
}

fn binds(world: &World) {
    let dir = world.scratch("data");
    fs::write(dir.join("a"), "one").expect("a file");
    let mut document = with_mount(
        &["sh", "-c", "cat /srv/data/a /etc/one; touch /srv/data/b; touch /ro/x 2>&1; echo two > /etc/one"],
        json!({"destination": "/srv/data", "type": "bind", "source": dir, "options": ["rbind", "rprivate"]}),
    );
    let mounts = document["mounts"].as_array_mut().expect("a list");
    mounts.push(
        json!({"destination": "/etc/one", "type": "bind", "source": dir.join("a"), "options": ["rbind"]}),
    );
    mounts.push(json!({"destination": "/ro", "type": "bind", "source": dir, "options": ["bind", "ro"]}));
    let output = world.run(&world.plan(&document)).output;
    assert!(output.starts_with("oneone"), "{output}");
    assert!(output.contains("/ro/x: Read-only file system"), "{output}");
    assert!(dir.join("b").exists());
    assert_eq!(fs::read_to_string(dir.join("a")).expect("a file"), "two\n");
}

fn propagation(world: &World) {
    let dir = world.scratch("shared");
    cata_sys::mount::mount_classic("tmpfs", &dir, "tmpfs", false, b"").expect("a tmpfs");
    let shared = cata_sys::mount::attribute::SHARED;
    cata_sys::mount::set_propagation(&dir, shared, cata_sys::mount::Depth::This).expect("shared");
    for (option, expected) in [("rprivate", ""), ("rslave", "master:"), ("rshared", "shared:")] {
        let document = with_mount(
            &["grep", " /vol ", "/proc/self/mountinfo"],
            json!({"destination": "/vol", "type": "bind", "source": dir, "options": ["rbind", option]}),
        );
        let output = world.run(&world.plan(&document)).output;
        assert_eq!(
            output.contains("master:") || output.contains("shared:"),
            !expected.is_empty(),
            "{output}"
        );
        assert!(output.contains(expected), "{option}: {output}");
    }
}

/// An image whose directories are links that lead out, as seen from the host.
fn links(world: &World) {
    let outside = world.scratch("outside");
    let evil = world.scratch("evil");
    fs::create_dir_all(evil.join("a")).expect("a directory");
    symlink(&outside, evil.join("absolute")).expect("a link");
    symlink("../../../../../../../../../..", evil.join("climb")).expect("a link");
    symlink("/proc/self/root", evil.join("magic")).expect("a link");
    symlink("/run/nowhere/file", evil.join("dangling")).expect("a link");
    symlink("loop", evil.join("loop")).expect("a link");
    let source = world.scratch("source");
    fs::write(source.join("mark"), "mark").expect("a file");
    let options = || Options { root: Some(world.overlay(std::slice::from_ref(&evil))), ..Options::default() };
    let out = outside.to_str().expect("text");
    let cases = [
        ("/absolute/in".to_owned(), format!("{out}/in/mark")),
        (format!("/climb{out}/up"), format!("{out}/up/mark")),
        ("/a/../../../../..".to_owned() + out + "/dots", format!("{out}/dots/mark")),
    ];
    for (target, inside) in cases {
        let document = with_mount(
            &["cat", &inside],
            json!({"destination": target, "type": "bind", "source": source, "options": ["rbind"]}),
        );
        assert_eq!(world.run(&world.plan_with(&document, &options())).output, "mark", "{target}");
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0, "{target} led out");
    }
    let file = with_mount(
        &["cat", "/run/nowhere/file"],
        json!({"destination": "/dangling", "type": "bind", "source": source.join("mark"), "options": ["bind"]}),
    );
    assert_eq!(world.run(&world.plan_with(&file, &options())).output, "mark");
    assert!(!std::path::Path::new("/run/nowhere").exists());
    let mut refused = with_mount(
        &["true"],
        json!({"destination": "/loop", "type": "bind", "source": source, "options": ["rbind"]}),
    );
    let error = world.try_run(&world.plan_with(&refused, &options())).expect_err("a loop");
    assert!(error.to_string().contains("mount target `/loop`"), "{error}");
    // `/proc/self/root` is a magic link once the container's /proc is there.
    refused["mounts"].as_array_mut().expect("a list").last_mut().expect("one")["destination"] =
        json!(format!("/magic{out}/x"));
    let error = world.try_run(&world.plan_with(&refused, &options())).expect_err("a magic link");
    assert_eq!(error.exit_code(), 125);
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}

fn proc_link(world: &World) {
    let evil = world.scratch("evil-proc");
    symlink("/tmp", evil.join("proc")).expect("a link");
    let options = Options { root: Some(world.overlay(&[evil])), ..Options::default() };
    let error = world.try_run(&world.plan_with(&spec(&["true"]), &options)).expect_err("a link");
    assert!(error.to_string().contains("mount target `/proc`"), "{error}");
}

fn missing_source(world: &World) {
    let document = with_mount(
        &["true"],
        json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}),
    );
    let error = world.try_run(&world.plan(&document)).expect_err("no source");
    assert_eq!(error.to_string(), "mount source `/no/such/source`");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.starts_with("No such file or directory"), "{cause}");
}

fn tmpfs(world: &World) {
    let mount = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["noexec", "nosuid", "nodev", "size=1m", "mode=1770", "uid=999"]});
    let document = with_mount(&["sh", "-c", "grep ' /t ' /proc/mounts; stat -c %a:%u /t"], mount);
    let output = world.run(&world.plan(&document)).output;
    assert!(output.contains("nosuid,nodev,noexec") && output.contains("size=1024k"), "{output}");
    assert!(output.ends_with("1770:999"), "{output}");
    let mount = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]});
    let error = world.try_run(&world.plan(&with_mount(&["true"], mount))).expect_err("nonsense");
    assert!(error.to_string().contains("nonsense"), "{error}");
}

fn layers(world: &World) {
    let long = "x".repeat(100);
    let extra: Vec<_> = (0..60)
        .map(|number| {
            let layer = world.scratch(&format!("layers/{long}/{number}"));
            fs::write(layer.join(format!("file{number}")), "").expect("a file");
            fs::write(layer.join("same"), number.to_string()).expect("a file");
            layer
        })
        .collect();
    let options = Options { root: Some(world.overlay(&extra)), ..Options::default() };
    let output =
        world.run(&world.plan_with(&spec(&["sh", "-c", "ls -d /file* | wc -l; cat /same"]), &options)).output;
    assert_eq!(output, "60\n0");
}
