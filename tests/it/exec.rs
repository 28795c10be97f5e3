//! `exec`: further processes in a running container.

use std::process::Command;

use cata_tests::command::{PATIENCE, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(exec_shares_the_container),
        test!(exec_codes),
        test!(exec_options),
        test!(exec_input),
        test!(exec_detached),
        test!(exec_on_a_terminal),
        test!(exec_has_the_containers_limits).also_in_lab(),
        test!(exec_ends_with_the_container),
        test!(exec_many_at_once),
    ]
}

fn up(w: &World, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", "cc"];
    args.extend(options);
    args.extend(["busybox", "sleep", "600"]);
    let _ = w.cata(&args).ok();
}

fn exec_shares_the_container(w: &World) {
    up(w, &["-h", "ship"]);
    assert_eq!(w.cata(&["exec", "cc", "hostname"]).text(), "ship");
    eventually("the container's process is seen", PATIENCE, || {
        let ps = w.cata(&["exec", "cc", "ps"]).ok().stdout;
        ps.lines().any(|l| l.trim_start().starts_with("1 ") && l.contains("sleep 600")).then_some(())
    });
    let _ = w.cata(&["exec", "cc", "touch", "/made"]).ok();
    let _ = w.cata(&["exec", "cc", "test", "-e", "/made"]).ok();
    for namespace in ["pid", "net", "mnt", "ipc", "uts", "cgroup"] {
        let script = format!("readlink /proc/1/ns/{namespace}; readlink /proc/self/ns/{namespace}");
        let lines = w.cata(&["exec", "cc", "sh", "-c", &script]).lines();
        assert_eq!(lines[0], lines[1], "{namespace}");
    }
}

fn exec_codes(w: &World) {
    up(w, &[]);
    let _ = w.cata(&["exec", "cc", "sh", "-c", "exit 42"]).exits(42);
    let _ = w.cata(&["exec", "cc", "sh", "-c", "kill -9 $$"]).exits(137);
    w.cata(&["exec", "cc", "no-such-program"]).fails(127, &["no-such-program"]);
    w.cata(&["exec", "cc", "/etc/passwd"]).fails(126, &["/etc/passwd"]);
    w.cata(&["exec", "-w", "/nowhere", "cc", "true"]).fails(126, &["/nowhere"]);
    w.cata(&["exec", "-u", "nobody-there", "cc", "true"]).fails(126, &["nobody-there"]);
    w.cata(&["exec", "nobody", "true"]).fails(1, &["no such container", "nobody"]);
    let _ = w.cata(&["stop", "-t", "0", "cc"]).ok();
    w.cata(&["exec", "cc", "true"]).fails(1, &["not running"]);
}

fn exec_options(w: &World) {
    up(w, &["-e", "FROM=run", "-w", "/var"]);
    let script = "echo $FROM $A; pwd; id -un";
    assert_eq!(w.cata(&["exec", "-e", "A=1", "cc", "sh", "-c", script]).lines(), ["run 1", "/var", "root"]);
    let done = w.cata(&["exec", "-u", "www-data", "-w", "/tmp", "-e", "FROM=exec", "cc", "sh", "-c", script]);
    assert_eq!(done.lines(), ["exec", "/tmp", "www-data"]);
}

fn exec_input(w: &World) {
    up(w, &[]);
    assert_eq!(w.cata_run(["exec", "-i", "cc", "cat"]).input("through").done().text(), "through");
    assert_eq!(w.cata_run(["exec", "cc", "cat"]).input("not").done().text(), "");
    let done = w.cata(&["exec", "cc", "sh", "-c", "echo o; echo e >&2"]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("o\n", "e\n"));
}

fn exec_detached(w: &World) {
    up(w, &[]);
    assert_eq!(w.cata(&["exec", "-d", "cc", "sh", "-c", "sleep 0.3; touch /done"]).text(), "");
    eventually("the file is made", PATIENCE, || {
        (w.cata(&["exec", "cc", "test", "-e", "/done"]).code() == 0).then_some(())
    });
}

fn exec_on_a_terminal(w: &World) {
    up(w, &[]);
    let mut command = Command::new(cata_binary());
    command.args(["exec", "-it", "cc", "sh"]);
    let mut terminal = Terminal::run(&command, 33, 111);
    terminal.expect("# ");
    terminal.type_in("tty; stty size; test -t 0 && echo it is $((40+2))\n");
    terminal.expect("/dev/pts/");
    terminal.expect("33 111");
    terminal.expect("it is 42");
    terminal.resize(44, 122);
    terminal.type_in("until [ \"$(stty size)\" = '44 122' ]; do sleep 0.1; done; echo now $((6*7))\n");
    terminal.expect("now 42");
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.exit_code(), 5);
}

fn exec_has_the_containers_limits(w: &World) {
    up(w, &[]);
    let status = |pid: &str| {
        let script = format!("grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/{pid}/status");
        w.cata(&["exec", "cc", "sh", "-c", &script]).lines()
    };
    assert_eq!(status("1"), status("self"));
    let groups =
        w.cata(&["exec", "cc", "sh", "-c", "cat /proc/1/cgroup > /a; cat /proc/self/cgroup | cmp - /a"]);
    let _ = groups.ok();
    let privileged = w.cata(&["exec", "--privileged", "cc", "grep", "CapEff", "/proc/self/status"]).text();
    assert_ne!(privileged, status("1")[0]);
}

fn exec_ends_with_the_container(w: &World) {
    up(w, &[]);
    let running = w.cata_run(["exec", "cc", "sleep", "600"]).start();
    eventually("exec runs", PATIENCE, || {
        (w.cata(&["exec", "cc", "ps"]).stdout.matches("sleep 600").count() == 2).then_some(())
    });
    let _ = w.cata(&["kill", "cc"]).ok();
    let done = running.done(PATIENCE);
    assert_eq!(done.code(), 137, "{done}");
}

fn exec_many_at_once(w: &World) {
    up(w, &[]);
    let all: Vec<_> = (0..20)
        .map(|n| w.cata_run(["exec", "cc", "sh", "-c", &format!("sleep 0.2; echo {n}; exit {n}")]).start())
        .collect();
    for (n, running) in all.into_iter().enumerate() {
        let done = running.done(PATIENCE).exits(i32::try_from(n).unwrap());
        assert_eq!(done.stdout, format!("{n}\n"));
    }
}
