//! From `create` to `rm`: states, exit codes, signals, restarts.

use std::time::{Duration, Instant};

use cata_tests::command::{PATIENCE, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(run_passes_output_and_code),
        test!(run_reads_standard_input),
        test!(run_detached_prints_the_id),
        test!(run_exit_codes_are_dockers),
        test!(run_killed_by_signal_is_128_plus_n),
        test!(run_passes_signals_on),
        test!(run_rm_removes),
        test!(run_cidfile_holds_the_id),
        test!(run_init_reaps_and_forwards),
        test!(run_environment_workdir_user_hostname),
        test!(run_entrypoint_and_command_combine),
        test!(create_then_start),
        test!(start_attached_gives_output_and_code),
        test!(stop_is_polite_then_kills),
        test!(stop_signal_is_the_containers),
        test!(kill_sends_the_signal),
        test!(restart_makes_a_new_process),
        test!(wait_prints_the_code),
        test!(rename_moves_the_name),
        test!(rm_refuses_the_running),
        test!(ids_by_prefix),
        test!(restart_policy_on_failure_counts),
        test!(restart_policy_always_until_stopped),
        test!(boot_starts_what_ran),
        test!(health_is_told),
        test!(top_shows_host_pids),
    ]
}

fn run_passes_output_and_code(w: &World) {
    let done = w.cata(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7);
    assert_eq!(done.stdout, "out\n", "{done}");
    assert_eq!(done.stderr, "err\n", "{done}");
}

fn run_reads_standard_input(w: &World) {
    let big = "0123456789abcde\n".repeat(20_000);
    let done = w.cata_run(["run", "--rm", "-i", "busybox", "md5sum"]).input(big.clone()).done();
    let expect = cata_tests::command::Run::new("md5sum").input(big).done().text();
    assert_eq!(done.text(), expect);
    // Without -i, standard input is empty.
    let done = w.cata_run(["run", "--rm", "busybox", "wc", "-c"]).input("abc").done();
    assert_eq!(done.text(), "0");
}

fn run_detached_prints_the_id(w: &World) {
    // It does not wait for the program's end, for which nobody would have the patience.
    let id = w.cata(&["run", "-d", "--name", "one", "busybox", "sleep", "600"]).ok().stdout;
    assert_eq!(id.len(), 65, "{id:?}");
    assert!(id.trim_end().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id:?}");
    assert_eq!(w.field("one", "{{.Id}}"), id.trim_end());
    assert_eq!(w.field("one", "{{.State.Status}}"), "running");
    let pid = w.field("one", "{{.State.Pid}}");
    // The kernel tells the new arguments a moment after `execve` has succeeded.
    eventually("it is what was asked for", PATIENCE, || {
        (std::fs::read(format!("/proc/{pid}/cmdline")).unwrap() == b"sleep\x00600\x00").then_some(())
    });
}

fn run_exit_codes_are_dockers(w: &World) {
    w.cata(&["run", "--rm", "--no-such-flag", "busybox"]).fails(125, &["--no-such-flag"]);
    w.cata(&["run", "--rm", "busybox", "no-such-program"]).fails(127, &["no-such-program"]);
    w.cata(&["run", "--rm", "busybox", "/etc/passwd"]).fails(126, &["/etc/passwd"]);
    w.cata(&["run", "--rm", "busybox", "/tmp"]).fails(126, &["/tmp"]);
    let _ = w.cata(&["run", "--rm", "busybox", "false"]).exits(1);
    let _ = w.cata(&["run", "--rm", "busybox", "sh", "-c", "exit 255"]).exits(255);
}

fn run_killed_by_signal_is_128_plus_n(w: &World) {
    let _ = w.cata(&["run", "--name", "kk", "busybox", "sh", "-c", "kill -9 $$; sleep 1; exit 3"]);
    // Process 1 is immune to its own SIGKILL; a child is not.
    let done = w.cata(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]);
    assert_eq!(done.code(), 137, "{done}");
    let done = w.cata(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(done.code(), 143, "{done}");
}

fn run_passes_signals_on(w: &World) {
    let script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let running = w.cata_run(["run", "--rm", "busybox", "sh", "-c", script]).start();
    eventually("the script is ready", PATIENCE, || running.stdout().contains("ready").then_some(()));
    running.signal(rustix::process::Signal::TERM);
    let done = running.done(PATIENCE).exits(9);
    assert!(done.stdout.contains("got it"), "{done}");
}

fn run_rm_removes(w: &World) {
    let _ = w.cata(&["run", "--rm", "--name", "gone", "busybox", "true"]).ok();
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // The name is free at once.
    let _ = w.cata(&["run", "--rm", "--name", "gone", "busybox", "true"]).ok();
    let _ = w.cata(&["run", "-d", "--rm", "--name", "gone", "busybox", "true"]).ok();
    eventually("it is removed", PATIENCE, || w.cata(&["ps", "-aq"]).text().is_empty().then_some(()));
}

fn run_cidfile_holds_the_id(w: &World) {
    let file = w.scratch().join("cid");
    let path = file.to_str().unwrap();
    let id = w.cata(&["run", "-d", "--cidfile", path, "busybox", "true"]).text();
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), id);
    w.cata(&["run", "--rm", "--cidfile", path, "busybox", "true"]).fails(125, &[path]);
}

fn run_init_reaps_and_forwards(w: &World) {
    // A zombie is there for the moment that the reaper takes.
    let zombies = "(sleep 0.05 &) ; sleep 0.4; i=0; \
        while ps | grep -q '[Zz]ombie\\|\\[sleep\\]'; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done";
    let _ = w.cata(&["run", "--rm", "--init", "busybox", "sh", "-c", zombies]).ok();
    let first = w.cata(&["run", "--rm", "--init", "busybox", "sh", "-c", "echo $$"]).text();
    assert_ne!(first, "1");
}

fn run_environment_workdir_user_hostname(w: &World) {
    let file = w.file("env", "# comment\nFROM_FILE=f\nPASSED\n\n");
    let done = w
        .cata_run([
            "run", "--rm", "-e", "A=1", "-e", "B=x y=z", "-e", "HOSTS", "-w", "/new/dir", "-u", "www-data",
        ])
        .args(["-h", "ship", "--env-file"])
        .arg(file)
        .args([
            "busybox",
            "sh",
            "-c",
            "echo $A:$B:$HOSTS:$FROM_FILE:$PASSED; pwd; id -u; id -g; hostname; echo $HOME",
        ])
        .env("HOSTS", "h")
        .env("PASSED", "p")
        .done();
    assert_eq!(done.lines(), ["1:x y=z:h:f:p", "/new/dir", "33", "33", "ship", "/var/www"]);
    let id = w.cata(&["run", "--rm", "-u", "1234:5678", "busybox", "id"]).text();
    assert!(id.starts_with("uid=1234 gid=5678"), "{id}");
    w.cata(&["run", "--rm", "-u", "nobody-knows", "busybox", "id"]).fails(125, &["nobody-knows"]);
}

fn run_entrypoint_and_command_combine(w: &World) {
    assert_eq!(w.cata(&["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"]).text(), "a b");
    // An entrypoint given by hand drops the image's command.
    assert_eq!(w.cata(&["run", "--rm", "--entrypoint", "echo", "busybox"]).text(), "");
}

fn create_then_start(w: &World) {
    let id = w.cata(&["create", "--name", "cc", "busybox", "sh", "-c", "echo hi; exit 3"]).text();
    assert_eq!(w.field("cc", "{{.State.Status}}"), "created");
    assert_eq!(w.cata(&["ps", "-q"]).text(), "");
    assert_eq!(w.cata(&["start", "cc"]).text(), "cc");
    assert_eq!(w.cata(&["wait", "cc"]).text(), "3");
    assert_eq!(w.field("cc", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    assert!(w.cata(&["ps", "-a", "--no-trunc"]).ok().stdout.contains(&id));
    assert_eq!(w.cata(&["logs", "cc"]).text(), "hi");
}

fn start_attached_gives_output_and_code(w: &World) {
    let _ = w.cata(&["create", "--name", "cc", "busybox", "sh", "-c", "echo hi; exit 3"]).ok();
    for _ in 0..2 {
        let done = w.cata(&["start", "-a", "cc"]).exits(3);
        assert_eq!(done.stdout, "hi\n");
    }
    let _ = w.cata(&["create", "-i", "--name", "ii", "busybox", "cat"]).ok();
    let done = w.cata_run(["start", "-ai", "ii"]).input("echoed").done();
    assert_eq!(done.text(), "echoed");
}

/// Waits until its log has this.
#[track_caller]
fn says(w: &World, container: &str, text: &str) {
    eventually(text, PATIENCE, || w.cata(&["logs", container]).stdout.contains(text).then_some(()));
}

fn stop_is_polite_then_kills(w: &World) {
    let polite = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let _ = w.cata(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", polite]).ok();
    // Process 1 that handles nothing ignores SIGTERM.
    let _ = w.cata(&["run", "-d", "--name", "deaf", "busybox", "sleep", "600"]).ok();
    says(w, "polite", "ready");
    // Politeness is waited for: the code is its own, not that of SIGKILL.
    assert_eq!(w.cata(&["stop", "-t", "50", "polite"]).text(), "polite");
    assert_eq!(w.field("polite", "{{.State.ExitCode}}"), "0");
    let started = Instant::now();
    let _ = w.cata(&["stop", "-t", "1", "deaf"]).ok();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(w.field("deaf", "{{.State.ExitCode}}"), "137");
    // Stopping what is stopped is success.
    let _ = w.cata(&["stop", "deaf"]).ok();
}

fn stop_signal_is_the_containers(w: &World) {
    let script = "trap 'echo usr1; exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let _ = w
        .cata(&["run", "-d", "--name", "ss", "--stop-signal", "SIGUSR1", "busybox", "sh", "-c", script])
        .ok();
    says(w, "ss", "ready");
    let _ = w.cata(&["stop", "-t", "50", "ss"]).ok();
    assert_eq!(w.field("ss", "{{.State.ExitCode}}"), "5");
    assert_eq!(w.cata(&["logs", "ss"]).lines(), ["ready", "usr1"]);
}

fn kill_sends_the_signal(w: &World) {
    let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let _ = w.cata(&["run", "-d", "--name", "kk", "busybox", "sh", "-c", script]).ok();
    says(w, "kk", "ready");
    let _ = w.cata(&["kill", "-s", "HUP", "kk"]).ok();
    says(w, "kk", "hup");
    assert_eq!(w.field("kk", "{{.State.Running}}"), "true");
    let _ = w.cata(&["kill", "kk"]).ok();
    assert_eq!(w.cata(&["wait", "kk"]).text(), "137");
    w.cata(&["kill", "kk"]).fails(1, &["not running"]);
    w.cata(&["kill", "-s", "NOSUCH", "kk"]).fails(1, &["NOSUCH"]);
}

fn restart_makes_a_new_process(w: &World) {
    let _ =
        w.cata(&["run", "-d", "--name", "rr", "busybox", "sh", "-c", "echo started; exec sleep 600"]).ok();
    says(w, "rr", "started");
    let before = w.field("rr", "{{.State.Pid}}");
    let _ = w.cata(&["restart", "-t", "0", "rr"]).ok();
    let after = w.field("rr", "{{.State.Pid}}");
    assert_ne!(before, after);
    assert!(after.parse::<u32>().unwrap() > 1);
    eventually("the log has both lives", PATIENCE, || {
        (w.cata(&["logs", "rr"]).text() == "started\nstarted").then_some(())
    });
}

fn wait_prints_the_code(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", "sleep 0.5; exit 4"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "bb", "busybox", "false"]).ok();
    assert_eq!(w.cata(&["wait", "aa", "bb"]).lines(), ["4", "1"]);
    w.cata(&["wait", "nobody"]).fails(1, &["nobody"]);
}

fn rename_moves_the_name(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "old", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "other", "busybox", "true"]).ok();
    let _ = w.cata(&["rename", "old", "new"]).ok();
    assert_eq!(w.field("new", "{{.Name}}"), "/new");
    w.cata(&["inspect", "old"]).fails(1, &["old"]);
    w.cata(&["rename", "new", "other"]).fails(1, &["other"]);
    let _ = w.cata(&["run", "--name", "old", "busybox", "true"]).ok();
}

fn rm_refuses_the_running(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "rr", "busybox", "sleep", "600"]).ok();
    w.cata(&["rm", "rr"]).fails(1, &["rr"]);
    assert_eq!(w.field("rr", "{{.State.Running}}"), "true");
    assert_eq!(w.cata(&["rm", "-f", "rr"]).text(), "rr");
    w.cata(&["rm", "rr"]).fails(1, &["no such container", "rr"]);
    // Docker's `rm -f` of nothing is success.
    let _ = w.cata(&["rm", "-f", "rr"]).ok();
}

fn ids_by_prefix(w: &World) {
    let id = w.cata(&["create", "busybox", "true"]).text();
    assert_eq!(w.field(&id[..12], "{{.Id}}"), id);
    assert_eq!(w.field(&id[..5], "{{.Id}}"), id);
    let short = w.cata(&["ps", "-aq"]).text();
    assert_eq!(short, id[..12]);
}

fn restart_policy_on_failure_counts(w: &World) {
    let _ = w.cata(&[
        "run",
        "-d",
        "--name",
        "rr",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 1",
    ]);
    eventually("three lives", PATIENCE, || {
        let state = w.field("rr", "{{.State.Status}} {{.RestartCount}}");
        (state == "exited 2").then_some(())
    });
    assert_eq!(w.cata(&["logs", "rr"]).lines().len(), 3);
    w.cata(&["run", "--rm", "--restart", "always", "busybox", "true"]).fails(125, &["--rm"]);
}

fn restart_policy_always_until_stopped(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "rr", "--restart", "always", "busybox", "sleep", "600"]).ok();
    let first = w.field("rr", "{{.State.Pid}}");
    let _ = cata_tests::command::Run::new("kill").args(["-9", &first]).done().ok();
    eventually("a second life", PATIENCE, || {
        let now = w.field("rr", "{{.State.Pid}}");
        (now != first && now != "0").then_some(())
    });
    let _ = w.cata(&["stop", "-t", "0", "rr"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(w.field("rr", "{{.State.Status}}"), "exited");
}

/// The power goes: every supervisor dies, and live state is gone.
fn power_cut(w: &World) {
    let state = w.state();
    for entry in std::fs::read_dir(&state).unwrap().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status.json")).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        if let Some(pid) =
            status["supervisor_pid"].as_i64().filter(|pid| *pid > 0 && status["status"] != "exited")
        {
            let _ = cata_tests::command::Run::new("kill").args(["-9", &pid.to_string()]).done();
        }
    }
    eventually("everything is dead", PATIENCE, || {
        let left = cata_tests::world::processes();
        (!left.contains("sleep 600") && !left.contains("cata-supervisor")).then_some(())
    });
    for entry in std::fs::read_dir(&state).unwrap().flatten() {
        std::fs::remove_dir_all(entry.path()).unwrap();
    }
}

fn boot_starts_what_ran(w: &World) {
    let run = |name: &str, policy: &str, options: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--restart", policy, "--stop-timeout", "1"];
        args.extend(options);
        args.extend(["busybox", "sleep", "600"]);
        let _ = w.cata(&args).ok();
    };
    run("always", "always", &["-p", "8080:80"]);
    run("guest", "unless-stopped", &["--network", "container:always"]);
    run("unless", "unless-stopped", &[]);
    run("stopped", "unless-stopped", &[]);
    run("again", "always", &[]);
    run("never", "no", &[]);
    let _ = w.cata(&["create", "--name", "created", "--restart", "always", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["stop", "-t", "0", "stopped", "again"]).ok();
    let running = || {
        let mut names = w.cata(&["ps", "--format", "{{.Names}}"]).lines();
        names.sort();
        names.join(" ")
    };
    power_cut(w);
    assert_eq!(running(), "");
    assert_eq!(w.field("unless", "{{.State.ExitCode}}"), "255");
    let mut told = w.cata(&["system", "start"]).lines();
    told.sort();
    assert_eq!(told, ["again", "always", "guest", "unless"]);
    assert_eq!(running(), "again always guest unless");
    assert_eq!(w.cata(&["system", "start"]).text(), "");
    // An orderly shutdown is no user's stop.
    let mut told = w.cata(&["system", "stop"]).lines();
    told.sort();
    assert_eq!(told, ["again", "always", "guest", "unless"]);
    assert_eq!(running(), "");
    // What cannot be started is told, and keeps nobody else down.
    let busy = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
    let done = w.cata(&["system", "start"]).exits(1);
    assert!(done.stderr.contains("8080") && done.stderr.contains("always"), "{done}");
    assert_eq!(running(), "again unless");
    drop(busy);
    let done = w.cata(&["system", "start"]).ok();
    assert_eq!(running(), "again always guest unless", "{done} {}", w.cata(&["ps", "-a"]));
    // No reboot has emptied its control group.
    let _ = w.cata(&["start", "never"]).ok();
    let unit = w.cata(&["system", "unit"]).ok().stdout;
    assert!(unit.contains("ExecStart=") && unit.contains(" system start\n"), "{unit}");
}

fn health_is_told(w: &World) {
    let health = |status: &'static str| {
        eventually(status, PATIENCE, || (w.field("hh", "{{.State.Health.Status}}") == status).then_some(()));
    };
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "hh",
            "--health-cmd",
            "test -e /tmp/well",
            "--health-interval",
            "200ms",
            "--health-retries",
            "2",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    health("unhealthy");
    assert!(w.cata(&["ps"]).ok().stdout.contains("(unhealthy)"));
    let _ = w.cata(&["exec", "hh", "touch", "/tmp/well"]).ok();
    health("healthy");
    assert!(w.cata(&["ps"]).ok().stdout.contains("(healthy)"));
}

fn top_shows_host_pids(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "tt", "busybox", "sh", "-c", "sleep 600 & wait"]).ok();
    let pid = w.field("tt", "{{.State.Pid}}");
    eventually("both processes", PATIENCE, || {
        let lines = w.cata(&["top", "tt"]).lines();
        let titles: Vec<_> = lines[0].split_whitespace().collect();
        assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        (lines.len() == 3 && lines.iter().any(|l| l.split_whitespace().nth(1) == Some(&pid))).then_some(())
    });
    let _ = w.cata(&["stop", "-t", "0", "tt"]).ok();
    w.cata(&["top", "tt"]).fails(1, &["not running"]);
}
