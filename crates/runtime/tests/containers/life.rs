//! Codes, messages, users, directories, init.

use std::os::fd::AsFd as _;
use std::time::Duration;

use cata_runtime::plan::Options;
use cata_runtime::user::UserSpec;
use cata_runtime::{Handles, SpawnError, spawn};
use serde_json::json;

use crate::Case;
use crate::world::{World, spec};

pub(crate) const CASES: &[Case] = &[
    ("exit_code_is_the_programs", exit_code),
    ("bad_entrypoint_is_told_in_dockers_words", bad_entrypoints),
    ("cwd_is_made", cwd),
    ("user_is_looked_up_inside", users),
    ("environment_gets_home", home),
    ("init_reaps_and_hands_signals_on", init),
    ("init_tells_a_bad_entrypoint", init_bad_entrypoint),
    ("failed_start_leaves_no_child", nothing_left),
    ("dies_with_its_supervisor", death),
    ("network_namespace_by_descriptor", network),
];

fn exit_code(world: &World) {
    assert_eq!(world.sh("exit 7").code, 7);
    assert_eq!(world.sh("exit 0").code, 0);
    assert_eq!(world.sh("kill -9 $$").code, 0, "pid 1 is immune to itself");
    let outcome = world.sh("echo $$; hostname; umask");
    assert_eq!(outcome.output, "1\ninside\n0022");
}

fn bad_entrypoints(world: &World) {
    let expected = [
        ("foo", 127, "exec: \"foo\": executable file not found in $PATH"),
        ("noexec", 127, "exec: \"noexec\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/bin/noexec", 126, "exec: \"/bin/noexec\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("/bin/garbage", 126, "exec: \"/bin/garbage\": exec format error"),
        (
            "/bin/nointerp",
            127,
            "exec: \"/bin/nointerp\": no such file or directory (its interpreter is missing)",
        ),
    ];
    for (program, code, message) in expected {
        let error = world.try_run(&world.plan(&spec(&[program]))).expect_err(program);
        assert_eq!(error.to_string(), message);
        assert_eq!(error.exit_code(), code, "{program}");
    }
}

fn cwd(world: &World) {
    let mut document = spec(&["pwd"]);
    document["process"]["cwd"] = json!("/srv/deep/er");
    document["root"]["readonly"] = json!(true);
    assert_eq!(world.run(&world.plan(&document)).output, "/srv/deep/er");
    for bad in ["/etc/passwd", "/proc/self/fd/9"] {
        document["process"]["cwd"] = json!(bad);
        let error = world.try_run(&world.plan(&document)).expect_err(bad);
        assert_eq!(error.exit_code(), 125);
        assert!(error.to_string().contains(bad), "{error}");
    }
}

fn named(user: &str) -> UserSpec {
    UserSpec::Named { user: user.into(), groups: vec!["ssl-cert".into()] }
}

fn users(world: &World) {
    let document = spec(&["sh", "-c", "id -u; id -g; id -G; echo $HOME; grep ^Cap[PE] /proc/self/status"]);
    let options = Options { user: Some(named("postgres")), ..world.options() };
    let output = world.run(&world.plan_with(&document, &options)).output;
    let none = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000";
    assert_eq!(output, format!("999\n999\n999 101\n/var/lib/postgresql\n{none}"));
    let options = Options { user: Some(named("nobody-here")), ..world.options() };
    let error = world.try_run(&world.plan_with(&document, &options)).expect_err("no such user");
    assert!(matches!(error, SpawnError::User(_)));
    assert_eq!(error.exit_code(), 125);
    // A user's own output pipe can be opened again by name.
    let document = spec(&["sh", "-c", "echo again > /proc/self/fd/1"]);
    let options = Options { user: Some(named("postgres")), ..world.options() };
    assert_eq!(world.run(&world.plan_with(&document, &options)).output, "again");
}

fn home(world: &World) {
    assert_eq!(world.sh("echo $HOME").output, "/root");
}

fn init(world: &World) {
    let body =
        "trap 'echo got; exit 3' TERM; (sleep 0.01 &); sleep 0.1; kill -TERM 1; sleep 60 & wait; exit 9";
    let document = spec(&["sh", "-c", &format!("echo $$; cat /proc/1/comm; {body}")]);
    let options = Options { init: true, ..world.options() };
    let outcome = world.run(&world.plan_with(&document, &options));
    assert_eq!(outcome.output, "2\ncata-init\ngot");
    assert_eq!(outcome.code, 3);
    // The reaper is a copy of the supervisor: nothing of that may be reached from inside.
    let document = spec(&["sh", "-c", "readlink /proc/1/exe; ls /proc/1/fd 2>/dev/null | wc -l"]);
    assert_eq!(world.run(&world.plan_with(&document, &options)).output, "0");
    let document = spec(&["sh", "-c", "cat /proc/1/cmdline"]);
    let shown = world.run(&world.plan_with(&document, &options)).output;
    assert_eq!(shown.trim_end_matches('\0'), "cata-init");
    // Orphans are reaped; for the moment that it takes they are there.
    let orphans = "(sh -c 'sleep 0.05 & exit' &); sleep 0.3; i=0; \
        while ps -o stat | grep -q Z && [ $i -lt 300 ]; do i=$((i+1)); sleep 0.1; done; ps -o stat | grep -c Z";
    let options = Options { init: true, ..world.options() };
    assert_eq!(world.run(&world.plan_with(&spec(&["sh", "-c", orphans]), &options)).output, "0");
}

fn init_bad_entrypoint(world: &World) {
    let options = Options { init: true, ..world.options() };
    let error = world.try_run(&world.plan_with(&spec(&["/bin/garbage"]), &options)).expect_err("garbage");
    assert_eq!(error.exit_code(), 126);
}

fn nothing_left(world: &World) {
    world.try_run(&world.plan(&spec(&["foo"]))).expect_err("no such program");
    let children = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(children.expect_err("no child"), rustix::io::Errno::CHILD);
}

/// A supervisor is killed: its container goes too.
fn death(world: &World) {
    let plan = world.plan(&spec(&["sleep", "60"]));
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    let proof = cata_sys::clone::SoleThread::check().expect("one thread");
    let Some(supervisor) = cata_sys::clone::fork(proof).expect("a process") else {
        drop(read);
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let _running = spawn(&plan, &Handles::new(null.as_fd(), write.as_fd(), write.as_fd()));
        std::thread::sleep(Duration::from_secs(60));
        cata_sys::clone::exit(0);
    };
    drop(write);
    std::thread::sleep(Duration::from_millis(100));
    cata_sys::disposition::send(supervisor, 9).expect("it runs");
    // The container holds the pipe for as long as it lives.
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit)), Ok(1), "it has not died");
    rustix::process::waitpid(Some(supervisor), rustix::process::WaitOptions::empty()).expect("a child");
}

fn network(world: &World) {
    let holder = crate::world::Running::start(&world.plan(&spec(&["sleep", "60"])));
    let path = format!("/proc/{}/ns/net", holder.pid());
    let theirs = std::fs::read_link(&path).expect("a namespace").display().to_string();
    let namespace = std::fs::File::open(&path).expect("a namespace");
    let plan = world.plan(&spec(&["readlink", "/proc/self/ns/net"]));
    let outcome = crate::world::capture(|handles| spawn(&plan, &handles.clone().network(namespace.as_fd())));
    assert_eq!(outcome.expect("a container").output, theirs);
    // By paths: everything of another container.
    let mut document =
        spec(&["sh", "-c", "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; ps -o args"]);
    document.as_object_mut().expect("a document").remove("hostname");
    let ns = |kind: &str| format!("/proc/{}/ns/{kind}", holder.pid());
    document["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "network", "path": ns("net")}, {"type": "uts", "path": ns("uts")},
        {"type": "ipc", "path": ns("ipc")}, {"type": "pid", "path": ns("pid")},
    ]);
    let output = world.run(&world.plan(&document)).output;
    for kind in ["ipc", "uts"] {
        let theirs = std::fs::read_link(ns(kind)).expect("a namespace").display().to_string();
        assert!(output.contains(&theirs), "{output}");
    }
    assert!(output.contains("sleep 60"), "{output}");
}
