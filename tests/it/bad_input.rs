//! Bad input: a clear error that names the thing, Docker's exit code, nothing half-made left behind.

use std::fs;

use cata_tests::archive::{Layer, architecture, docker_archive};
use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use serde_json::json;
use tar::EntryType;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(unknown_image),
        test!(bad_references),
        test!(corrupt_archives),
        test!(entries_that_climb_out),
        test!(wrong_architecture),
        test!(name_in_use),
        test!(unknown_network),
        test!(unknown_things),
        test!(bad_values_of_flags),
        test!(unsupported_flags_are_named),
        test!(cgroup_not_available),
        test!(not_root),
        test!(image_without_a_command),
    ]
}

/// After a refused command: no container, no name, no process.
fn nothing_was_made(w: &World) {
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // What a supervisor undoes goes on for a moment after the error is told.
    eventually("nothing left", PATIENCE, || cata_tests::leak::find(w).is_empty().then_some(()));
}

fn unknown_image(w: &World) {
    w.cata(&["run", "--rm", "--pull", "never", "no-such-image"]).fails(125, &["no-such-image"]);
    w.cata(&["create", "--pull", "never", "no-such-image"]).fails(1, &["no-such-image"]);
    w.cata(&["image", "inspect", "no-such-image"]).fails(1, &["no-such-image"]);
    w.cata(&["tag", "no-such-image", "x"]).fails(1, &["no-such-image"]);
    let file = w.scratch().join("saved");
    w.cata(&["save", "-o", file.to_str().unwrap(), "no-such-image"]).fails(1, &["no-such-image"]);
    assert!(!file.exists(), "half an archive is left");
    nothing_was_made(w);
}

fn bad_references(w: &World) {
    for reference in ["library/UPPER", "a//b", "x:bad tag", ":tag", "http://host/x"] {
        w.cata(&["pull", reference]).fails(1, &[reference]);
        w.cata(&["run", "--rm", reference]).fails(125, &[reference]);
    }
    w.cata(&["pull", "x@sha256:123"]).fails(1, &["digest", "sha256:123"]);
    w.cata(&["run", "--rm", "x@sha256:123"]).fails(125, &["digest", "sha256:123"]);
    nothing_was_made(w);
}

fn corrupt_archives(w: &World) {
    let good = docker_archive("x:latest", &[Layer::busybox()], |_| {});
    let mut wrong_digest = good.clone();
    let middle = wrong_digest.len() / 2;
    wrong_digest[middle] ^= 1;
    let cases: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("noise", b"this is no archive at all, but long enough to be looked at by a careless reader........"),
        ("cut", &good[..middle]),
        ("damaged", &wrong_digest),
        ("no-manifest", &Layer::default().file("aa", 0o644, "b").finish()),
    ];
    for (name, content) in cases {
        let file = w.file(name, content);
        let done = w.cata_run(["load", "-i"]).arg(&file).done();
        assert_eq!(done.code(), 1, "{name}: {done}");
        assert!(!done.stderr.contains("panicked") && !done.stderr.is_empty(), "{name}: {done}");
        assert_eq!(w.cata(&["images", "-q"]).lines().len(), 1, "{name}");
    }
    assert_eq!(fs::read_dir(w.root().join("layers")).unwrap().count(), 1, "half-made layers are left");
    w.cata(&["load", "-i", "/no/such/file"]).fails(1, &["/no/such/file"]);
}

fn entries_that_climb_out(w: &World) {
    // A short name: it must fit into a header.
    let outside = std::path::PathBuf::from("/run/outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.join("victim");
    let absolute = target.to_str().unwrap();
    let climbing = format!("{}{}", "../".repeat(20), &absolute[1..]);
    fs::write(outside.join("readable"), "secret").unwrap();
    let dir = outside.to_str().unwrap();
    let layers = [
        Layer::default().file(&climbing, 0o644, "x").finish(),
        Layer::default().file(absolute, 0o644, "x").finish(),
        Layer::default().symlink("way", dir).file("way/victim", 0o644, "x").finish(),
        Layer::default()
            .symlink("way", "../../../../../../..")
            .file(&format!("way{absolute}"), 0o644, "x")
            .finish(),
        Layer::default().hard_link("stolen", &format!("{dir}/readable")).finish(),
        Layer::default().symlink("way", dir).hard_link("stolen", "way/readable").finish(),
        Layer::default().symlink("way", dir).entry("way/victim", EntryType::Fifo, 0o644, "", &[]).finish(),
        Layer::default().symlink("way", dir).file("way/.wh.readable", 0o644, "").finish(),
        Layer::default().symlink("way", dir).file("way/.wh..wh..opq", 0o644, "").finish(),
        Layer::default().file(".wh...", 0o644, "").finish(),
    ];
    for (n, layer) in layers.into_iter().enumerate() {
        let name = format!("evil{n}:latest");
        let file = w.file("evil.tar", docker_archive(&name, &[Layer::busybox(), layer], |_| {}));
        let done = w.cata_run(["load", "-i"]).arg(file).done();
        assert!(!done.stderr.contains("panicked"), "{done}");
        if done.code() == 0 {
            // Kept inside, as Docker does with absolute names: then it must not show the host.
            let seen =
                w.cata(&["run", "--rm", &name, "sh", "-c", "cat /stolen /way/readable 2>/dev/null; true"]);
            assert!(!seen.stdout.contains("secret"), "case {n}: the host's file is in the image");
        }
        assert!(fs::symlink_metadata(&target).is_err(), "case {n}: written outside");
        assert!(outside.join("readable").exists(), "case {n}: removed outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "case {n}");
    }
}

fn wrong_architecture(w: &World) {
    let foreign = if architecture() == "amd64" { "arm64" } else { "amd64" };
    let archive = docker_archive("foreign:latest", &[Layer::busybox()], |config| {
        config["architecture"] = json!(foreign);
    });
    let file = w.file("foreign.tar", archive);
    let _ = w.cata_run(["load", "-i"]).arg(file).done().ok();
    let done = w.cata(&[
        "run",
        "--rm",
        "--pull",
        "never",
        "--platform",
        &format!("linux/{}", architecture()),
        "foreign",
        "true",
    ]);
    done.fails(125, &["foreign", foreign]);
    // A program of another machine type says so.
    let layer = Layer::default().file("alien", 0o755, "\u{7f}ELF\u{2}\u{1}\u{1}").finish();
    let file = w.file("alien.tar", docker_archive("alien:latest", &[Layer::busybox(), layer], |_| {}));
    let _ = w.cata_run(["load", "-i"]).arg(file).done().ok();
    w.cata(&["run", "--rm", "alien", "/alien"]).fails(126, &["/alien"]);
    nothing_was_made(w);
}

fn name_in_use(w: &World) {
    let id = w.cata(&["create", "--name", "taken", "busybox", "true"]).text();
    w.cata(&["run", "-d", "--name", "taken", "busybox", "true"]).fails(125, &["taken", "in use", &id[..12]]);
    w.cata(&["create", "--name", "bad name", "busybox", "true"]).fails(1, &["bad name"]);
    assert_eq!(w.cata(&["ps", "-aq"]).lines().len(), 1);
}

fn unknown_network(w: &World) {
    w.cata(&["run", "--rm", "--network", "atlantis", "busybox", "true"])
        .fails(125, &["atlantis", "not found"]);
    w.cata(&["run", "--rm", "--network", "container:nobody", "busybox", "true"]).fails(125, &["nobody"]);
    nothing_was_made(w);
}

fn unknown_things(w: &World) {
    for verb in ["start", "stop", "restart", "kill", "rm", "logs", "top", "port", "inspect", "wait", "attach"]
    {
        w.cata(&[verb, "nobody"]).fails(1, &["nobody"]);
    }
    w.cata(&["exec", "nobody", "true"]).fails(1, &["nobody"]);
    w.cata(&["sail"]).fails(1, &["sail"]);
    w.cata(&["network", "sail"]).fails(1, &["sail"]);
    // Of several, the good ones are done and the bad one is told.
    let _ = w.cata(&["create", "--name", "aa", "busybox", "true"]).ok();
    let done = w.cata(&["rm", "nobody", "aa"]).exits(1);
    assert_eq!(done.stdout.trim(), "aa");
    assert!(done.stderr.contains("nobody"), "{done}");
}

fn bad_values_of_flags(w: &World) {
    let cases: [&[&str]; 16] = [
        &["-p", "99999:80"],
        &["-p", "80:80/carrier"],
        &["-p", "1-3:1-2"],
        &["-v", "relative/../path:also/relative"],
        &["-v", "data:not-absolute"],
        &["--memory", "12 potatoes"],
        &["--ulimit", "nofile=many"],
        &["--restart", "sometimes"],
        &["--network", ""],
        &["--stop-signal", "SIGNOTHING"],
        &["--health-interval", "soon"],
        &["--platform", "a/b/c/d/e"],
        &["--add-host", "nameonly"],
        &["--dns", "not-an-address"],
        &["--env-file", "/no/such/file"],
        &["--pid", "container:"],
    ];
    for case in cases {
        let mut args = vec!["run", "--rm"];
        args.extend(case);
        args.extend(["busybox", "true"]);
        let done = w.cata(&args).exits(125);
        let value = case[1];
        // The value, the flag, or the part of the value that is wrong.
        let parts = value.split([':', '/', '=', ' ']).filter(|part| part.len() > 2);
        let named = parts.chain([value, case[0]]).any(|part| done.stderr.contains(part));
        assert!(named, "{done}");
        assert!(!done.stderr.contains("panicked"), "{done}");
    }
    nothing_was_made(w);
}

fn unsupported_flags_are_named(w: &World) {
    for flag in ["--volume-driver=nfs", "--link=x", "--storage-opt=size=1g"] {
        let name = flag.split('=').next().unwrap();
        w.cata(&["run", "--rm", flag, "busybox", "true"]).fails(125, &[name, "not supported"]);
    }
    nothing_was_made(w);
}

fn cgroup_not_available(w: &World) {
    let remount = |how: &str| {
        for hierarchy in cata_tests::cgroup::hierarchies().unwrap() {
            let _ = Run::new("mount")
                .args(["-o", &format!("remount,bind,{how}")])
                .arg(hierarchy.mount)
                .done()
                .ok();
        }
    };
    remount("ro");
    let done = w.cata(&["run", "--rm", "busybox", "true"]);
    remount("rw");
    done.fails(125, &["cgroup"]);
    nothing_was_made(w);
}

fn not_root(w: &World) {
    // The directory alone: files below are hard links that all worlds share.
    let _ = Run::new("chmod").arg("go-rwx").arg(w.root()).done().ok();
    let binary = w.scratch().join("cata");
    fs::copy(cata_tests::command::cata_binary(), &binary).unwrap();
    // The path to the scratch directory may be closed to others; a file descriptor is not.
    let run = Run::new("sh").args(["-c", "exec 9< \"$0\"; exec setpriv --reuid=65534 --regid=65534 --clear-groups /proc/self/fd/9 run --rm busybox true"]);
    run.arg(binary).done().fails(125, &["root"]);
}

fn image_without_a_command(w: &World) {
    let archive = docker_archive("silent:latest", &[Layer::busybox()], |config| config["config"] = json!({}));
    let file = w.file("silent.tar", archive);
    let _ = w.cata_run(["load", "-i"]).arg(file).done().ok();
    w.cata(&["run", "--rm", "silent"]).fails(125, &["command"]);
    w.cata(&["run", "--rm", "-w", "relative", "silent", "/bin/true"]).fails(125, &["relative"]);
    nothing_was_made(w);
}
