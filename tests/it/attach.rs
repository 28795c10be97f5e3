//! `attach` and `-it`: terminals, detaching, several clients.

use std::process::Command;
use std::time::Duration;

use cata_tests::command::{PATIENCE, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(terminal_is_real),
        test!(terminal_follows_the_window),
        test!(terminal_ctrl_c_reaches_the_process),
        test!(detach_leaves_it_running),
        test!(attach_shows_what_comes),
        test!(attach_passes_signals_on),
        test!(attach_without_terminal_passes_input_and_code),
        test!(tty_without_a_terminal_is_refused),
        test!(client_killed_leaves_it_running),
    ]
}

fn cata(args: &[&str]) -> Command {
    let mut command = Command::new(cata_binary());
    command.args(args);
    command
}

fn terminal_is_real(w: &World) {
    let mut terminal = Terminal::run(&cata(&["run", "-it", "--rm", "--name", "tt", "busybox"]), 30, 100);
    terminal.expect("# ");
    terminal.type_in("tty; echo $TERM; stty size; echo code $((6*7))\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("xterm");
    terminal.expect("30 100");
    terminal.expect("code 42");
    assert_eq!(w.field("tt", "{{.Config.Tty}} {{.Config.OpenStdin}}"), "true true");
    terminal.type_in("exit 3\n");
    assert_eq!(terminal.exit_code(), 3);
}

fn terminal_follows_the_window(_: &World) {
    let mut terminal = Terminal::run(&cata(&["run", "-it", "--rm", "busybox"]), 30, 100);
    terminal.expect("# ");
    terminal.resize(50, 132);
    // The signal and what is typed take different ways.
    terminal.type_in("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo it is $((6*7))\n");
    terminal.expect("it is 42");
    // Ctrl-D ends the shell.
    terminal.type_in("\u{4}");
    assert_eq!(terminal.exit_code(), 0);
}

fn terminal_ctrl_c_reaches_the_process(w: &World) {
    let mut terminal = Terminal::run(&cata(&["run", "-it", "--rm", "--name", "tt", "busybox"]), 30, 100);
    terminal.expect("# ");
    terminal.type_in("sleep 600\n");
    eventually("the process", PATIENCE, || {
        (w.cata(&["exec", "tt", "pidof", "sleep"]).code() == 0).then_some(())
    });
    terminal.type_in("\u{3}");
    terminal.type_in("echo still $((20+22))\n");
    terminal.expect("still 42");
    terminal.type_in("exit\n");
    assert_eq!(terminal.exit_code(), 0);
}

fn detach_leaves_it_running(w: &World) {
    let mut terminal = Terminal::run(&cata(&["run", "-it", "--name", "dd", "busybox"]), 30, 100);
    terminal.expect("# ");
    terminal.type_in("\u{10}\u{11}");
    assert_eq!(terminal.exit_code(), 0);
    assert_eq!(w.field("dd", "{{.State.Running}}"), "true");
    let mut again = Terminal::run(&cata(&["attach", "--detach-keys", "ctrl-x,x", "dd"]), 30, 100);
    again.type_in("echo back $((40+2))\n");
    again.expect("back 42");
    again.type_in("\u{18}x");
    let _ = again.exit_code();
    assert_eq!(w.field("dd", "{{.State.Running}}"), "true");
}

fn attach_shows_what_comes(w: &World) {
    let script = "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done";
    let _ = w.cata(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", script]).ok();
    let mut clients: Vec<_> = (0..3).map(|_| w.cata_run(["attach", "--no-stdin", "aa"]).start()).collect();
    for client in &mut clients {
        eventually("ticks", PATIENCE, || (client.stdout().matches("tick").count() >= 3).then_some(()));
    }
    clients[0].kill();
    let seen = clients[1].stdout().len();
    eventually("others go on", PATIENCE, || (clients[1].stdout().len() > seen + 20).then_some(()));
    let _ = w.cata(&["kill", "aa"]).ok();
    for client in clients.into_iter().skip(1) {
        let done = client.done(PATIENCE);
        assert_eq!(done.code(), 137, "{done}");
    }
    let done = w.cata(&["attach", "aa"]).exits(1);
    assert!(done.stderr.contains("stopped") || done.stderr.contains("not running"), "{done}");
}

fn attach_passes_signals_on(w: &World) {
    let script = "trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    let _ = w.cata(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", script]).ok();
    let ready = || w.cata(&["logs", "aa"]).stdout.contains("ready").then_some(());
    eventually("the trap is set", PATIENCE, ready);
    let mut apart = w.cata_run(["attach", "--no-stdin", "--sig-proxy=false", "aa"]).start();
    let client = w.cata_run(["attach", "--no-stdin", "aa"]).start();
    // It watches for signals once it is attached.
    eventually("the client catches signals", PATIENCE, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", client.pid())).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(mask.trim(), 16).ok()? & (1 << (10 - 1)) != 0).then_some(())
    });
    apart.signal(rustix::process::Signal::USR1);
    eventually("the one that passes nothing on ends", PATIENCE, || apart.poll());
    assert_eq!(w.field("aa", "{{.State.Running}}"), "true");
    client.signal(rustix::process::Signal::USR1);
    let done = client.done(PATIENCE);
    assert!(done.code() == 5 && done.stdout.contains("usr1"), "{done}");
}

fn attach_without_terminal_passes_input_and_code(w: &World) {
    let _ = w
        .cata(&["run", "-di", "--name", "aa", "busybox", "sh", "-c", "read line; echo got $line; exit 6"])
        .ok();
    let done = w.cata_run(["attach", "aa"]).input("words\n").done().exits(6);
    assert_eq!(done.stdout, "got words\n");
}

fn tty_without_a_terminal_is_refused(w: &World) {
    let done = w.cata_run(["run", "-it", "--rm", "busybox", "true"]).input("").done();
    assert!(done.code() != 0 && done.stderr.to_lowercase().contains("tty"), "{done}");
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // -t alone gives the container a terminal of its own.
    assert!(w.cata(&["run", "-t", "--rm", "busybox", "tty"]).text().starts_with("/dev/pts/"));
}

fn client_killed_leaves_it_running(w: &World) {
    let mut client = w
        .cata_run(["run", "--name", "kk", "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done"])
        .start();
    eventually("output", PATIENCE, || client.stdout().contains('x').then_some(()));
    client.kill();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(w.field("kk", "{{.State.Running}}"), "true");
    let before = w.cata(&["logs", "kk"]).lines().len();
    eventually("its log grows", PATIENCE, || (w.cata(&["logs", "kk"]).lines().len() > before).then_some(()));
}
