//! How long a start takes. Printed, not judged: machines differ.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cata_runtime::{ExecPlan, ExecRequest, Handles, exec, spawn};
use serde_json::json;

use crate::world::{CAPABILITIES, CGROUP, Running, World, spec, wait};

const ROUNDS: usize = 200;

/// Everything an ordinary container has: six namespaces, overlay, cgroups, Docker's capabilities and filter.
pub(crate) fn run(world: &World) {
    let mut document = spec(&["/bin/true"]);
    document["linux"]["cgroupsPath"] = json!(format!("/{CGROUP}/{}", std::process::id()));
    document["linux"]["resources"] = json!({"pids": {"limit": 50}, "memory": {"limit": 67_108_864}});
    document["mounts"].as_array_mut().expect("a list").push(json!({"destination": "/sys/fs/cgroup",
        "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}));
    let filter = cata_runtime::seccomp::docker_default(
        &CAPABILITIES,
        cata_runtime::seccomp::Arch::native().expect("a known machine"),
    );
    document["linux"]["seccomp"] = serde_json::to_value(filter).expect("text");
    let plan = world.plan(&document);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let handles = Handles::new(null.as_fd(), null.as_fd(), null.as_fd());
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let cgroup = cata_runtime::cgroup::create(plan.cgroup.as_ref().expect("a plan")).expect("a cgroup");
        let made = Instant::now();
        let spawned = spawn(&plan, &handles.clone().cgroup(&cgroup)).expect("a container");
        let started = Instant::now();
        assert_eq!(wait(&spawned), 0);
        let ended = Instant::now();
        cgroup.remove(Duration::from_secs(5)).expect("an empty cgroup");
        times[0].push(made - begin);
        times[1].push(started - made);
        times[2].push(ended - begin);
        times[3].push(ended.elapsed());
    }
    let names = ["cgroup::create", "spawn", "create + spawn + exit", "cgroup::remove"];
    for (name, times) in names.iter().zip(&mut times) {
        print(name, times);
    }
    let plan = world.plan(&spec(&["sleep", "60"]));
    let running = Running::start(&plan);
    let further = ExecPlan::new(&plan, ExecRequest { argv: vec!["/bin/true".into()], ..Default::default() });
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            let spawned = exec(&further, running.spawned.pidfd.as_fd(), &handles).expect("a process");
            assert_eq!(wait(&spawned), 0);
            begin.elapsed()
        })
        .collect();
    print("exec + exit", &mut times);
}

fn print(name: &str, times: &mut [Duration]) {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{name:24} min {:.2} ms, median {:.2} ms", ms(times[0]), ms(times[times.len() / 2]));
}
