//! Documents, sockets and containers that mean harm to `cata-runtime`: it refuses or does what was asked, and neither
//! hangs nor is led anywhere.

use std::fs;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};

use cata_tests::bundle::Bundle;
use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::oci_confinement::rounds;
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(terminals_are_handed_over),
        test!(documents_that_mean_harm),
        test!(entering_while_it_exchanges_proc),
        test!(further_processes_as_asked),
    ]
}

/// What came over a connection, and with it.
fn receive(connection: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 256];
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(connection, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    (bytes[..got].to_vec(), descriptors)
}

/// The container's terminal is one descriptor, and only to a socket that somebody listens at.
fn terminals_are_handed_over(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.spec["process"]["terminal"] = json!(true);
    b.script("tty; sleep 600");
    let scratch = w.scratch();
    let socket = scratch.join("console");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let accept = || {
        let (connection, _) = eventually("a connection", PATIENCE, || listener.accept().ok());
        connection.set_nonblocking(false).unwrap();
        connection
    };
    let dir = b.dir.to_str().unwrap().to_owned();
    let create = |path: &std::path::Path| {
        b.command(["create", "--bundle", &dir, "--console-socket"]).arg(path).arg("c").done()
    };
    // By a name that is a link, and longer than an address.
    let deep = scratch.join("d".repeat(100));
    fs::create_dir(&deep).unwrap();
    symlink(&socket, deep.join("link")).unwrap();
    let _ = create(&deep.join("link")).ok();
    let (_, mut masters) = receive(&accept());
    let mut master = fs::File::from(masters.pop().expect("the terminal"));
    assert!(masters.is_empty(), "one descriptor, and nothing of the runtime's");
    let _ = b.runtime(["start", "c"]).ok();
    let mut said = Vec::new();
    eventually("its word", PATIENCE, || {
        let mut bytes = [0; 64];
        let got = master.read(&mut bytes).ok()?;
        said.extend_from_slice(&bytes[..got]);
        said.starts_with(b"/dev/pts/0\r\n").then_some(())
    });
    let exec =
        b.command(["exec", "--detach", "--tty", "--console-socket"]).arg(&socket).args(["c", "sleep", "600"]);
    let _ = exec.done().ok();
    assert_eq!(receive(&accept()).1.len(), 1);
    let _ = b.runtime(["delete", "-f", "c"]).ok();

    // Whoever listened is gone, never listened, or is not there at all.
    drop(listener);
    let file = w.file("file", "a file");
    symlink(scratch.join("nowhere"), scratch.join("dangling")).unwrap();
    let pipe = scratch.join("pipe");
    let _ = Run::new("mkfifo").arg(&pipe).done().ok();
    for path in [socket, file, scratch.join("dangling"), pipe, scratch.clone()] {
        create(&path).fails(1, &[path.to_str().unwrap()]);
        assert!(!b.state_dir("c").exists(), "{}: nothing may remain", path.display());
    }
    b.spec["process"]["terminal"] = json!(false);
    let refused = b.command(["create", "--bundle", &dir, "--console-socket"]).arg(&deep).arg("c").done();
    refused.fails(1, &["no terminal"]);
}

fn documents_that_mean_harm(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("true");
    let _ = b.command(["features"]).done().ok();
    let config = b.dir.join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    let run = |text: &str| {
        fs::write(&config, text).unwrap();
        Run::new(cata_tests::command::runtime_binary())
            .arg("--root")
            .arg(b.state_dir(""))
            .args(["run", "--bundle"])
            .arg(&b.dir)
            .arg("c")
            .done()
    };
    let deep = format!("{{\"annotations\":{}1{}}}", "{\"a\":".repeat(200_000), "}".repeat(200_000));
    let long = good
        .replace("\"hostname\"", &format!("\"x\": {}1{}, \"hostname\"", "[".repeat(5000), "]".repeat(5000)));
    for text in
        ["", "[]", "null", "{}", "{\"ociVersion\":\"1.0.2\"}", "\u{0}", &good[..good.len() / 2], &deep]
    {
        let done = run(text);
        assert_eq!(done.code(), 1, "{done}");
        let named =
            ["config.json", "specification", "ociVersion"].iter().any(|word| done.stderr.contains(word));
        assert!(named, "{done}");
        assert!(!b.state_dir("c").exists(), "nothing may remain");
    }
    // What nobody knows is passed over, however deep.
    let _ = run(&long).ok();
    // Annotations are text: however long, and whatever other runtimes take them for.
    let mut spec: Value = serde_json::from_str(&good).unwrap();
    spec["annotations"] = json!({
        "a\nb": "c\n\u{1b}[31md", "": "", "big": "x".repeat(4 << 20),
        "run.oci.hooks.stderr": "/evil", "run.oci.handler": "krun", "run.oci.keep_original_groups": "1",
        "run.oci.mount_context_type": "x", "org.systemd.property.ExecStart": "'/evil'",
        "org.criu.config": "/evil", "io.kubernetes.cri-o.userns-mode": "auto",
    });
    let _ = run(&spec.to_string()).ok();
    let log = w.scratch().join("log");
    for (annotation, value, path) in [
        ("Bad Name\n", "'x'", ""),
        ("PIDs", "uint32 1", ""),
        ("Slice", "'-.slice'", ""),
        ("A", "'x'", "../../..:a\nb:c"),
    ] {
        spec["annotations"] = json!({format!("org.systemd.property.{annotation}"): value});
        spec["linux"]["cgroupsPath"] = json!(path);
        fs::write(&config, spec.to_string()).unwrap();
        let systemd = Run::new(cata_tests::command::runtime_binary()).arg("--root").arg(b.state_dir(""));
        let systemd = systemd.args(["--systemd-cgroup", "--log-format", "json", "--log"]).arg(&log);
        systemd.args(["create", "--bundle"]).arg(&b.dir).arg("c").done().fails(1, &["systemd cgroup"]);
    }
    // One line of the log is one document, whatever is in it.
    for line in fs::read_to_string(&log).unwrap().lines() {
        let _: Value = serde_json::from_str(line).unwrap();
    }
    assert!(!b.state_dir("c").exists());
}

/// A container that may mount shows and takes away a `/proc` and a `/dev/pts` of its own while others enter it: they
/// are as confined as was asked, and nothing is written where it wants it.
fn entering_while_it_exchanges_proc(w: &World) {
    let mut b = Bundle::new(w, "b");
    let features = b.runtime(["features"]).json();
    let all = features["linux"]["capabilities"].clone();
    b.spec["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    b.spec["process"]["noNewPrivileges"] = json!(false);
    let real = json!({"destination": "/real", "type": "proc", "source": "proc"});
    b.spec["mounts"].as_array_mut().unwrap().push(real);
    let files = [
        "self/attr/exec",
        "self/attr/current",
        "thread-self/attr/exec",
        "self/oom_score_adj",
        "1/oom_score_adj",
    ];
    for file in files {
        let path = b.rootfs().join("fake").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "untouched").unwrap();
    }
    symlink("/", b.rootfs().join("fake/self/cwd")).unwrap();
    fs::create_dir_all(b.rootfs().join("pts")).unwrap();
    symlink("/fake/self/attr/exec", b.rootfs().join("pts/ptmx")).unwrap();
    b.script(
        "while :; do mount --bind /fake /proc && mount --bind /pts /dev/pts && echo >> /raced; \
         umount -l /dev/pts; umount -l /proc; done",
    );
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("c").done().ok();
    let raced = || fs::metadata(b.rootfs().join("raced")).map_or(0, |file| file.len());
    eventually("the adversary", PATIENCE, || (raced() > 1).then_some(()));
    let process = w.file("process.json", json!({
        "args": ["grep", "-E", "CapBnd|NoNewPrivs|Seccomp:", "/real/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true, "oomScoreAdj": 500,
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    }).to_string());
    let (mut entered, mut shown) = (0, 0);
    rounds(|| {
        let done = b.command(["exec", "--process"]).arg(&process).arg("c").done();
        if done.code() == 0 {
            assert!(done.stdout.contains("CapBnd:\t0000000000000020\nNoNewPrivs:\t1"), "{done}");
            entered += 1;
        }
        let done = b.runtime(["exec", "--tty", "c", "tty"]);
        if done.code() == 0 {
            assert!(["/dev/pts/", "not a tty"].iter().any(|word| done.stdout.contains(word)), "{done}");
            shown += 1;
        }
        entered > 0 && shown > 0
    });
    assert!(entered > 0 && shown > 0, "nobody entered: {entered} {shown}");
    for file in files {
        assert_eq!(fs::read_to_string(b.rootfs().join("fake").join(file)).unwrap(), "untouched", "{file}");
    }
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}

/// CPUs, labels, limits of a further process; in a paused container it waits.
fn further_processes_as_asked(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("c").done().ok();
    let exec = |process: Value| {
        let file = w.file("process.json", process.to_string());
        b.command(["exec", "--process"]).arg(&file).arg("c").done()
    };
    let mut process = json!({
        "args": ["grep", "-E", "Cpus_allowed_list|NoNewPrivs", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
        "execCPUAffinity": {"initial": "0", "final": "0"},
    });
    assert_eq!(exec(process.clone()).text(), "NoNewPrivs:\t1\nCpus_allowed_list:\t0");
    process["execCPUAffinity"]["final"] = json!("0-");
    exec(process.clone()).fails(255, &["0-"]);
    process["execCPUAffinity"] = Value::Null;
    process["apparmorProfile"] = json!("no-such-profile");
    exec(process).fails(255, &["no-such-profile"]);
    b.runtime(["exec", "--process-label", "a:b:c:d", "c", "true"]).fails(255, &["a:b:c:d"]);
    let _ = b.runtime(["pause", "c"]).ok();
    let waiting = b.command(["exec", "--ignore-paused", "c", "echo", "woken"]).start();
    let _ = b.runtime(["resume", "c"]).ok();
    assert_eq!(waiting.done(PATIENCE).text(), "woken");
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}
