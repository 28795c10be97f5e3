//! Containers in virtual machines. A boot takes seconds under software emulation: few machines, each asked much.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use cata_tests::cache::Recipe;
use cata_tests::command::{Done, Run, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::{World, pids};

use crate::test;

/// For one boot on a host with other things to do.
pub(crate) const BOOT: Duration = Duration::from_secs(180);
pub(crate) const SOON: Duration = Duration::from_secs(100);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(machine_on_what_there_is).with_kernel().also_in_lab_for(30),
        test!(machine_is_a_container).with_kernel().also_in_lab_for(220),
        test!(machine_memory).with_kernel().also_in_lab_for(190),
        test!(machine_terminal).with_kernel().also_in_lab_for(30),
        test!(machine_ends_and_starts_again).with_kernel(),
        test!(machine_on_networks).with_kernel().also_in_lab_for(45),
        test!(machine_files).with_kernel().images(&["debian"]),
        test!(machine_faults).with_kernel().also_in_lab_for(100),
        test!(machine_bad_input).with_kernel(),
    ]
}

#[track_caller]
pub(crate) fn run(w: &World, args: &[&str]) -> Done {
    let mut words = vec!["run", "--isolation", "vm"];
    words.extend(args);
    w.cata_run(words).patience(BOOT).done()
}

pub(crate) fn processes_named(name: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            first.ends_with(name.as_bytes())
        })
    };
    pids().into_iter().filter(has).collect()
}

/// Whether machines run on KVM here: they must in the lab, and need not elsewhere.
pub(crate) fn on_kvm() -> bool {
    std::env::var_os("CATA_LAB").is_some()
}

/// Processes whose end is a guest's: of KVM `cata-vmm` itself, else QEMU.
fn monitors() -> Vec<u32> {
    if !on_kvm() {
        return processes_named("qemu-system-x86_64");
    }
    let runs_one = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"machine"))
    };
    processes_named("cata-vmm").into_iter().filter(runs_one).collect()
}

#[track_caller]
fn no_monitors() {
    eventually("no monitor is left", SOON, || monitors().is_empty().then_some(()));
}

/// What ends with a machine may be at it for another moment.
#[track_caller]
pub(crate) fn gone(name: &str) {
    eventually(&format!("no {name} is left"), SOON, || processes_named(name).is_empty().then_some(()));
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // What has ended by itself meanwhile need not be killed.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// The least: another kernel, and a word on what runs it. In the lab it is KVM.
fn machine_on_what_there_is(w: &World) {
    let told = w.cata(&["info"]).text();
    let monitor = if on_kvm() { "vm: kvm" } else { "vm: " };
    assert!(told.contains(monitor), "{told}");
    let script = "uname -r; nproc; exit 7";
    let done = run(w, &["--rm", "--timing", "--cpus", "1", "busybox", "sh", "-c", script]).exits(7);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("-cloud-amd64") && lines[1] == "1", "{done}");
    // The parts of a boot, in their order, each of which takes some time.
    let phases: Vec<&str> = done.stderr.lines().map(str::trim).collect();
    let at =
        |name: &str| phases.iter().position(|line| line.starts_with(name) && !line.contains(" 0.000 ms"));
    let parts = ["vmm", "kernel", "guest", "process", "total"].map(at);
    assert!(parts.iter().all(Option::is_some) && parts.is_sorted(), "{done}");
}

/// One machine, and everything that is asked of a container in it.
fn machine_is_a_container(w: &World) {
    let script = "trap 'echo asked; exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.2; done";
    // Two, or all that the host has.
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(2));
    let count = cpus.to_string();
    let options = ["-d", "--name", "vm1", "--memory", "300m", "--cpus", &count, "-u", "1000:1000"];
    let more = [
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "--hostname",
        "deck",
        "--pids-limit",
        "50",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_RAW",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "500ms",
        "--health-retries",
        "1",
    ];
    let mut args = options.to_vec();
    args.extend(more);
    args.extend(["busybox", "sh", "-c", script]);
    let _ = run(w, &args).ok();
    let sh = |script: &str| w.cata_run(["exec", "vm1", "sh", "-c", script]).patience(SOON).done();
    assert_ne!(sh("cat /proc/sys/kernel/random/boot_id").text(), host_boot().trim(), "the host's kernel");
    // What was allocated, and no more.
    assert_eq!(sh("nproc").text(), count);
    let memory = sh("free -m | awk '/Mem:/ { print $2 }'").text().parse::<u32>().unwrap();
    assert!((200..=300).contains(&memory), "{memory} MB");
    assert_eq!(sh("id -u; id -g; echo $A; pwd; hostname").lines(), ["1000", "1000", "b c", "/tmp", "deck"]);
    assert_eq!(sh("cat /sys/fs/cgroup/pids.max").text(), "50");
    let caps = sh("grep -E 'CapBnd|Seccomp:' /proc/1/status").ok().stdout;
    assert!(caps.contains("0000000000002000") && caps.contains("Seccomp:\t2"), "{caps}");
    assert!(sh("mount -t tmpfs x /tmp").stderr.contains("permission denied"));
    // exec: streams, codes, user, directory, environment.
    let done = w.cata_run(["exec", "-i", "vm1", "cat"]).input("piped").patience(SOON).done().ok();
    assert_eq!(done.stdout, "piped");
    assert_eq!(sh("echo no >&2; exit 9").exits(9).stderr.trim(), "no");
    let args = ["exec", "-u", "0", "-w", "/", "-e", "B=2", "vm1", "sh", "-c", "id -u; pwd; echo $B"];
    assert_eq!(w.cata(&args).lines(), ["0", "/", "2"]);
    w.cata(&["exec", "vm1", "nosuch"]).fails(127, &["not found"]);
    let _ = w.cata(&["exec", "vm1", "/etc/passwd"]).exits(126);
    let _ = w.cata(&["exec", "-d", "vm1", "sleep", "77"]).ok();
    // More than any buffer on the way, in both directions at once.
    let bulk = vec![b'x'; 3 << 20];
    let done = w.cata_run(["exec", "-i", "vm1", "cat"]).input(bulk).patience(SOON).done().ok();
    assert_eq!(done.stdout.len(), 3 << 20);
    // One that nobody reads does not stop the others.
    let mut deaf =
        w.cata_run(["exec", "-i", "vm1", "sh", "-c", "sleep 600"]).input(vec![b'y'; 1 << 20]).start();
    assert_eq!(sh("echo still here").text(), "still here");
    deaf.kill();
    // top tells the guest's processes; the host sees the machine only.
    let top = eventually("the guest's processes", SOON, || {
        Some(w.cata(&["top", "vm1"]).ok().stdout).filter(|top| top.contains("sleep 77"))
    });
    assert!(!top.contains("qemu"), "{top}");
    let ps = Run::new("ps").arg("aux").done().ok().stdout;
    assert!(!ps.contains("sleep 77") && ps.contains("cata-vmm machine"), "{ps}");
    machine_is_confined(w);
    let machine = w.inspect("vm1")["Machine"].clone();
    assert_eq!((&machine["Cpus"], &machine["Memory"]), (&cpus.into(), &(300 << 20).into()), "{machine}");
    assert!(!machine["Reason"].as_str().unwrap().is_empty());
    machine_is_copied_to_and_counted(w);
    // Health checks run in the guest.
    let health = |word: &str| {
        eventually(word, SOON, || (w.field("vm1", "{{.State.Health.Status}}") == word).then_some(()));
    };
    health("unhealthy");
    let _ = sh("touch /tmp/well").ok();
    health("healthy");
    machine_holds_still(w);
    assert_eq!(sh("echo awake").text(), "awake");
    eventually("its trap is set", SOON, || w.cata(&["logs", "vm1"]).stderr.contains("err").then_some(()));
    let _ = w.cata_run(["stop", "-t", "90", "vm1"]).patience(SOON).done().ok();
    let logs = w.cata(&["logs", "vm1"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\nasked\n", "err\n"));
    assert_eq!(w.field("vm1", "{{.State.ExitCode}}"), "7");
    no_monitors();
}

/// Tells this boot of this kernel from any other.
fn host_boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()
}

/// A paused machine's processors stand still, and what runs it does not: it has to hear of its end.
fn machine_holds_still(w: &World) {
    let counts = "while echo >> /tmp/n; do sleep 0.02; done";
    let _ = w.cata_run(["exec", "-d", "vm1", "sh", "-c", counts]).patience(SOON).done().ok();
    let id = w.field("vm1", "{{.Id}}");
    let file = w.root().join("containers").join(id).join("upper/tmp/n");
    let count = || fs::metadata(&file).map_or(0, |meta| meta.len());
    let moves = || {
        let before = count();
        eventually("it counts", SOON, || (count() != before).then_some(()));
    };
    moves();
    let _ = w.cata(&["pause", "vm1"]).ok();
    // What was on its way to the file has arrived, and nothing comes after it.
    let still = eventually("it stands still", SOON, || {
        let before = count();
        assert_eq!(w.field("vm1", "{{.State.Status}}"), "paused");
        (count() == before).then_some(before)
    });
    w.cata(&["exec", "vm1", "true"]).fails(1, &["paused"]);
    w.cata(&["pause", "vm1"]).fails(1, &["paused"]);
    // It was asked to: nothing froze what runs it.
    let mut looked_at = 0;
    for pid in processes_named("cata-vmm") {
        for line in fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().lines() {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            for file in [format!("{path}/cgroup.freeze"), format!("/freezer{path}/freezer.state")] {
                let Ok(state) = fs::read_to_string(format!("/sys/fs/cgroup{file}")) else { continue };
                looked_at += 1;
                assert!(["0", "THAWED"].contains(&state.trim()), "{file}: {state}");
            }
        }
    }
    assert!(looked_at > 0, "no cgroup of it was found");
    assert_eq!(count(), still);
    let _ = w.cata(&["unpause", "vm1"]).ok();
    moves();
}

/// Files go in and come out while it runs, and the limit is its own.
fn machine_is_copied_to_and_counted(w: &World) {
    let sh = |script: &str| w.cata_run(["exec", "vm1", "sh", "-c", script]).patience(SOON).done();
    let sent = w.file("sent", "by cp\n");
    let _ = w.cata(&["cp", sent.to_str().unwrap(), "vm1:/tmp/sent"]).ok();
    assert_eq!(sh("cat /tmp/sent; echo by the guest > /tmp/made").text(), "by cp");
    let got = w.scratch().join("made");
    let _ = w.cata(&["cp", "vm1:/tmp/made", got.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(got).unwrap(), "by the guest\n");
    let limit = w.cata(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "vm1"]).text();
    assert!(limit.ends_with("300MiB"), "{limit}");
    // The guest's: of the host's there are more, threads of the monitor and of the file server. Probes and sessions that
    // have just ended are counted too.
    eventually("the guest's processes are counted", SOON, || {
        let pids = w.cata(&["stats", "--no-stream", "--format", "{{.PIDs}}", "vm1"]).text();
        pids.parse::<u32>().is_ok_and(|pids| (1..=6).contains(&pids)).then_some(())
    });
}

/// What a guest that breaks out finds itself as, in the process that speaks to it (on KVM the monitor) and in QEMU.
fn machine_is_confined(w: &World) {
    let speaks =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0machine\0"));
    let links: Vec<u32> = processes_named("cata-vmm").into_iter().filter(speaks).collect();
    assert!(!links.is_empty() && !monitors().is_empty());
    for pid in links.iter().copied().chain(monitors()) {
        let own = |what: &str| format!("/proc/{pid}/{what}");
        assert_ne!(fs::metadata(own("")).unwrap().uid(), 0, "it runs as root");
        for thread in fs::read_dir(own("task")).unwrap().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap();
            assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
            assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
            assert!(status.contains("Seccomp:\t2"), "it has no filter: {status}");
        }
        // No file but what it was handed: the kernel that it boots, and devices of machines.
        let kernels = w.root().join("kernels");
        for entry in fs::read_dir(own("fd")).unwrap().flatten() {
            // A descriptor may be closed meanwhile; what is no file has a name without a slash.
            let Ok(file) = fs::read_link(entry.path()) else { continue };
            let given =
                ["/dev/null", "/dev/kvm", "/dev/net/tun"].iter().any(|known| file.as_os_str() == *known)
                    || file.to_string_lossy().starts_with("/memfd:")
                    || file.starts_with(&kernels);
            assert!(given || !file.is_absolute(), "{pid} holds {}", file.display());
        }
    }
    for pid in links {
        assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0, "its root is not empty");
        for namespace in ["mnt", "ipc", "uts", "cgroup", "net"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "it shares its {namespace} namespace");
        }
    }
}

/// The only guest's memory in MiB, and what a monitor of ours may hold beside it.
const GUEST: u64 = 700;
const BESIDE: u64 = 5;

/// How much of the only guest's memory exists on the host, in MiB.
fn held() -> u64 {
    for entry in monitors().iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap()).flatten()
    {
        let named = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
        let meta = fs::metadata(entry.path());
        if let Ok(meta) = meta.as_ref().map_err(|_| ()).and_then(|m| named.then_some(m).ok_or(()))
            && meta.len() == GUEST << 20
        {
            return meta.blocks() >> 11;
        }
    }
    panic!("no process holds a guest's memory");
}

/// What our monitor holds in KiB that is not the guest's: all but the mapping of that size.
fn beside() -> u64 {
    let [pid] = monitors()[..] else { panic!("one monitor, not {:?}", monitors()) };
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut sum, mut counted, mut guest) = (0, true, false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
            (Some("Size:"), Some(size)) => counted = size != GUEST << 10,
            (Some("Rss:"), Some(rss)) if counted => sum += rss,
            (Some("Rss:"), _) => guest = true,
            _ => {}
        }
    }
    assert!(guest, "no mapping is the guest's: {smaps}");
    sum
}

/// Memory that the guest does not use is not taken, what it frees comes back to the host, and so does what is taken
/// from it while it runs; of that it has again what it cannot do without.
fn machine_memory(w: &World) {
    let memory = format!("{GUEST}m");
    let options = ["-d", "--name", "mm", "--memory", &memory, "--cpus", "1", "--tmpfs", "/t:size=600m"];
    let _ = run(w, &[&options[..], &["busybox", "sleep", "3600"]].concat()).ok();
    let sh = |script: &str| w.cata_run(["exec", "mm", "sh", "-c", script]).patience(SOON).done();
    assert!(held() < 300, "a guest that has done nothing holds {} MiB", held());
    let _ = sh("dd if=/dev/zero of=/t/big bs=1M count=500").ok();
    assert!(held() >= 500, "{}", held());
    if on_kvm() {
        assert!(beside() <= BESIDE << 10, "our monitor holds {} KiB", beside());
    }
    let _ = sh("rm /t/big").ok();
    eventually("the host has it back", SOON, || (held() < 300).then_some(()));
    // A third of it, and what cannot be had while it runs.
    let _ = w.cata(&["update", "--memory", "256m", "mm"]).ok();
    let memory = || w.field("mm", "{{.Machine.Memory}} {{.HostConfig.Memory}}");
    assert_eq!(memory(), format!("{0} {0}", 256 << 20));
    let available =
        || sh("awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo").text().parse::<u64>().unwrap();
    // In pages: what the balloon took, and what it let go.
    let balloon = |what: &str| {
        let script = format!("awk '/^balloon_{what} / {{ print $2 }}' /proc/vmstat");
        sh(&script).text().parse::<u64>().unwrap()
    };
    eventually("the balloon has the rest", SOON, || {
        (balloon("inflate") - balloon("deflate") == (GUEST - 256) << 8).then_some(())
    });
    assert!(available() < 256);
    assert_eq!(balloon("deflate"), 0);
    w.cata(&["update", "--memory", "1g", "mm"]).fails(1, &["booted with 700 MiB", "cata stop mm"]);
    w.cata(&["update", "--pids-limit", "7", "mm"]).fails(1, &["from its boot"]);
    // More than it shall have, and less than it was booted with: nothing is killed for that.
    let _ = sh("dd if=/dev/zero of=/t/big bs=1M count=300").ok();
    assert_eq!(w.field("mm", "{{.State.OOMKilled}}"), "false");
    assert!(balloon("deflate") > 0);
    let _ = w.cata(&["update", "--memory", &format!("{GUEST}m"), "mm"]).ok();
    let _ = sh("rm /t/big").ok();
    eventually("the guest has all", SOON, || (available() > 400).then_some(()));
    let _ = w.cata(&["rm", "-f", "mm"]).ok();
}

fn machine_terminal(w: &World) {
    let mut command = Command::new(cata_binary());
    command.args(["run", "--rm", "-it", "--isolation", "vm", "--name", "tt", "busybox", "sh"]);
    command.env("CATA_ROOT", w.root()).env("CATA_STATE", w.state());
    let mut terminal = Terminal::run(&command, 30, 100);
    eventually("a prompt", BOOT, || terminal.shown().contains("# ").then_some(()));
    terminal.type_in("stty size; tty; echo $((6*7))\n");
    terminal.expect("30 100");
    terminal.expect("/dev/pts/0");
    terminal.expect("42");
    terminal.resize(40, 120);
    eventually("the new size", SOON, || {
        terminal.type_in("stty size\n");
        std::thread::sleep(Duration::from_millis(300));
        terminal.shown().contains("40 120").then_some(())
    });
    // One more terminal in the same guest.
    let mut exec = Command::new(cata_binary());
    exec.args(["exec", "-it", "tt", "sh", "-c", "stty size; tty; exec sleep 600"]);
    exec.env("CATA_ROOT", w.root()).env("CATA_STATE", w.state());
    let mut second = Terminal::run(&exec, 20, 90);
    second.expect("20 90");
    second.expect("/dev/pts/1");
    second.type_in("\x03");
    assert_eq!(second.exit_code(), 130);
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.exit_code(), 5);
}

/// What the program of `vm1` has written into `/starts`, once that is `count` lines: a machine is started before
/// its program has come to its first line.
fn starts_of(w: &World, count: usize) -> Vec<String> {
    eventually("the program's word", BOOT, || {
        let read = w.cata_run(["exec", "vm1", "cat", "/starts"]).patience(SOON).done();
        let lines = if read.code() == 0 { read.lines() } else { Vec::new() };
        assert!(lines.len() <= count, "more starts than {count}: {lines:?}");
        (lines.len() == count).then_some(lines)
    })
}

fn machine_ends_and_starts_again(w: &World) {
    // In the foreground: streams apart, input, exit code.
    let args = ["run", "--rm", "-i", "--isolation", "vm", "busybox", "sh", "-c", "cat; echo e >&2; exit 3"];
    let done = w.cata_run(args).input("in").patience(BOOT).done().exits(3);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("in", "e\n"));
    run(w, &["--rm", "busybox", "nosuch"]).fails(127, &["not found"]);
    // A machine that ends without its process having ended has a reason, which who looks on is told.
    let off = ["--rm", "--privileged", "busybox", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 600"];
    let off = run(w, &off).exits(125);
    assert!(off.stderr.contains("error: the virtual machine ("), "{off}");
    assert!(!off.stderr.contains("virtio_loop"), "{off}");
    // Nothing handles the signal: one second from the guest's word on, not the whole deadline, which is long because
    // a guest of a busy host may be slow to say so; who is killed before has said nothing.
    let script = "date +%s >> /starts; wc -l < /starts; sleep 600; exit 4";
    let _ = run(w, &["-d", "--name", "vm1", "--restart", "on-failure:1", "busybox", "sh", "-c", script]).ok();
    let _ = starts_of(w, 1);
    let stopped = w.cata_run(["stop", "--time", "600", "vm1"]).patience(BOOT).done().ok();
    assert!(stopped.stderr.contains("nothing in vm1 handles signal 15"), "{stopped}");
    assert_eq!(w.field("vm1", "{{.State.ExitCode}}"), "137");
    // What it wrote is still there, and so is what it is told by exec.
    let _ = w.cata_run(["start", "vm1"]).patience(BOOT).done().ok();
    let starts = starts_of(w, 2);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let told: u64 = starts[1].parse().unwrap();
    assert!(now.abs_diff(told) < 600, "the guest's clock says {told}, the host's {now}");
    // The policy restarts it, once.
    // The exec may end with the machine, before its own exit code is told.
    let _ = w.cata_run(["exec", "vm1", "sh", "-c", "kill $(pidof sleep)"]).patience(SOON).done();
    eventually("the policy's restart", BOOT, || {
        (w.field("vm1", "{{.RestartCount}} {{.State.Running}}") == "1 true").then_some(())
    });
    let _ = w.cata_run(["kill", "vm1"]).patience(SOON).done().ok();
    let _ = w.cata(&["wait", "vm1"]).ok();
    // The guest's OOM killer is named, and the limit was the machine's.
    let eat = ["--name", "eat", "--memory", "128m", "busybox", "sh", "-c", "tail -c 500m /dev/zero"];
    assert_eq!(run(w, &eat).code(), 137);
    assert_eq!(w.field("eat", "{{.State.OOMKilled}}"), "true");
    assert_eq!(w.field("eat", "{{.State.MemoryLimit}}"), (128_u64 << 20).to_string());
}

pub(crate) fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"hello\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then(|| text.trim().to_owned())
}

fn machine_on_networks(w: &World) {
    let serve = |word: &str| format!("while :; do echo {word} | nc -l -p 80; done");
    let _ = w.cata(&["network", "create", "deck"]).ok();
    let (from_container, from_vm) = (serve("container"), serve("machine"));
    let _ = w
        .cata(&["run", "-d", "--name", "cc", "--network", "deck", "busybox", "sh", "-c", &from_container])
        .ok();
    let options = ["-d", "--name", "vv", "--network", "deck", "-p", "8080:80", "--sysctl"];
    let mut args = options.to_vec();
    args.extend(["net.ipv4.ip_forward=1", "busybox", "sh", "-c", &from_vm]);
    let _ = run(w, &args).ok();
    let inside =
        |name: &str, script: &str| w.cata_run(["exec", name, "sh", "-c", script]).patience(SOON).done();
    // Names, both ways, through 127.0.0.11 in the guest too.
    eventually("the machine reaches the container", SOON, || {
        (inside("vv", "nc cc 80 < /dev/null").stdout.trim() == "container").then_some(())
    });
    eventually("the container reaches the machine", SOON, || {
        (inside("cc", "nc vv 80 < /dev/null").stdout.trim() == "machine").then_some(())
    });
    let lookup = inside("vv", "cat /etc/resolv.conf; nslookup cc 127.0.0.11").ok().stdout;
    assert!(lookup.contains("nameserver 127.0.0.11"), "{lookup}");
    eventually("the published port", SOON, || (ask(8080)? == "machine").then_some(()));
    assert_eq!(inside("vv", "cat /proc/sys/net/ipv4/ip_forward").text(), "1");
    let address = w.field("vv", "{{.NetworkSettings.Networks.deck.IPAddress}}");
    let own = inside("vv", "ip -o addr show eth0").ok().stdout;
    assert!(own.contains(&address), "{own}");
    // Boots are dear in the lab, and what follows is the same on both.
    if on_kvm() {
        return;
    }
    // A machine that starts again has the same device, and answers again.
    let _ = w.cata_run(["restart", "-t", "0", "vv"]).patience(BOOT).done().ok();
    eventually("the published port again", SOON, || (ask(8080)? == "machine").then_some(()));
    let _ = w.cata(&["rm", "-f", "vv"]).ok();
    assert!(TcpStream::connect(("127.0.0.1", 8080)).is_err());
    let none = run(w, &["--rm", "--network", "none", "busybox", "ip", "-o", "link"]).ok().stdout;
    assert!(none.contains("lo:") && !none.contains("eth0"), "{none}");
}

fn machine_files(w: &World) {
    let source = w.scratch().join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("given"), "given\n").unwrap();
    std::os::unix::fs::chown(source.join("given"), Some(1234), Some(2345)).unwrap();
    let bind = format!("{}:/src", source.display());
    let file = w.file("one", "one\n");
    let one = format!("{}:/etc/one:ro", file.display());
    // A link in a volume leads to what is in the volume.
    let _ = w
        .cata(&["run", "--rm", "-v", "data:/d", "debian", "sh", "-c", "mkdir /d/etc && ln -s /etc /d/link"])
        .ok();
    let script = "set -e\n\
        if test -e /sub/passwd; then exit 9; fi; touch /sub/mine\n\
        stat -c '%u:%g' /src/given; id > /src/owner; ls -ln /src > /dev/null\n\
        chown 77:88 /src/owner; ln -s given /src/link; mkdir /src/dir; mv /src/dir /src/moved\n\
        echo kept > /data/file; cat /etc/one; ! echo x > /etc/one; ! touch /cannot; ! touch /ro/x\n\
        stat -f -c %T /scratch; echo t > /scratch/t; ulimit -n; ulimit -Hn\n\
        mknod /src/null c 1 3; echo x > /src/null; cp /bin/true /src/true; chmod u+s /src/true; /src/true\n\
        cat /proc/sys/kernel/msgmax; df -m /dev/shm | tail -1 | awk '{print $2}'\n\
        python3 --version > /dev/null 2>&1 || true; cp -a /usr/bin /scratch/ && ls /scratch/bin | wc -l > /dev/null\n\
        dd if=/dev/zero of=/src/big bs=1M count=20 status=none; sync; stat -c %s /src/big";
    let args = [
        "--rm",
        "--read-only",
        "-v",
        &bind,
        "-v",
        &one,
        "-v",
        "data:/data",
        "-v",
        "data:/ro:ro",
        "--mount",
        "source=data,target=/sub,volume-subpath=link",
        "--tmpfs",
        "/scratch:size=256m",
        "--tmpfs",
        "/tmp",
        "--ulimit",
        "nofile=123:456",
        "--sysctl",
        "kernel.msgmax=9000",
        "--shm-size",
        "32m",
        "debian",
        "bash",
        "-c",
        script,
    ];
    let lines = run(w, &args).lines();
    assert_eq!(lines, ["1234:2345", "one", "tmpfs", "123", "456", "9000", "32", "20971520"]);
    let owner = fs::metadata(source.join("owner")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (77, 88), "owners are not kept");
    assert!(source.join("moved").is_dir());
    assert_eq!(fs::read_link(source.join("link")).unwrap().to_str(), Some("given"));
    let data = w.root().join("volumes/data/_data/file");
    assert_eq!(fs::read_to_string(&data).unwrap(), "kept\n");
    assert!(data.with_file_name("etc/mine").exists() && !fs::exists("/etc/mine").unwrap());
    assert_eq!(fs::read_to_string(file).unwrap(), "one\n");
    // Another container sees what the machine wrote.
    assert_eq!(w.cata(&["run", "--rm", "-v", "data:/d", "debian", "cat", "/d/file"]).text(), "kept");
}

/// Each end has a name, and nothing is left: the harness looks.
fn machine_faults(w: &World) {
    let sleeper = |name: &str| {
        let _ = run(w, &["-d", "--name", name, "-p", "8080:80", "busybox", "sleep", "600"]).ok();
    };
    let ended = |name: &str| {
        eventually("it has ended", SOON, || {
            (w.field(name, "{{.State.Status}}") == "exited").then(|| w.field(name, "{{.State.Error}}"))
        })
    };
    sleeper("vmm");
    let machine = w.field("vmm", "{{.State.Pid}}").parse().unwrap();
    kill(machine);
    assert!(ended("vmm").contains("was killed"), "{}", ended("vmm"));
    no_monitors();
    gone("virtiofsd");
    let _ = w.cata(&["rm", "vmm"]).ok();

    // On KVM the process that was just killed is the monitor.
    if !on_kvm() {
        sleeper("monitor");
        monitors().into_iter().for_each(kill);
        assert!(ended("monitor").contains("killed by signal 9"), "{}", ended("monitor"));
        let _ = w.cata(&["rm", "monitor"]).ok();
        gone("virtiofsd");
    }

    // One that holds still hears of it as well.
    sleeper("server");
    let _ = w.cata(&["pause", "server"]).ok();
    processes_named("virtiofsd").into_iter().for_each(kill);
    assert!(ended("server").contains("file server"), "{}", ended("server"));
    let _ = w.cata(&["rm", "server"]).ok();

    // Once whoever started it has been told that it runs.
    let _ = run(w, &["-d", "--name", "panic", "--privileged", "busybox", "sleep", "600"]).ok();
    let crash = ["exec", "-d", "panic", "sh", "-c", "echo c > /proc/sysrq-trigger"];
    let _ = w.cata_run(crash).patience(SOON).done();
    assert!(ended("panic").contains("kernel panicked"), "{}", ended("panic"));
    let _ = w.cata(&["rm", "panic"]).ok();

    // A supervisor that is killed takes its machine with it.
    sleeper("lost");
    let _ = w.cata(&["pause", "lost"]).ok();
    kill(w.inspect("lost")["State"]["SupervisorPid"].as_u64().map_or_else(
        || *processes_named("cata-supervisor").first().unwrap(),
        |pid| u32::try_from(pid).unwrap(),
    ));
    gone("cata-vmm");
    no_monitors();
    let _ = w.cata(&["rm", "-f", "lost"]).ok();

    // Whoever starts it goes away while it boots, and a stop while it boots.
    let args = ["run", "--rm", "--isolation", "vm", "busybox", "sleep", "600"];
    let mut starter = w.cata_run(args).start();
    eventually("it boots", SOON, || (!monitors().is_empty()).then_some(()));
    starter.kill();
    gone("cata-supervisor");
    eventually("a stop while it boots", SOON, || {
        no_monitors();
        let args = ["run", "-d", "--name", "early", "--isolation", "vm", "busybox", "sleep", "600"];
        let starter = w.cata_run(args).patience(BOOT).start();
        eventually("it boots", SOON, || (!monitors().is_empty()).then_some(()));
        let _ = w.cata_run(["stop", "early"]).patience(SOON).done().ok();
        let done = starter.done(SOON);
        assert_eq!(w.cata(&["ps", "-q"]).text(), "");
        if done.code() == 0 {
            // It was up before the stop came: once more.
            let _ = w.cata(&["rm", "early"]).ok();
            return None;
        }
        assert!(done.stderr.contains("stopped while its virtual machine booted"), "{done}");
        Some(())
    });
}

fn machine_bad_input(w: &World) {
    let refused = |args: &[&str], texts: &[&str]| {
        let mut words = vec!["--rm"];
        words.extend(args);
        run(w, &words).fails(125, texts);
    };
    refused(&["--kernel", "nope", "busybox", "true"], &["no such kernel: nope", "cata kernel"]);
    refused(&["--memory", "20m", "busybox", "true"], &["too little for a virtual machine"]);
    refused(&["--pid=host", "busybox", "true"], &["--pid=host is not possible", "kernel of its own"]);
    refused(&["--network", "host", "busybox", "true"], &["--network host is not possible"]);
    refused(&["--ipc", "container:x", "busybox", "true"], &["--ipc=container:x is not possible"]);
    refused(&["--device", "/dev/null", "busybox", "true"], &["--device /dev/null is not possible"]);
    refused(&["--vmm", "xen", "busybox", "true"], &["must be auto, kvm or qemu"]);
    refused(
        &["--mount", "type=bind,source=/no/such,target=/x", "busybox", "true"],
        &["source path does not exist: /no/such"],
    );
    other_platforms(w, &refused);
    // Two machines on one volume: locks would not reach from one into the other.
    let _ = run(w, &["-d", "--name", "vm1", "-v", "data:/data", "busybox", "sleep", "600"]).ok();
    refused(&["-v", "data:/data", "busybox", "true"], &["volume data is used", "vm1"]);
    let _ = run(w, &["--rm", "-v", "data:/data:ro", "busybox", "true"]).ok();
    // What runs it has namespaces, which are not its own: a container that joined them would be on the host.
    for flag in ["--pid", "--ipc", "--network"] {
        let args = ["run", "--rm", flag, "container:vm1", "busybox", "true"];
        w.cata(&args).fails(125, &["cannot join namespaces of vm1", "a kernel of its own", "by name"]);
    }
    // A kernel stays as long as a machine runs it.
    let kernel = w.field("vm1", "{{.Machine.Kernel}}");
    w.cata(&["kernel", "rm", &kernel]).fails(1, &["is in use by a running VM", "stop the VM first"]);
    assert!(w.cata(&["kernel", "ls", "-q"]).lines().contains(&kernel));
    let _ = w.cata(&["rm", "-f", "vm1"]).ok();
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // Programs that are not there.
    hidden("/usr/lib/qemu/virtiofsd", || {
        refused(&["busybox", "true"], &["virtiofsd is not installed", "qemu-system-common"]);
    });
    hidden("/usr/bin/qemu-system-x86_64", || {
        refused(&["--vmm", "qemu", "busybox", "true"], &["is not installed", "qemu-system-x86"]);
    });
    kvm_out_of_reach(&refused);
    // No kernel at all.
    fs::rename(w.root().join("kernels"), w.root().join("away")).unwrap();
    refused(&["busybox", "true"], &["no kernel for amd64 is installed", "cata kernel install"]);
    fs::rename(w.root().join("away"), w.root().join("kernels")).unwrap();
    let info = w.cata(&["info", "--format", "{{.Isolation.vm}}"]).text();
    assert!(info.starts_with("kvm (") || info.starts_with("qemu (KVM is not usable:"), "{info}");
}

/// A KVM that is there and may not be opened, and one that is not there.
fn kvm_out_of_reach(refused: &dyn Fn(&[&str], &[&str])) {
    use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
    let device = "/dev/kvm";
    let asked = ["--vmm", "kvm", "busybox", "true"];
    if !fs::exists(device).unwrap() {
        refused(&asked, &["--vmm kvm: missing", "--vmm qemu"]);
        return;
    }
    // Not even root opens a device on a file system without devices.
    mount_bind(device, device).unwrap();
    mount_remount(device, MountFlags::BIND | MountFlags::NODEV, c"").unwrap();
    refused(&asked, &["--vmm kvm: not permitted: /dev/kvm", "--vmm qemu"]);
    unmount(device, UnmountFlags::DETACH).unwrap();
    mount_bind("/dev/null", device).unwrap();
    refused(&asked, &["--vmm kvm: incomplete", "--vmm qemu"]);
    unmount(device, UnmountFlags::DETACH).unwrap();
}

/// Images of other platforms, and a host that runs none of them: what is missing is named.
fn other_platforms(w: &World, refused: &dyn Fn(&[&str], &[&str])) {
    // What is registered on this machine is not to matter.
    let formats = "/proc/sys/fs/binfmt_misc";
    rustix::mount::mount("none", formats, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755").unwrap();
    let tar = Recipe::of("busybox").made().unwrap();
    for arch in ["arm64", "s390x"] {
        let platform = format!("linux/{arch}");
        let _ = w.cata(&["import", "--platform", &platform, tar.to_str().unwrap(), arch]).ok();
    }
    let arm = ["--platform", "linux/arm64", "arm64", "true"];
    refused(&arm, &["no kernel for arm64 is installed", "cata kernel install --platform linux/arm64"]);
    refused(&["--vmm", "kvm", "arm64", "true"], &["--vmm kvm: linux/arm64 is another kind of processor"]);
    refused(&["--kernel", "6", "arm64", "true"], &["is for amd64, and the image for arm64"]);
    refused(&["s390x", "true"], &["the image is for linux/s390x", "linux/amd64 or linux/arm64"]);
    // In a container the kernel must know what to start such programs with.
    let package = "install Debian's package qemu-user-static";
    let args = ["run", "--rm", "arm64", "true"];
    w.cata(&args).fails(125, &["no emulator for arm64 is registered", package, "--isolation vm"]);
    w.cata(&["run", "--rm", "s390x", "true"]).fails(125, &["no emulator for s390x is registered", package]);
    let entry = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
    fs::write(format!("{formats}/qemu-aarch64"), entry).unwrap();
    // The image's content is the host's own: it runs without an emulator.
    let _ = w.cata(&args).ok();
    rustix::mount::unmount(formats, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// Runs with a program out of sight: an empty directory is where it was. The world's mounts are its own.
pub(crate) fn hidden(path: &str, then: impl FnOnce()) {
    let dir = std::path::Path::new(path).parent().unwrap();
    let copy = std::path::Path::new("/run/hidden");
    fs::create_dir_all(copy).unwrap();
    let name = std::path::Path::new(path).file_name().unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.file_name() != name) {
        let target = fs::canonicalize(entry.path()).unwrap_or_else(|_| entry.path());
        let _ = std::os::unix::fs::symlink(
            format!("/run/shown{}", target.display()),
            copy.join(entry.file_name()),
        );
    }
    fs::create_dir_all("/run/shown").unwrap();
    rustix::mount::mount_bind_recursive("/", "/run/shown").unwrap();
    rustix::mount::mount_bind(copy, dir).unwrap();
    then();
    rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::mount::unmount("/run/shown", rustix::mount::UnmountFlags::DETACH).unwrap();
    fs::remove_dir_all(copy).unwrap();
}
