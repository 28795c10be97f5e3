//! Attach: not a byte is lost, slow clients slow down, lost ones are dropped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use cata_sandbox::launch::StdinPlan;
use cata_sandbox::protocol::{Streams, Until};

use crate::world::{SOON, World, read_all, wait_for};

#[test]
fn attached_from_the_first_byte_to_the_last() {
    let world = World::new("dd if=/dev/zero bs=1000 count=300 2>/dev/null; echo end");
    let mut running = world.try_start(Some(Streams::ALL)).expect("started");
    assert!(running.attached.stdin.is_none());
    // Slow at first: the container is held back meanwhile, and nothing is dropped.
    std::thread::sleep(Duration::from_millis(300));
    let out = read_all(running.attached.stdout);
    assert_eq!(out.len(), 300_004);
    assert!(out.ends_with(b"end\n"));
    assert!(read_all(running.attached.stderr).is_empty());
    assert_eq!(running.client.wait(Until::NotRunning, Some(SOON)).expect("ended").exit_code, 0);
    world.until_left();
    assert_eq!(world.log().len(), 300_004);
}

#[test]
fn exit_does_not_wait_for_a_slow_client_nor_lose_its_output() {
    // More than the client's pipe holds, less than it and the container's own: pages of pipes are not always full.
    let world = World::new("dd if=/dev/zero bs=1000 count=100 2>/dev/null; echo end");
    let mut running = world.try_start(Some(Streams::ALL)).expect("started");
    assert_eq!(running.client.wait(Until::NotRunning, Some(SOON)).expect("ended").exit_code, 0);
    world.until_left();
    let out = read_all(running.attached.stdout);
    assert_eq!(out.len(), 100_004);
}

#[test]
fn daemonised_grandchild_does_not_delay_the_exit() {
    let world = World::new("sleep 1000 & echo done");
    let mut running = world.start();
    running.client.wait(Until::NotRunning, Some(SOON)).expect("ended");
    world.until_left();
    assert_eq!(world.log(), b"done\n");
}

#[test]
fn input_once_ends_when_the_client_closes_it() {
    let mut world = World::new("cat; echo eof");
    world.launch.stdin = StdinPlan::Once;
    let running = world.try_start(Some(Streams::ALL)).expect("started");
    let mut input = File::from(running.attached.stdin.expect("stdin"));
    input.write_all(b"hello\n").expect("write");
    drop(input);
    assert_eq!(read_all(running.attached.stdout), b"hello\neof\n");
    world.until_left();
}

#[test]
fn open_input_survives_its_clients() {
    let mut world = World::new("cat");
    world.launch.stdin = StdinPlan::Open;
    world.start();
    for word in ["one\n", "two\n"] {
        let attached = world.client().attach(Streams::ALL).expect("attached");
        let mut input = File::from(attached.stdin.expect("stdin"));
        input.write_all(word.as_bytes()).expect("write");
        let mut output = File::from(attached.stdout.expect("stdout"));
        let mut got = vec![0; word.len()];
        output.read_exact(&mut got).expect("read");
        assert_eq!(got, word.as_bytes());
    }
    wait_for("both logged", || world.log() == b"one\ntwo\n");
}

#[test]
fn client_that_goes_away_is_dropped() {
    let world =
        World::new("while :; do dd if=/dev/zero bs=65536 count=4 2>/dev/null; echo; sleep 0.01; done");
    let running = world.try_start(Some(Streams::ALL)).expect("started");
    // It never reads: the container stands still.
    let held = world.until_still();
    drop(running);
    wait_for("it goes on", || world.log().len() > held + 1_000_000);
}

#[test]
fn follow_sees_everything_and_ends_with_the_container() {
    let world = World::new("for i in 1 2 3 4 5; do echo $i; sleep 0.05; done");
    world.start();
    let dir = cata_sandbox::log::directory(&world.launch.container_dir);
    let options = cata_sandbox::log::Options { follow: Some(world.state().to_owned()), ..Default::default() };
    let mut bytes = Vec::new();
    let mut sink = |entry: cata_sandbox::log::Entry| {
        bytes.extend(entry.bytes);
        std::ops::ControlFlow::Continue(())
    };
    cata_sandbox::log::read(&dir, &options, &mut sink).expect("log");
    assert_eq!(bytes, b"1\n2\n3\n4\n5\n");
}

#[test]
fn terminal_is_handed_out_and_its_size_set() {
    let mut world = World::new("stty size; read line; stty size; echo got $line");
    world.launch.plan.process.terminal = true;
    world.launch.stdin = StdinPlan::Once;
    let mut running = world.try_start(Some(Streams::ALL)).expect("started");
    assert!(running.attached.stderr.is_none());
    let size = cata_runtime::plan::WindowSize { rows: 33, columns: 101 };
    running.client.resize(size).expect("resized");
    let mut terminal = File::from(running.attached.stdin.expect("the terminal"));
    terminal.write_all(b"hello\n").expect("write");
    let out = String::from_utf8(read_all(running.attached.stdout)).expect("text");
    assert!(out.contains("33 101\r\n") && out.ends_with("got hello\r\n"), "{out:?}");
    assert_eq!(running.client.wait(Until::NotRunning, Some(SOON)).expect("ended").exit_code, 0);
}

#[test]
fn exec_terminal_reaches_the_client_and_hangs_up_with_it() {
    let world = World::new("sleep 1000");
    world.start();
    let mut client = world.client();
    let mut request = crate::world::exec("t", "tty; sleep 1000", Streams::default());
    request.request.terminal = true;
    request.stdio = cata_sandbox::protocol::ExecStdio::Terminal;
    let started = client.exec(request, &[]).expect("started");
    client.resize_exec("t", cata_runtime::plan::WindowSize { rows: 5, columns: 6 }).expect("resized");
    let mut terminal = File::from(started.terminal.expect("a terminal"));
    let mut got = [0; 5];
    terminal.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"/dev/");
    drop(terminal);
    drop(client);
    wait_for("the session was hung up", || !std::path::Path::new(&format!("/proc/{}", started.pid)).exists());
}
