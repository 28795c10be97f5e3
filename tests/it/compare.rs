//! `cata compare`: both hulls, measured.

use std::time::Duration;

use cata_tests::command::eventually;
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::machines::on_kvm;
use crate::test;

/// For one boot on a host with other things to do.
const BOOT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(compare_measures_both_and_leaves_nothing).with_kernel().also_in_lab_for(70)]
}

fn compare_measures_both_and_leaves_nothing(w: &World) {
    let server = "mkdir -p /www && touch /ready && exec httpd -f -p 8080 -h /www";
    let words = ["compare", "--format", "json", "--expose", "8080", "--cpus", "1", "--memory", "200m"];
    let more = ["busybox", "sh", "-c", server];
    let both = w.cata_run(words.iter().chain(&more)).patience(BOOT).done().json();
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    let (container, vm) = (&both["container"], &both["vm"]);
    assert_eq!(both["ready"]["port"], 8080, "{both:#}");
    assert_eq!((&both["host"]["kernel"], &container["view"]["kernel"]), (&host.clone().into(), &host.into()));
    // What was allocated is what its kernel has; a container sees the host's.
    assert_eq!((&vm["view"]["cpus"], &container["view"]["cpus"]), (&1.into(), &both["host"]["cpus"]));
    assert!(vm["view"]["memory"].as_u64().unwrap() <= 200 << 20, "{vm:#}");
    let shared = |hull: &serde_json::Value, what: &str| hull["shared"][what].as_bool().unwrap();
    assert!(shared(container, "kernel") && !shared(container, "pid namespace"), "{container:#}");
    // Not even the kernel, which may be of the host's version.
    assert!(vm["shared"].as_object().unwrap().values().all(|shared| shared == false), "{vm:#}");
    let names = |hull: &serde_json::Value| -> Vec<String> {
        let list = hull["on_host"].as_array().unwrap().iter();
        list.map(|process| process["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names(container).contains(&"httpd".to_owned()), "{container:#}");
    assert!(names(vm).contains(&"cata-vmm".to_owned()) && !names(vm).contains(&"httpd".to_owned()), "{vm:#}");
    assert_eq!(
        (&container["view"]["root"], &vm["view"]["root"]),
        (&"overlay".into(), &"virtiofs".into()),
        "{both:#}"
    );
    for hull in [container, vm] {
        let number = |what: &str| hull[what].as_f64().unwrap();
        assert!(0.0 < number("first_instruction_ms") && number("first_instruction_ms") <= number("ready_ms"));
        let (whole, outside) = (hull["memory"]["whole"].as_u64(), hull["memory"]["outside"].as_u64());
        assert!(whole > outside && outside > Some(0), "{hull:#}");
    }
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // Boots are dear in the lab, and what follows is the same on both.
    if on_kvm() {
        return;
    }
    // What cannot be measured is said, and nothing stays.
    w.cata(&["compare", "--expose", "9", "busybox", "sh", "-c", "exit 3"]).fails(1, &["exit code 3", "stay"]);
    w.cata(&["compare", "--timeout", "1s", "--ready", "9", "busybox", "sleep", "900"]).fails(1, &["port 9"]);
    w.cata(&["compare", "--pid", "host", "busybox"]).fails(1, &["--pid=host", "vm"]);
    w.cata(&["compare", "--name", "x", "busybox"]).fails(125, &["--name"]);
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // Killed in the middle: whichever runs goes with it.
    let mut killed = w.cata_run(["compare", "--ready", "false", "busybox", "sleep", "900"]).start();
    let ps = |args: &[&str]| w.cata(args).text();
    eventually("it runs", SOON, || (!ps(&["ps", "-q"]).is_empty()).then_some(()));
    killed.kill();
    eventually("it is removed", SOON, || ps(&["ps", "-aq"]).is_empty().then_some(()));
}
