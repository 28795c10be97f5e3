//! Cgroups on this machine, whichever version it has: limits, freezing, killing, devices, removing.
//!
//! Works below `/cata-test-<pid>` only, and removes it. Needs root; says so and is counted as skipped otherwise.

// Without the standard harness clippy does not see that these are tests.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cata_runtime::cgroup::{self, Cgroup, CgroupError, CgroupPlan, Controller, Directory, Layout};
use cata_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder,
};
use cata_sys::clone::{Namespaces, Side, SoleThread, clone, exit};

/// Under emulation everything takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = (&'static str, fn(&World));

const TESTS: &[Test] = &[
    ("limits_arrive_in_the_kernel", limits_arrive_in_the_kernel),
    ("out_of_memory_is_seen", out_of_memory_is_seen),
    ("process_limit_holds", process_limit_holds),
    ("freeze_stops_and_thaw_goes_on", freeze_stops_and_thaw_goes_on),
    ("kill_reaches_everybody", kill_reaches_everybody),
    ("kill_reaches_the_frozen", kill_reaches_the_frozen),
    ("devices_are_refused", devices_are_refused),
    ("all_devices_for_the_privileged", all_devices_for_the_privileged),
    ("remove_takes_what_the_container_made", remove_takes_what_the_container_made),
    ("update_raises_limits_and_adds_hierarchies", update_raises_limits_and_adds_hierarchies),
    ("born_inside", born_inside),
    ("a_used_cgroup_is_refused_and_a_left_one_replaced", a_used_cgroup_is_refused_and_a_left_one_replaced),
    ("a_refused_limit_leaves_nothing", a_refused_limit_leaves_nothing),
    ("processes_in_the_parent_are_named", processes_in_the_parent_are_named),
    ("timings", timings),
];

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if std::env::args().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        say(&format!("test result: ok. 0 passed; 0 failed; {} ignored (needs root)", TESTS.len()));
        return ExitCode::SUCCESS;
    }
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(error) => {
            say(&format!("test result: ok. 0 passed; 0 failed; {} ignored ({error})", TESTS.len()));
            return ExitCode::SUCCESS;
        }
    };
    let mut worlds = vec![("", layout.clone())];
    if layout.unified().is_some() && !layout.is_v2() {
        // A hybrid machine can also play one with version 1 alone.
        let hierarchies = layout.hierarchies.iter().filter(|h| !h.unified).cloned().collect();
        worlds.push(("v1 alone: ", Layout { hierarchies, ..layout }));
    }
    let (mut passed, mut failed) = (0, 0);
    for (prefix, layout) in worlds {
        let world =
            World { layout, parent: format!("/cata-test-{}", std::process::id()), skipped: Cell::new(None) };
        for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
            let ok = catch_unwind(AssertUnwindSafe(|| test(&world))).is_ok();
            let (count, word) = match (ok, world.skipped.take()) {
                (false, _) => (&mut failed, "FAILED".to_owned()),
                // A test of the other cgroup version is no skipped test of this one.
                (true, Some(why)) => {
                    say(&format!("test {prefix}{name} ... not for this host ({why})"));
                    continue;
                }
                (true, None) => (&mut passed, "ok".to_owned()),
            };
            *count += 1;
            say(&format!("test {prefix}{name} ... {word}"));
        }
        world.clean();
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!("test result: {word}. {passed} passed; {failed} failed; 0 ignored"));
    ExitCode::from(u8::from(failed > 0))
}

/// What a harness prints is its result.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

struct World {
    layout: Layout,
    parent: String,
    skipped: Cell<Option<&'static str>>,
}

impl World {
    fn plan(&self, name: &str, resources: Option<&LinuxResources>) -> Result<CgroupPlan, CgroupError> {
        cgroup::plan(resources, &format!("{}/{name}", self.parent), &self.layout)
    }

    fn make(&self, name: &str, resources: Option<&LinuxResources>) -> Made {
        let plan = self.plan(name, resources).unwrap();
        let group = cgroup::create(&plan).unwrap();
        assert_eq!(group.warnings(), Vec::<String>::new());
        Made { group, plan }
    }

    /// The running test does not apply here.
    fn skip(&self, why: &'static str) {
        self.skipped.set(Some(why));
    }

    fn clean(&self) {
        for hierarchy in &self.layout.hierarchies {
            let _ = std::fs::remove_dir(hierarchy.mount.join(&self.parent[1..]));
        }
    }
}

/// A cgroup that goes with the test, failed or not.
struct Made {
    group: Cgroup,
    plan: CgroupPlan,
}

impl Made {
    fn read(&self, controller: Controller, file: &str) -> String {
        let has = |d: &&Directory| d.controllers.contains(&controller);
        let directory = self.plan.directories.iter().find(has).unwrap();
        std::fs::read_to_string(directory.full().join(file)).unwrap().trim().to_owned()
    }

    fn exists(&self) -> bool {
        self.plan.directories.iter().any(|directory| directory.full().exists())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.group.kill(PATIENCE);
        let _ = self.group.remove(PATIENCE);
    }
}

/// A shell that runs `script` inside the cgroup.
struct Inside(Child);

impl Inside {
    fn start(group: &Cgroup, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        group.add(pid(&child)).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Self(child)
    }

    fn output(mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut text).unwrap();
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(2));
    }
}

fn memory(limit: i64, swap: i64) -> LinuxResourcesBuilder {
    let memory = LinuxMemoryBuilder::default().limit(limit).swap(swap).build().unwrap();
    LinuxResourcesBuilder::default().memory(memory)
}

fn everything() -> LinuxResourcesBuilder {
    let all = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().unwrap();
    LinuxResourcesBuilder::default().devices(vec![all])
}

fn limits_arrive_in_the_kernel(world: &World) {
    let cpu = LinuxCpuBuilder::default().quota(150_000).period(100_000_u64).shares(512_u64).cpus("0");
    let pids = LinuxPidsBuilder::default().limit(20).build().unwrap();
    let resources = memory(64 << 20, 96 << 20).pids(pids).cpu(cpu.build().unwrap()).build().unwrap();
    let made = world.make("limits", Some(&resources));
    assert_eq!(made.group.limit().unwrap(), Some(64 << 20));
    assert_eq!(made.read(Controller::Pids, "pids.max"), "20");
    assert_eq!(made.read(Controller::Cpuset, "cpuset.cpus"), "0");
    if world.layout.is_v2() {
        assert_eq!(made.read(Controller::Cpu, "cpu.max"), "150000 100000");
        assert_eq!(made.read(Controller::Cpu, "cpu.weight"), "59");
        assert_eq!(made.read(Controller::Memory, "memory.swap.max"), (32 << 20).to_string());
    } else {
        assert_eq!(made.read(Controller::Cpu, "cpu.cfs_quota_us"), "150000");
        assert_eq!(made.read(Controller::Memory, "memory.memsw.limit_in_bytes"), (96 << 20).to_string());
    }
    assert_eq!(Inside::start(&made.group, "echo here").output(), "here\n");
    let stats = made.group.stats().unwrap();
    assert_eq!(stats.memory.unwrap().limit, Some(64 << 20));
    assert_eq!(stats.pids.unwrap().limit, Some(20));
    assert!(stats.cpu.unwrap().usage > 0 && stats.io.is_some());
}

fn out_of_memory_is_seen(world: &World) {
    let made = world.make("oom", Some(&memory(20 << 20, 20 << 20).build().unwrap()));
    assert_eq!(made.group.oom_events().unwrap(), Some(0));
    let told = made.group.oom_fd().unwrap().unwrap();
    let mut inside = Inside::start(&made.group, "exec tail /dev/zero");
    let mut poll = [rustix::event::PollFd::new(&told, rustix::event::PollFlags::IN)];
    let timeout = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)).unwrap(), 1, "not told");
    let status = inside.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    eventually("no kill counted", || made.group.oom_events().unwrap() > Some(0));
    if let Some(peak) = made.group.peak().unwrap() {
        assert!((15 << 20..=20 << 20).contains(&peak), "{peak}");
    }
    assert!(rustix::io::read(&told, &mut [0; 4096]).unwrap() >= 8);
}

fn process_limit_holds(world: &World) {
    let pids = LinuxPidsBuilder::default().limit(5).build().unwrap();
    let made = world.make("pids", Some(&everything().pids(pids).build().unwrap()));
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 6000 & done; wait";
    let mut inside = Inside::start(&made.group, script);
    // The shell gives up when it cannot fork a fifth time, and leaves the others behind.
    assert!(!inside.0.wait().unwrap().success());
    assert_eq!(made.group.processes().unwrap().len(), 4);
    assert_eq!(made.group.stats().unwrap().pids.unwrap().current, 4);
}

fn freeze_stops_and_thaw_goes_on(world: &World) {
    let made = world.make("freeze", None);
    let _inside = Inside::start(&made.group, "while :; do :; done");
    let used = || made.group.stats().unwrap().cpu.unwrap().usage;
    eventually("does not run", || used() > 20_000_000);
    made.group.freeze().unwrap();
    assert!(made.group.is_frozen().unwrap());
    let before = used();
    sleep(Duration::from_millis(100));
    assert!(used() - before < 5_000_000, "runs on while frozen");
    made.group.thaw().unwrap();
    assert!(!made.group.is_frozen().unwrap());
    let before = used();
    eventually("does not go on", || used() > before + 20_000_000);
}

fn kill_reaches_everybody(world: &World) {
    let made = world.make("kill", None);
    let script = "trap '' TERM; for i in 1 2 3; do (sleep 600 & sleep 600) & done; wait";
    let inside = Inside::start(&made.group, script);
    eventually("not all started", || made.group.processes().unwrap().len() >= 7);
    assert!(made.group.processes().unwrap().contains(&pid(&inside.0)));
    made.group.kill(PATIENCE).unwrap();
    assert_eq!(made.group.processes().unwrap(), Vec::<i32>::new());
}

fn kill_reaches_the_frozen(world: &World) {
    let made = world.make("killfrozen", None);
    let _inside = Inside::start(&made.group, "sleep 600; sleep 600");
    eventually("not started", || made.group.processes().unwrap().len() == 2);
    made.group.freeze().unwrap();
    made.group.kill(PATIENCE).unwrap();
    assert_eq!(made.group.processes().unwrap(), Vec::<i32>::new());
}

/// Opens null and kmsg (1:11) by nodes of its own, for reading.
const OPEN_TWO: &str = "d=$(mktemp -d) && mknod $d/null c 1 3 && mknod $d/kmsg c 1 11 && \
    for n in null kmsg; do if (: <$d/$n) 2>/dev/null; then echo $n yes; else echo $n no; fi; done; rm -r $d";

fn devices_are_refused(world: &World) {
    let made =
        world.make("devices", Some(&LinuxResourcesBuilder::default().devices(vec![]).build().unwrap()));
    assert_eq!(Inside::start(&made.group, OPEN_TWO).output(), "null yes\nkmsg no\n");
    let allow = LinuxDeviceCgroupBuilder::default().allow(true).access("r").major(1).minor(11);
    let allow = allow.typ(cata_spec::runtime::LinuxDeviceType::C).build().unwrap();
    let resources = LinuxResourcesBuilder::default().devices(vec![allow]).build().unwrap();
    let made = world.make("devices2", Some(&resources));
    assert_eq!(Inside::start(&made.group, OPEN_TWO).output(), "null yes\nkmsg yes\n");
}

fn all_devices_for_the_privileged(world: &World) {
    let made = world.make("privileged", Some(&everything().build().unwrap()));
    assert_eq!(Inside::start(&made.group, OPEN_TWO).output(), "null yes\nkmsg yes\n");
}

fn remove_takes_what_the_container_made(world: &World) {
    let made = world.make("nested", None);
    for directory in &made.plan.directories {
        std::fs::create_dir_all(directory.full().join("init.scope/deep")).unwrap();
    }
    let mut inside = Inside::start(&made.group, "sleep 600");
    let scope = made.plan.directories[0].full().join("init.scope/cgroup.procs");
    std::fs::write(scope, inside.0.id().to_string()).unwrap();
    assert!(made.group.processes().unwrap().contains(&pid(&inside.0)), "children are not looked at");
    assert!(matches!(made.group.remove(Duration::ZERO), Err(CgroupError::TimedOut { .. })));
    made.group.kill(PATIENCE).unwrap();
    inside.0.wait().unwrap();
    made.group.remove(PATIENCE).unwrap();
    assert!(!made.exists());
    made.group.remove(Duration::ZERO).unwrap();
}

fn update_raises_limits_and_adds_hierarchies(world: &World) {
    let made = world.make("update", Some(&memory(32 << 20, 32 << 20).build().unwrap()));
    let _inside = Inside::start(&made.group, "sleep 600 & wait");
    eventually("not started", || made.group.processes().unwrap().len() == 2);
    let pids = LinuxPidsBuilder::default().limit(7).build().unwrap();
    let cpu = LinuxCpuBuilder::default().quota(50_000).build().unwrap();
    let more = memory(96 << 20, 128 << 20).pids(pids).cpu(cpu).build().unwrap();
    let plan = world.plan("update", Some(&more)).unwrap();
    let mut group = Cgroup::open(&made.plan).unwrap();
    group.update(&plan).unwrap();
    assert_eq!(group.limit().unwrap(), Some(96 << 20));
    let stats = group.stats().unwrap();
    assert_eq!(stats.pids.map(|pids| (pids.current, pids.limit)), Some((2, Some(7))));
    // Somebody who only knows the first plan finds what this update has made.
    Cgroup::open(&made.plan).unwrap().update(&plan).unwrap();
    let less = world.plan("update", Some(&memory(48 << 20, 48 << 20).build().unwrap())).unwrap();
    group.update(&less).unwrap();
    assert_eq!(group.limit().unwrap(), Some(48 << 20));
    group.kill(PATIENCE).unwrap();
    group.remove(PATIENCE).unwrap();
    assert!(plan.directories.iter().all(|directory| !directory.full().exists()));
    assert!(matches!(Cgroup::open(&plan), Err(CgroupError::Missing(_))));
}

fn born_inside(world: &World) {
    let made = world.make("born", None);
    let Some(unified) = made.group.unified_fd() else { return world.skip("no cgroup2 here") };
    match clone(SoleThread::check().unwrap(), Namespaces(0), Some(unified.as_fd())).unwrap() {
        Side::Child(_) => {
            if made.group.enter_rest().is_err() {
                exit(1);
            }
            sleep(Duration::from_secs(60));
            exit(0)
        }
        Side::Parent(pid, _) => {
            let number = pid.as_raw_nonzero().get();
            assert_eq!(made.group.processes().unwrap(), [number]);
            let listed = |directory: &Directory| {
                std::fs::read_to_string(directory.full().join("cgroup.procs")).unwrap().trim().to_owned()
            };
            for directory in &made.plan.directories {
                let end = Instant::now() + PATIENCE;
                while listed(directory) != number.to_string() {
                    assert!(Instant::now() < end, "not in {}", directory.full().display());
                    sleep(Duration::from_millis(1));
                }
            }
            made.group.kill(PATIENCE).unwrap();
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        }
    }
}

fn a_used_cgroup_is_refused_and_a_left_one_replaced(world: &World) {
    let made = world.make("twice", Some(&memory(32 << 20, 32 << 20).build().unwrap()));
    let inside = Inside::start(&made.group, "sleep 600");
    let error = cgroup::create(&made.plan).unwrap_err();
    assert!(matches!(error, CgroupError::InUse(_)), "{error}");
    made.group.kill(PATIENCE).unwrap();
    drop(inside);
    let again = cgroup::create(&world.plan("twice", None).unwrap()).unwrap();
    assert_eq!(again.limit().unwrap(), None, "the old limit is still there");
    assert!(made.exists());
}

fn a_refused_limit_leaves_nothing(world: &World) {
    let cpu = LinuxCpuBuilder::default().cpus("4000").build().unwrap();
    let resources = everything().cpu(cpu).build().unwrap();
    let plan = world.plan("refused", Some(&resources)).unwrap();
    let error = cgroup::create(&plan).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot set CPU set: writing `4000` to ") && text.ends_with("cpuset.cpus"),
        "{text}"
    );
    assert!(plan.directories.iter().all(|directory| !directory.full().exists()));
}

/// Version 2: who has processes of its own cannot hand controllers down.
fn processes_in_the_parent_are_named(world: &World) {
    if !world.layout.is_v2() {
        return world.skip("version 2 only");
    }
    let parent = world.make("parent", None);
    let _inside = Inside::start(&parent.group, "sleep 600");
    let limited = memory(32 << 20, 32 << 20).build().unwrap();
    let plan = world.plan("parent/child", Some(&limited)).unwrap();
    let error = cgroup::create(&plan).unwrap_err();
    assert!(error.to_string().contains("parent/cgroup.subtree_control"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("child cgroup of their own")));
    assert!(!plan.directories[0].full().exists());
    // Nothing was asked for: it is made, and says what is not counted.
    let group = cgroup::create(&world.plan("parent/child", None).unwrap()).unwrap();
    assert!(group.warnings().iter().any(|warning| warning.contains("`memory`")), "{:?}", group.warnings());
    assert_eq!(group.oom_events().unwrap(), None);
    assert_eq!(group.stats().unwrap().memory, None);
    group.remove(PATIENCE).unwrap();
}

/// Printed, never judged: `cargo test --release --test cgroup timings`.
fn timings(world: &World) {
    let docker = memory(256 << 20, 512 << 20).devices(vec![]).build().unwrap();
    for (name, resources) in [("no limits", None), ("memory and devices", Some(&docker))] {
        let mut best = [Duration::MAX; 5];
        for _ in 0..15 {
            let start = Instant::now();
            let plan = world.plan("timing", resources).unwrap();
            let planned = start.elapsed();
            let group = cgroup::create(&plan).unwrap();
            let made = start.elapsed() - planned;
            let (born, start) =
                match clone(SoleThread::check().unwrap(), Namespaces(0), group.unified_fd()).unwrap() {
                    Side::Child(_) => {
                        sleep(Duration::from_secs(60));
                        exit(0)
                    }
                    Side::Parent(pid, _) => (pid, Instant::now()),
                };
            group.add(born.as_raw_nonzero().get()).unwrap();
            let added = start.elapsed();
            let start = Instant::now();
            group.kill(PATIENCE).unwrap();
            let killed = start.elapsed();
            rustix::process::waitpid(Some(born), rustix::process::WaitOptions::empty()).unwrap();
            let start = Instant::now();
            group.remove(PATIENCE).unwrap();
            for (best, now) in best.iter_mut().zip([planned, made, added, killed, start.elapsed()]) {
                *best = now.min(*best);
            }
        }
        let [plan, make, add, kill, remove] = best;
        say(&format!(
            "  {name}: plan {plan:?}, create {make:?}, add {add:?}, kill {kill:?}, remove {remove:?}"
        ));
    }
}
