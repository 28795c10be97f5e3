//! `cata machine` and `cata --machine NAME …`: an engine in a machine, used as the host's is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use cata_tests::command::{Run, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::{World, pids};
use rustix::process::Signal;

use crate::machines::on_kvm;
use crate::test;

/// For one boot, and for commands in a machine whose processors are emulated, on a host with other things to do.
const BOOT: Duration = Duration::from_secs(240);

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(engine_in_a_machine).with_kernel().also_in_lab_for(310)]
}

/// What a server in a machine says to the host.
fn fetch(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("200 OK").then_some(text)
}

fn monitors() -> Vec<u32> {
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains("cata-vmm machine")
    };
    pids().into_iter().filter(is_one).collect()
}

fn engine_in_a_machine(w: &World) {
    let inside = |words: &[&str]| {
        let line = ["--machine", "dev"].iter().chain(words);
        w.cata_run(line).patience(BOOT)
    };
    let machine = |words: &[&str]| w.cata_run(["machine"].iter().chain(words)).patience(BOOT).done();
    let create =
        ["create", "--cpus", "1", "--memory", "512m", "--disk", "1g", "-p", "127.0.0.1:9999:8080", "dev"];
    assert_eq!(machine(&create).text(), "dev");
    inside(&["ps"]).done().fails(1, &["machine dev is not running", "cata machine start dev"]);
    assert_eq!(machine(&["start", "dev"]).text(), "dev");
    // It is no container of the host's, and has an engine of its own.
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    assert!(machine(&["ls"]).ok().stdout.contains("running"));
    assert_eq!(inside(&["images", "-q"]).done().text(), "");
    // An image of the host's goes in through a pipe.
    let saved = w.scratch().join("image.tar");
    let _ = w.cata(&["save", "-o", saved.to_str().unwrap(), "busybox"]).ok();
    let _ = inside(&["load"]).input(fs::read(&saved).unwrap()).done().ok();
    // Input, exit code and limits as on the host; the default machine from the environment.
    let script = "cat; nproc; cat /sys/fs/cgroup/memory.max; exit 7";
    let run = ["run", "-i", "--rm", "--memory", "50m", "busybox", "sh", "-c", script];
    let run = w.cata_run(run).env("CATA_MACHINE", "dev").input("piped\n").patience(BOOT).done().exits(7);
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), ["piped", "1", "52428800"], "{run}");
    // A server that comes back with the machine, reachable through the machine's port.
    let serve = "mkdir -p /www && echo inside > /www/index.html; exec httpd -f -p 80 -h /www";
    let server =
        ["run", "-d", "--restart", "always", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", serve];
    let _ = inside(&server).done().ok();
    eventually("the server", BOOT, || fetch(9999).filter(|text| text.contains("inside")));
    // The end of the story: its processes are there, and the host has none of them.
    let list = [
        "run",
        "--rm",
        "--privileged",
        "--pid=host",
        "busybox",
        "nsenter",
        "-t",
        "1",
        "-m",
        "-u",
        "-n",
        "-i",
    ];
    let all = inside(&[&list[..], &["ps", "aux"]].concat()).done().ok().stdout;
    assert!(all.contains("httpd -f -p 80") && all.contains("cata-supervisor"), "{all}");
    let host = Run::new("ps").arg("aux").done().ok().stdout;
    assert!(!host.contains("httpd -f -p 80") && host.contains("cata-vmm machine"), "{host}");
    // Boots and processes are dear in the lab, and what follows is the same on both.
    if on_kvm() {
        assert_eq!(machine(&["stop", "dev"]).text(), "dev");
        let _ = machine(&["rm", "dev"]).ok();
        return;
    }
    // Signals reach the command inside.
    let script = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.2; done";
    let trapped = inside(&["run", "--rm", "busybox", "sh", "-c", script]).start();
    eventually("it is up", BOOT, || trapped.stdout().contains("up").then_some(()));
    trapped.signal(Signal::TERM);
    let trapped = trapped.done(BOOT).exits(3);
    assert!(trapped.stdout.contains("asked"), "{trapped}");
    in_a_terminal(w);
    // Down and up: containers are stopped with it and come back with it.
    assert_eq!(machine(&["stop", "dev"]).text(), "dev");
    assert!(machine(&["ls"]).ok().stdout.contains("stopped"));
    eventually("its process has gone", BOOT, || monitors().is_empty().then_some(()));
    // What removes containers that are down spares machines.
    let _ = w.cata(&["container", "prune", "-f"]).ok();
    let _ = machine(&["start", "dev"]).ok();
    eventually("the server again", BOOT, || fetch(9999).filter(|text| text.contains("inside")));
    // Killed: a named state, and nothing that was written is lost.
    for pid in monitors() {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    let ls = || machine(&["ls", "--format", "{{.State}}"]).text();
    eventually("it has failed", BOOT, || (ls() == "failed (137)").then_some(()));
    let _ = machine(&["start", "dev"]).ok();
    eventually("the server once more", BOOT, || fetch(9999).filter(|text| text.contains("inside")));
    machine(&["rm", "dev"]).fails(1, &["running", "cata machine stop dev"]);
    let _ = machine(&["rm", "-f", "dev"]).ok();
    assert_eq!(machine(&["ls", "-q"]).text(), "");
    machine(&["start", "dev"]).fails(1, &["no such machine: dev"]);
}

/// A terminal of ours is one in the machine too.
fn in_a_terminal(w: &World) {
    let mut command = Command::new(cata_binary());
    command.args(["machine", "shell", "dev"]).env("CATA_ROOT", w.root()).env("CATA_STATE", w.state());
    let mut terminal = Terminal::run(&command, 31, 97);
    eventually("a prompt", BOOT, || terminal.shown().contains("# ").then_some(()));
    terminal.type_in("stty size\n");
    eventually("its size", BOOT, || terminal.shown().contains("31 97").then_some(()));
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.exit_code(), 5);
}
