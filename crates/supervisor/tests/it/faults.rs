//! kill -9 of everybody, full disks, hostile clients.

use std::os::fd::AsFd as _;
use std::time::Duration;

use cata_sandbox::client::{Client, ClientError};
use cata_sandbox::launch::{Go, LogPlan, Undo};
use cata_sandbox::protocol::{Request, Streams, Until};
use cata_sandbox::recover::{Recovered, recover};
use cata_sandbox::status::{self, StatusKind};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};

use crate::world::{SOON, World, wait_for};

fn kill9(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
}

fn gone(pid: i32) -> bool {
    // A zombie of ours counts as gone.
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.is_empty() || text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn killed_supervisor_takes_its_container_along_and_is_recovered() {
    let mut world = World::new("sleep 1000");
    let marker = world.undo_marker();
    let running = world.start();
    let status = world.status();
    assert!(status::alive(world.state()));
    kill9(status.supervisor_pid);
    wait_for("container is gone", || gone(running.pid));
    let _ = waitpid(Pid::from_raw(status.supervisor_pid), WaitOptions::empty());
    assert!(!status::alive(world.state()));
    assert_eq!(world.status().status, StatusKind::Running);
    assert!(marker.exists());
    match recover(world.state(), &world.launch.container_dir).expect("recovered") {
        Recovered::Undone(failed) => assert!(failed.is_empty(), "{failed:?}"),
        other => panic!("{other:?}"),
    }
    assert!(!marker.exists());
    assert_eq!((world.exit().status, world.exit().exit_code), (StatusKind::Exited, 137));
    let again = recover(world.state(), &world.launch.container_dir).expect("again");
    assert!(matches!(again, Recovered::Nothing));
    // And it can be started again in the same place.
    let mut running = world.start();
    running.client.stop(Some(9), Some(0), None).expect("stopped");
}

#[test]
fn supervisor_without_descriptors_hangs_up_and_stays_calm() {
    let world = World::new("sleep 1000");
    world.start();
    let pid = Pid::from_raw(world.status().supervisor_pid);
    let process = std::path::PathBuf::from(format!("/proc/{}", world.status().supervisor_pid));
    let open = std::fs::read_dir(process.join("fd")).expect("descriptors").flatten();
    let highest = open.filter_map(|fd| fd.file_name().to_str()?.parse::<u64>().ok()).max().expect("some");
    let before = rustix::process::getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(highest + 1), maximum: before.maximum };
    prlimit(pid, Resource::Nofile, few).expect("limited");
    let mut held = Vec::new();
    let mut refused = 0;
    while refused < 3 {
        assert!(held.len() < 100, "never out of descriptors");
        let mut client = Client::connect(world.state()).expect("the queue takes it");
        match client.wait(Until::NotRunning, Some(Duration::from_millis(100))) {
            // There was a free number left.
            Err(ClientError::Timeout(_)) => held.push(client),
            Err(ClientError::Gone | ClientError::Io(_)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    let ticks = || {
        let text = std::fs::read_to_string(process.join("stat")).expect("stat");
        let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system")
    };
    let then = ticks();
    std::thread::sleep(Duration::from_millis(500));
    // Of fifty.
    assert!(ticks() - then < 10, "it spins");
    prlimit(pid, Resource::Nofile, before).expect("as before");
    world.client().stop(Some(9), Some(0), Some(SOON)).expect("stopped");
}

#[test]
fn recover_leaves_a_living_container_alone() {
    let world = World::new("sleep 1000");
    world.start();
    let seen = recover(world.state(), &world.launch.container_dir).expect("looked");
    assert!(matches!(seen, Recovered::Alive));
    assert_eq!(world.status().status, StatusKind::Running);
}

#[test]
fn engine_that_leaves_before_go_leaves_nothing() {
    let mut world = World::new("sleep 1000");
    let marker = world.undo_marker();
    let pending = world.pending();
    wait_for("supervisor is up", || status::alive(world.state()));
    drop(pending);
    world.until_left();
    assert!(!marker.exists());
}

#[test]
fn second_supervisor_is_refused() {
    let world = World::new("sleep 1000");
    let running = world.start();
    let error = world.try_start(None).expect_err("owned");
    assert!(error.to_string().contains("another supervisor"), "{error}");
    assert!(!gone(running.pid));
}

#[test]
fn hostile_clients_do_not_stop_the_loop() {
    let world = World::new("sleep 1000");
    world.start();
    // Rubbish, floods that are never read, and more connections than are served.
    let rubbish = cata_sandbox::client::connect_socket(world.state()).expect("connected");
    cata_sys::message::send(rubbish.as_fd(), b"{\"number\":", &[]).expect("sent");
    let mut flood = world.client();
    for _ in 0..200 {
        let Ok(_) = flood.send(Request::ExecInspect { id: "x".repeat(1000) }, &[]) else { break };
    }
    let many: Vec<_> =
        (0..300).filter_map(|_| cata_sandbox::client::connect_socket(world.state()).ok()).collect();
    drop(many);
    drop(flood);
    wait_for("a decent client is served", || {
        Client::connect(world.state())
            .is_ok_and(|mut c| c.inspect_exec("none").is_err_and(|e| matches!(e, ClientError::Failed(_))))
    });
    let (code, _) = world.client().stop(Some(9), Some(0), None).expect("stopped");
    assert_eq!(code, 137);
}

#[test]
fn waiting_client_that_is_gone_does_no_harm() {
    let world = World::new("sleep 1000");
    world.start();
    let mut client = world.client();
    client.send(Request::Wait { until: Until::NotRunning }, &[]).expect("sent");
    client.send(Request::Attach { streams: Streams::ALL }, &[]).expect("sent");
    drop(client);
    let (code, _) = world.client().stop(Some(9), Some(0), None).expect("stopped");
    assert_eq!(code, 137);
}

#[test]
fn full_disk_neither_blocks_nor_kills() {
    // A mount namespace of its own, so that the tiny file system is nobody else's.
    let status = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "faults::full_disk_inside", "--test-threads=1"])
        .env("CATA_TEST_PRIVATE_MOUNTS", "1")
        .status()
        .expect("run again");
    assert!(status.success());
}

/// The inside of [`full_disk_neither_blocks_nor_kills`]; nothing by itself.
#[test]
fn full_disk_inside() {
    if std::env::var_os("CATA_TEST_PRIVATE_MOUNTS").is_none() {
        return;
    }
    cata_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).expect("unshare");
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .expect("private");
    let mut world =
        World::new("i=0; while [ $i -lt 3000 ]; do echo line number $i; i=$((i+1)); done; exit 4");
    rustix::mount::mount(
        "none",
        &world.launch.container_dir,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=32k",
    )
    .expect("tmpfs");
    world.launch.log = LogPlan::JsonFile { max_size: 1 << 20, max_file: 2 };
    let mut running = world.start();
    let ended = running.client.wait(Until::NotRunning, Some(SOON)).expect("ended");
    assert_eq!(ended.exit_code, 4);
    world.until_left();
    let lost = world.status().log_lost.expect("counted");
    assert!(lost.lines > 100 && lost.error.contains("No space"), "{lost:?}");
    // What is there is whole.
    let log = String::from_utf8(world.log()).expect("text");
    assert!(log.starts_with("line number 0\n") && log.ends_with('\n'));
}

#[test]
fn undo_that_fails_is_told_and_does_not_stop_the_rest() {
    let mut world = World::new("exit 0");
    let full = world.path("full");
    std::fs::create_dir_all(full.join("x")).expect("mkdir");
    // A directory cannot be unlinked.
    world.launch.undo = vec![Undo::Unlink(full)];
    let marker = world.undo_marker();
    let mut running = world.pending().go(Go::default(), Vec::new(), None).expect("started");
    running.client.wait(Until::Removed, Some(SOON)).expect("ended");
    assert!(!marker.exists());
    let said = std::fs::read_to_string(world.launch.container_dir.join("supervisor.log")).expect("said");
    assert!(said.contains("cannot unlink"), "{said}");
}

#[test]
fn cgroup_that_cannot_be_made_is_told_and_everything_undone() {
    let mut world = World::new("exit 0");
    let marker = world.undo_marker();
    let Some(cgroup) = &mut world.launch.plan.cgroup else {
        eprintln!("skipped: no cgroup");
        return;
    };
    cgroup.directories[0].mount = "/proc/nowhere".into();
    let go_marker = world.path("go-marker");
    std::fs::write(&go_marker, "x").expect("write");
    let go = Go { undo: vec![Undo::Unlink(go_marker.clone())], ..Go::default() };
    let error = world.pending().go(go, Vec::new(), None).expect_err("no such hierarchy");
    assert_eq!(error.exit_code(), 125);
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    world.until_left();
    assert!(!marker.exists() && !go_marker.exists() && !world.state().join("undo.json").exists());
}
