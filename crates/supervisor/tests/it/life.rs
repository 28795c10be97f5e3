//! Start, stop, restart, health, exec: what a user does.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cata_sandbox::LaunchError;
use cata_sandbox::client::ClientError;
use cata_sandbox::health::HealthStatus;
use cata_sandbox::launch::{Go, OnUnhealthy, RestartPolicy, Undo};
use cata_sandbox::protocol::{FailureKind, Streams, Until};
use cata_sandbox::status::{self, StatusKind};

use crate::world::{SOON, World, exec, probe, read_all, wait_for};

#[test]
fn process_runs_ends_and_is_recorded() {
    let mut world = World::new("echo out; echo err >&2; exit 7");
    let marker = world.undo_marker();
    let mut running = world.start();
    assert!(running.pid > 0);
    let ended = running.client.wait(Until::Removed, Some(SOON)).expect("ended");
    assert_eq!(ended.exit_code, 7);
    world.until_left();
    let exit = world.exit();
    assert_eq!((exit.status, exit.exit_code, exit.pid), (StatusKind::Exited, 7, 0));
    assert!(exit.started_at.expect("started") < exit.finished_at.expect("finished"));
    assert_eq!(status::read(world.state()).expect("live"), exit);
    let log = String::from_utf8(world.log()).expect("text");
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    assert!(!marker.exists());
    assert!(!world.state().join("socket").exists() && !world.state().join("undo.json").exists());
    assert!(matches!(cata_sandbox::client::Client::connect(world.state()), Err(ClientError::NotRunning(_))));
}

#[test]
fn wait_after_the_end_is_answered_by_the_farewell() {
    let world = World::new("exit 3");
    let mut running = world.start();
    world.until_left();
    assert_eq!(running.client.wait(Until::NotRunning, Some(SOON)).expect("farewell").exit_code, 3);
}

#[test]
fn missing_program_is_127_and_leaves_nothing() {
    let mut world = World::new("");
    let marker = world.undo_marker();
    world.launch.plan.process.argv = vec!["/no/such/program".to_owned()];
    let go_marker = world.path("go-marker");
    std::fs::write(&go_marker, "x").expect("write");
    let go = Go { undo: vec![Undo::Unlink(go_marker.clone())], ..Go::default() };
    let error = world.pending().go(go, Vec::new(), None).expect_err("no such program");
    assert_eq!(error.exit_code(), 127);
    assert!(
        matches!(&error, LaunchError::Failed(f) if f.kind == FailureKind::Start && f.message.contains("/no/such"))
    );
    world.until_left();
    assert!(!marker.exists() && !go_marker.exists());
    let exit = world.exit();
    assert_eq!((exit.status, exit.exit_code), (StatusKind::Created, 127));
    assert!(exit.error.is_some());
}

#[test]
fn stop_is_polite_and_tells_the_exit_code() {
    let world = World::new("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    world.start();
    // Until the shell has installed its trap, the kernel drops the signal.
    world.until_said(b"ready\n");
    let (code, ignored) = world.client().stop(None, None, Some(SOON)).expect("stopped");
    assert_eq!((code, ignored), (5, false));
    let exit = world.exit();
    assert!(exit.stopped_by_user);
}

#[test]
fn stop_of_a_process_that_ignores_it_ends_early_and_says_so() {
    let mut world = World::new("while :; do sleep 0.05; done");
    // Far longer than this test waits.
    world.launch.stop_timeout = Some(SOON * 10);
    world.start();
    let (code, ignored) = world.client().stop(None, None, Some(SOON)).expect("stopped");
    assert_eq!((code, ignored), (137, true));
}

#[test]
fn stop_of_a_process_that_traps_and_stays_ends_at_the_deadline() {
    let mut world = World::new("trap : TERM; echo ready; while :; do sleep 0.05; done");
    world.launch.restart = RestartPolicy::Always;
    // The one second that is asked for counts, not this.
    world.launch.stop_timeout = Some(SOON * 10);
    world.start();
    world.until_said(b"ready\n");
    let start = Instant::now();
    let (code, ignored) = world.client().stop(None, Some(1), Some(SOON)).expect("stopped");
    assert_eq!((code, ignored), (137, false));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    world.until_left();
    assert_eq!(world.exit().status, StatusKind::Exited);
}

#[test]
fn policy_restarts_with_back_off_and_gives_up() {
    let mut world = World::new("echo run; exit 1");
    world.launch.restart = RestartPolicy::OnFailure { max: Some(2) };
    let start = Instant::now();
    let mut running = world.start();
    let ended = running.client.wait(Until::NotRunning, Some(SOON)).expect("ended");
    assert_eq!(ended.exit_code, 1);
    // 100 ms and 200 ms lie between three runs.
    assert!(start.elapsed() >= Duration::from_millis(300));
    world.until_left();
    assert_eq!(world.exit().restart_count, 2);
    assert_eq!(world.log(), b"run\nrun\nrun\n");
}

#[test]
fn manual_stop_wins_over_the_policy_while_backing_off() {
    let mut world = World::new("exit 1");
    world.launch.restart = RestartPolicy::Always;
    world.start();
    world.until("restarting a few times", |s| s.status == StatusKind::Restarting && s.restart_count >= 3);
    let (code, _) = world.client().stop(None, None, Some(SOON)).expect("stopped");
    assert_eq!(code, 1);
    world.until_left();
    assert_eq!(world.exit().status, StatusKind::Exited);
}

#[test]
fn restart_makes_a_new_process() {
    let world = World::new("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let running = world.start();
    world.until_said(b"ready\n");
    let pid = world.client().restart(None, Some(SOON)).expect("restarted");
    assert_ne!(pid, running.pid);
    let status = world.until_kind(StatusKind::Running);
    assert_eq!((status.pid, status.restart_count), (pid, 0));
    world.client().kill(9).expect("killed");
    world.until_left();
    assert_eq!(world.exit().exit_code, 137);
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    let world = World::new("while :; do echo tick; sleep 0.02; done");
    if world.launch.plan.cgroup.is_none() {
        eprintln!("skipped: no cgroup");
        return;
    }
    world.start();
    let mut client = world.client();
    wait_for("ticks", || !world.log().is_empty());
    client.pause().expect("paused");
    assert_eq!(world.until_kind(StatusKind::Paused).status, StatusKind::Paused);
    assert!(matches!(client.pause(), Err(ClientError::Failed(f)) if f.kind == FailureKind::State));
    let frozen = world.until_still();
    client.unpause().expect("thawed");
    wait_for("ticks again", || world.log().len() > frozen);
    client.pause().expect("paused");
    let (code, _) = client.stop(None, Some(1), None).expect("stop ends a paused container too");
    assert_eq!(code, 137);
}

#[test]
fn exec_passes_streams_and_exit_code() {
    let world = World::new("sleep 1000");
    world.start();
    let mut client = world.client();
    let (stdout, theirs) = rustix::pipe::pipe().expect("pipe");
    let streams = Streams { stdin: false, stdout: true, stderr: false };
    let started = client.exec(exec("a", "echo hello; exit 9", streams), &[theirs.as_fd()]).expect("started");
    drop(theirs);
    assert!(started.pid > 0);
    assert_eq!(read_all(Some(stdout)), b"hello\n");
    assert_eq!(client.finish_exec(started.number, Some(SOON)).expect("ended"), 9);
    assert_eq!(client.inspect_exec("a").expect("known"), (started.pid, Some(9)));
    assert!(
        matches!(client.inspect_exec("b"), Err(ClientError::Failed(f)) if f.kind == FailureKind::NotFound)
    );
    let mut missing = exec("c", "", Streams::default());
    missing.request.argv = vec!["/nowhere".to_owned()];
    match client.exec(missing, &[]) {
        Err(ClientError::Failed(failure)) => assert_eq!(failure.exit_code, 127),
        other => panic!("{other:?}"),
    }
    // Detached: nobody waits, and it ends with the container.
    let mut detached = exec("d", "sleep 1000", Streams::default());
    detached.wait = false;
    let pid = client.exec(detached, &[]).expect("started").pid;
    client.stop(Some(9), Some(0), None).expect("stopped");
    wait_for("the session is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn health_becomes_healthy_then_unhealthy_and_restarts() {
    let mut world = World::new("sleep 1000");
    let flag = world.path("root/tmp/ok");
    std::fs::write(&flag, "").expect("write");
    let script = "echo looked; test -e /tmp/ok";
    let mut health = probe(&["/bin/sh", "-c", script]);
    health.on_unhealthy = OnUnhealthy::Restart;
    world.launch.health = Some(health);
    let running = world.start();
    let is = |wanted| move |s: &status::Status| s.health.as_ref().is_some_and(|h| h.status == wanted);
    let status = world.until("healthy", is(HealthStatus::Healthy));
    let report = status.health.expect("report");
    assert_eq!(report.log.last().map(|p| (p.exit_code, p.output.as_str())), Some((0, "looked\n")));
    std::fs::remove_file(&flag).expect("remove");
    let status = world.until("restarted", |s| s.pid != 0 && s.pid != running.pid);
    assert_eq!(status.restart_count, 0);
}

#[test]
fn probe_that_hangs_is_killed_and_counts() {
    let mut world = World::new("sleep 1000");
    let mut health = probe(&["/bin/sleep", "500"]);
    health.timeout = Duration::from_millis(100);
    world.launch.health = Some(health);
    world.start();
    let status =
        world.until("unhealthy", |s| s.health.as_ref().is_some_and(|h| h.status == HealthStatus::Unhealthy));
    let report = status.health.expect("report");
    assert!(report.failing_streak >= 2);
    assert!(report.log[0].exit_code == -1 && report.log[0].output.contains("exceeded timeout"), "{report:?}");
}

#[test]
fn timeout_kills_what_the_probe_has_started_too() {
    let mut world = World::new("sleep 1000");
    // A number that no other process of this machine sleeps for.
    let span = format!("{}", 7_000_000 + std::process::id());
    let mut health = probe(&["/bin/sh", "-c", &format!("sleep {span} & sleep {span}; true")]);
    health.timeout = Duration::from_millis(50);
    health.interval = Duration::from_millis(50);
    world.launch.health = Some(health);
    world.start();
    world.until("five failures", |s| s.health.as_ref().is_some_and(|h| h.failing_streak >= 5));
    let is_one = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == span.as_bytes()) && line.starts_with(b"sleep")
    };
    // The probe that runs now has two of them; those of the last one may still be dying.
    wait_for("no more than two sleep", || {
        std::fs::read_dir("/proc").expect("proc").flatten().filter(is_one).count() <= 2
    });
}

#[test]
fn policy_gives_up_when_the_program_has_vanished() {
    let mut world = World::new("");
    let program = world.path("root/bin/once");
    std::fs::write(&program, "#!/bin/sh\n/bin/busybox rm /bin/once\nexit 3\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("executable");
    world.launch.plan.process.argv = vec!["/bin/once".to_owned()];
    world.launch.restart = RestartPolicy::Always;
    let mut running = world.start();
    let ended = running.client.wait(Until::NotRunning, Some(SOON)).expect("ended");
    assert_eq!(ended.exit_code, 127);
    let exit = world.exit();
    assert_eq!((exit.status, exit.exit_code, exit.restart_count), (StatusKind::Exited, 127, 1));
    assert!(exit.error.is_some_and(|error| error.contains("/bin/once")));
    world.until_left();
}

#[test]
fn restart_that_cannot_start_says_why() {
    let world = World::new("sleep 1000");
    world.start();
    std::fs::remove_file(world.path("root/bin/sh")).expect("remove");
    let error = world.client().restart(Some(0), Some(SOON)).expect_err("no shell");
    let ClientError::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.exit_code == 127 && failure.message.contains("/bin/sh"), "{failure:?}");
    world.until_left();
    assert_eq!(world.exit().exit_code, 127);
}

#[test]
fn auto_remove_leaves_no_trace() {
    let mut world = World::new("exit 0");
    world.launch.auto_remove = true;
    let away = world.path("away");
    world.launch.undo = vec![Undo::Rename(world.launch.container_dir.clone(), away.clone())];
    world.launch.undo_late = vec![Undo::RemoveTree(away.clone())];
    let mut running = world.start();
    running.client.wait(Until::Removed, Some(SOON)).expect("ended");
    assert!(!world.state().exists() && !away.exists() && !world.launch.container_dir.exists());
}

#[test]
fn victim_of_the_memory_limit_is_named() {
    let mut world = World::new("x=a; while :; do x=$x$x; done");
    let Some(layout) = cata_runtime::cgroup::Layout::detect().ok() else {
        eprintln!("skipped: no cgroup");
        return;
    };
    let mut memory = cata_spec::runtime::LinuxMemory::default();
    memory.set_limit(Some(16 << 20));
    let mut resources = cata_spec::runtime::LinuxResources::default();
    resources.set_memory(Some(memory));
    let path = world.cgroup_path();
    world.launch.plan.cgroup =
        Some(cata_runtime::cgroup::plan(Some(&resources), &path, &layout).expect("a plan"));
    let mut running = world.start();
    let ended = running.client.wait(Until::NotRunning, Some(SOON)).expect("ended");
    assert!(ended.oom_killed && ended.exit_code == 137, "{ended:?}");
    let exit = world.exit();
    assert!(exit.oom_killed);
    assert_eq!(exit.memory_limit, Some(16 << 20));
    assert!(exit.memory_peak.is_some_and(|peak| peak > 8 << 20));
}
