//! The worlds themselves: private, alive as long as needed, and gone afterwards.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::{World, pids};
use cata_tests::{cgroup, leak};

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(network_has_loopback_only).without_engine(),
        test!(processes_are_its_own).without_engine(),
        test!(cgroups_are_its_own).without_engine(),
        test!(orphans_are_reaped).without_engine(),
        test!(configuration_is_its_own).without_engine(),
        test!(leaks_are_found).without_engine(),
        test!(frozen_processes_end_too).without_engine(),
    ]
}

fn network_has_loopback_only(_: &World) {
    let links: Vec<_> = fs::read_dir("/sys/class/net").unwrap().map(|l| l.unwrap().file_name()).collect();
    assert_eq!(links, ["lo"]);
    let listener = TcpListener::bind("127.0.0.1:5000").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let out = TcpStream::connect_timeout(&"192.0.2.1:80".parse().unwrap(), Duration::from_secs(1));
    assert!(out.is_err(), "a packet left the world");
}

fn processes_are_its_own(_: &World) {
    assert_eq!(pids(), [1, std::process::id()]);
}

fn cgroups_are_its_own(_: &World) {
    let hierarchies = cgroup::hierarchies().unwrap();
    assert!(!hierarchies.is_empty());
    for line in fs::read_to_string("/proc/self/cgroup").unwrap().lines() {
        assert!(line.ends_with(":/") || line.ends_with(":/init"), "{line}");
    }
    for hierarchy in hierarchies {
        let group = hierarchy.mount.join("probe");
        fs::create_dir(&group).unwrap();
        assert!(group.join("cgroup.procs").exists());
        fs::remove_dir(group).unwrap();
    }
}

fn orphans_are_reaped(_: &World) {
    let _ = Run::new("sh").args(["-c", "(sleep 0.1 &)"]).done().ok();
    eventually("the orphan is gone", PATIENCE, || (pids().len() == 2).then_some(()));
}

fn configuration_is_its_own(world: &World) {
    fs::create_dir_all("/etc/catamaran").unwrap();
    fs::write("/etc/catamaran/config.toml", "").unwrap();
    assert!(Path::new("/run/world/etc/upper/catamaran/config.toml").exists());
    assert_eq!(std::env::var_os("HOME").unwrap(), world.dir.join("home"));
}

fn leaks_are_found(world: &World) {
    assert_eq!(leak::find(world), [""; 0]);
    let id = "0123456789abcdef".repeat(4);
    let group = cgroup::hierarchies().unwrap()[0].mount.join(&id);
    fs::create_dir(&group).unwrap();
    fs::create_dir_all(world.root().join("containers").join(&id)).unwrap();
    let mut sleeper = Run::new("sleep").arg("60").start();
    let left = leak::find(world);
    for what in ["process", "cgroup", "root/containers/"] {
        assert!(left.iter().any(|line| line.starts_with(what)), "{what} not in {left:?}");
    }
    sleeper.kill();
    fs::remove_dir(group).unwrap();
}

/// Somebody stays frozen in every way that there is: the world ends all the same, or this test never does.
fn frozen_processes_end_too(_: &World) {
    for hierarchy in cgroup::hierarchies().unwrap() {
        let group = hierarchy.mount.join("ice");
        fs::create_dir(&group).unwrap();
        for (file, value) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            if group.join(file).exists() {
                let script = format!("echo 0 > {}/cgroup.procs && exec sleep 3600", group.display());
                let mut sleeper = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
                let procs = group.join("cgroup.procs");
                eventually("somebody to freeze", PATIENCE, || {
                    assert!(sleeper.try_wait().unwrap().is_none());
                    (!fs::read_to_string(&procs).unwrap().is_empty()).then_some(())
                });
                fs::write(group.join(file), value).unwrap();
            }
        }
    }
}
