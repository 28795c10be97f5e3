//! `logs`: what was said, when, and how much of it is kept.

use cata_tests::command::{PATIENCE, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(logs_keep_streams_apart),
        test!(logs_tail),
        test!(logs_since_and_until),
        test!(logs_timestamps),
        test!(logs_follow_until_the_end),
        test!(logs_follow_ends_with_its_reader),
        test!(logs_rotate),
        test!(logs_of_long_and_partial_lines),
        test!(logs_survive_a_restart),
        test!(logs_driver_none),
    ]
}

fn done(w: &World, script: &str) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
    let _ = w.cata(&["wait", "cc"]).ok();
}

fn logs_keep_streams_apart(w: &World) {
    done(w, "echo out; echo err >&2");
    let logs = w.cata(&["logs", "cc"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    w.cata(&["logs", "nobody"]).fails(1, &["no such container", "nobody"]);
}

fn logs_tail(w: &World) {
    done(w, "seq 1 1000");
    assert_eq!(w.cata(&["logs", "--tail", "3", "cc"]).lines(), ["998", "999", "1000"]);
    assert_eq!(w.cata(&["logs", "-n", "1", "cc"]).lines(), ["1000"]);
    assert_eq!(w.cata(&["logs", "--tail", "0", "cc"]).text(), "");
    assert_eq!(w.cata(&["logs", "--tail", "all", "cc"]).lines().len(), 1000);
    assert_eq!(w.cata(&["logs", "cc"]).lines().len(), 1000);
}

fn logs_since_and_until(w: &World) {
    done(w, "echo early; sleep 2; echo late");
    let stamped = w.cata(&["logs", "-t", "cc"]).lines();
    let late = stamped[1].split(' ').next().unwrap();
    assert_eq!(w.cata(&["logs", "--since", late, "cc"]).text(), "late");
    let early = stamped[0].split(' ').next().unwrap();
    assert_eq!(w.cata(&["logs", "--until", early, "cc"]).text(), "early");
    assert_eq!(w.cata(&["logs", "--since", "1h", "cc"]).lines().len(), 2);
    w.cata(&["logs", "--since", "yesterday-ish", "cc"]).fails(1, &["yesterday-ish"]);
}

fn logs_timestamps(w: &World) {
    done(w, "echo a");
    let line = w.cata(&["logs", "--timestamps", "cc"]).text();
    let (stamp, rest) = line.split_once(' ').unwrap();
    assert_eq!(rest, "a");
    assert!(stamp.len() >= 20 && stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T', "{stamp}");
}

fn logs_follow_until_the_end(w: &World) {
    let script = "for i in 1 2 3; do echo $i; sleep 0.3; done";
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
    let following = w.cata_run(["logs", "-f", "cc"]).start();
    eventually("the first line", PATIENCE, || following.stdout().contains('1').then_some(()));
    let done = following.done(PATIENCE);
    assert_eq!(done.lines(), ["1", "2", "3"]);
}

fn logs_follow_ends_with_its_reader(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sh", "-c", "echo one; sleep 600"]).ok();
    let mut reader =
        std::process::Command::new("head").arg("-n1").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pipe = std::process::Stdio::from(reader.stdin.take().unwrap());
    // The container says nothing more: no write could fail.
    let mut client = std::process::Command::new(cata_tests::command::cata_binary())
        .args(["logs", "-f", "cc"])
        .stdout(pipe)
        .spawn()
        .unwrap();
    assert!(reader.wait().unwrap().success());
    let ended = || client.try_wait().unwrap();
    assert_eq!(eventually("it ends too", PATIENCE, ended).code(), Some(0));
}

fn logs_rotate(w: &World) {
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let mut args = vec!["run", "-d", "--name", "cc"];
    args.extend(options);
    args.extend(["busybox", "seq", "1", "5000"]);
    let id = w.cata(&args).text();
    let _ = w.cata(&["wait", "cc"]).ok();
    let folder = w.root().join("containers").join(id).join("log");
    let sizes: Vec<u64> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() <= 3 && sizes.iter().all(|size| *size <= 20 * 1024), "{sizes:?}");
    let lines = w.cata(&["logs", "cc"]).lines();
    let kept: Vec<u32> = lines.iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(*kept.last().unwrap(), 5000);
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a hole in the log");
    assert!(kept.len() > 100 && kept.len() < 5000);
}

fn logs_of_long_and_partial_lines(w: &World) {
    done(w, "head -c 50000 /dev/zero | tr '\\0' x; echo; printf 'no newline'");
    let said = w.cata(&["logs", "cc"]).ok().stdout;
    assert_eq!(said, format!("{}\nno newline", "x".repeat(50_000)));
}

fn logs_survive_a_restart(w: &World) {
    done(w, "echo life");
    let _ = w.cata(&["start", "-a", "cc"]).ok();
    assert_eq!(w.cata(&["logs", "cc"]).lines(), ["life", "life"]);
}

fn logs_driver_none(w: &World) {
    let done = w.cata(&["run", "--name", "cc", "--log-driver", "none", "busybox", "echo", "shown"]);
    assert_eq!(done.text(), "shown");
    w.cata(&["logs", "cc"]).fails(1, &["log"]);
    w.cata(&["run", "--rm", "--log-driver", "carrier-pigeon", "busybox", "true"])
        .fails(125, &["carrier-pigeon"]);
}
