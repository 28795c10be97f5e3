//! Writers and readers of a journal.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::health::HealthRules;
use crate::launch::RestartPolicy;
use crate::moment::Moment;
use crate::state::{Event, Exit, Pid, Rules, State, Timer, What};
use crate::step::step;

fn entry(id: &str) -> Entry {
    let attributes = BTreeMap::from([("name".to_owned(), "a name".to_owned())]);
    Entry::now(Subject::Container, "start", id, attributes)
}

/// What is there now.
fn replay(dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    let query = Query { since: Some(0), until: Some(Stamp::now().unix_nanos()), cancel: None };
    read(dir, &query, &mut |entry| {
        ids.push(entry.id);
        true
    })
    .unwrap();
    ids
}

#[test]
fn written_is_replayed_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("events");
    assert!(replay(&journal).is_empty());
    let (first, second) = (entry("1"), entry("2"));
    write(&journal, &second);
    write(&journal, &first);
    assert_eq!(replay(&journal), ["1", "2"]);
}

#[test]
fn torn_record_of_a_killed_writer_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &entry("1"));
    let mut file = fs::File::options().append(true).open(dir.path().join(LIVE)).unwrap();
    let record = write::record(&entry("torn")).unwrap();
    file.write_all(&record[..record.len() / 2]).unwrap();
    write(dir.path(), &entry("2"));
    assert_eq!(replay(dir.path()), ["1", "2"]);
}

#[test]
fn record_that_is_too_long_loses_what_is_least_wanted() {
    let mut long = entry("1");
    long.attributes.insert("label".to_owned(), "x".repeat(LONGEST));
    let record = write::record(&long).unwrap();
    let read: Entry = serde_json::from_slice(record.trim_ascii()).unwrap();
    assert_eq!(read.attributes.into_keys().collect::<Vec<_>>(), ["name"]);
}

#[test]
fn journal_is_bounded_and_a_follower_misses_nothing() {
    const MANY: usize = 400;
    const WRITERS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    write(&path, &entry("old"));
    let (sender, receiver) = mpsc::channel();
    let (cancel, wake) = rustix::pipe::pipe().unwrap();
    let follower = {
        let path = path.clone();
        std::thread::spawn(move || {
            let query = Query { since: Some(0), until: None, cancel: Some(cancel.as_fd()) };
            read(&path, &query, &mut |entry| sender.send(entry.id).is_ok()).unwrap();
        })
    };
    let wait = || receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    // It follows: only from here on nothing may be missed.
    assert_eq!(wait(), "old");
    let mut missing: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    for round in 0..MANY / WRITERS {
        let ids: Vec<String> = (0..WRITERS).map(|writer| format!("{round}.{writer}")).collect();
        missing.extend(ids.iter().cloned());
        std::thread::scope(|scope| {
            for id in &ids {
                // A few records fill a file.
                scope.spawn(|| write::append(&path, &entry(id), 1000));
            }
        });
        // The follower may be as slow as it likes, but not slower than two files.
        while !missing.is_empty() {
            assert!(missing.remove(&wait()), "told twice");
        }
    }
    drop(wake);
    follower.join().unwrap();
    let sizes = [LIVE, BEFORE].map(|name| fs::metadata(path.join(name)).map_or(0, |file| file.len()));
    assert!(sizes.iter().all(|size| *size < 3000), "{sizes:?}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), sizes.iter().filter(|size| **size > 0).count());
}

fn story(state: State, happens: Vec<What>) -> (State, Vec<String>) {
    let mut all = Vec::new();
    let state = happens.into_iter().fold(state, |before, what| {
        let (after, actions) = step(before.clone(), Event { at: Moment(0), what: what.clone() }).unwrap();
        for told in told(&before, &what, &after, &actions) {
            let more: Vec<String> =
                told.attributes.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            all.push(format!("{}{}", told.action, more.concat()));
        }
        after
    });
    (state, all)
}

#[test]
fn life_is_told_in_dockers_words() {
    let health = HealthRules {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
        retries: 1,
        on_unhealthy: crate::launch::OnUnhealthy::None,
    };
    let rules = Rules {
        restart: RestartPolicy::No,
        stop_signal: 15,
        stop_timeout: Some(Duration::from_secs(10)),
        health: Some(health),
    };
    let stop = What::Stop { signal: None, timeout: None, ignored: false };
    let (_, told) = story(
        State::new(rules.clone()),
        vec![
            What::Go,
            What::Spawned(Pid(7)),
            What::Timer(Timer::Probe),
            What::Probed(true),
            What::Timer(Timer::Probe),
            What::Probed(false),
            What::Kill(1),
            stop,
            What::Timer(Timer::Stop),
            What::ProcessExited(Exit { code: 137, oom: true, error: None }),
            What::Drained,
        ],
    );
    assert_eq!(
        told,
        [
            "start",
            "health_status: healthy",
            "health_status: unhealthy",
            "kill signal=1",
            "kill signal=15",
            "kill signal=9",
            "oom",
            "die exitCode=137 execDuration=0",
        ]
    );
    let failed = What::SpawnFailed(Exit { code: 127, oom: false, error: None });
    assert_eq!(story(State::new(rules), vec![What::Go, failed]).1, ["die exitCode=127"]);
}
