//! `cargo xtask bench vm`: our hypervisor and others on the same KVM, with the same kernel, guest and devices.
//!
//! Where this machine's KVM is not asked for (`--here`), the lab is: what is emulated is slower, and equally so
//! for all. The guest (`crates/guest/examples/measured.rs`) says letters; what counts is when they arrive, and
//! what the hypervisor's process holds meanwhile. Hypervisors take turns, round by round.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cata_kernel::cpio;
use cata_tests::world::World;
use cata_tests::{cache, kernel};

use crate::{build, deps, images};
use counts::Counts;
use figures::{Figures, Row};
use machine::Machine;
use monitor::{Kind, Monitor, Parts};

mod container;
mod counts;
mod figures;
mod machine;
mod memory;
mod monitor;

/// The tap's name, and the host's end of the link.
const TAP: &str = "bench0";
const HOST: &str = "10.99.0.1/24";
const PORT: &str = "10.99.0.1:7000";
/// Memory of a machine, what its guest takes and frees, the disk, and what goes over the network each way, in MiB.
const MEMORY: u64 = 1024;
const TAKEN: u64 = 500;
const DISK: u64 = 64;
const SENT: u64 = 32;
/// How many small reads, writes and messages.
const COUNT: u64 = 500;
/// How long freed memory may take to come back, and how long nothing more must come for it to count as all.
const BACK: Duration = Duration::from_secs(120);
const STILL: Duration = Duration::from_secs(15);

/// How often a machine is started that falls silent: a guest in the lab now and then does not wake up again, whatever runs it.
const TRIES: u32 = 3;

/// The tables: what is measured of a machine, in order.
const TABLES: [(&str, &[&str]); 7] = [
    ("boot, ms", &["first instruction of init", "all drivers and devices there"]),
    (
        "memory, MiB",
        &[
            "the hypervisor's own",
            "a guest of 1024 that has just booted",
            "with 500 taken",
            "with these freed",
        ],
    ),
    ("disk, s", &["64 MiB written", "64 MiB read", "500 reads of 4 KiB", "500 writes of 4 KiB"]),
    ("network, s", &["32 MiB to the host", "32 MiB from the host", "500 times there and back"]),
    ("counted, 32 MiB to the host", &Counts::COLUMNS),
    ("counted, 32 MiB from the host", &Counts::COLUMNS),
    ("counted, 500 times there and back", &Counts::COLUMNS),
];

/// Builds and goes where there is a KVM, or makes a world there, or measures in it.
pub(super) fn run(here: bool, rounds: usize, world: Option<World>) -> Result<()> {
    if let Some(world) = world {
        return measure(&world, rounds);
    }
    ensure!(rustix::process::geteuid().is_root(), "the benchmark needs root: it makes machines");
    if std::env::var_os("CATA_LAB").is_some() {
        return super::in_world(Vec::new(), None);
    }
    let programs = prepare()?;
    if here {
        let env = programs.into_iter().map(|(name, path)| (name.into(), path.into()));
        return super::in_world(env.collect(), None);
    }
    in_lab(&programs, rounds)
}

/// Builds everything; what the measuring program is to know.
fn prepare() -> Result<Vec<(&'static str, PathBuf)>> {
    deps::run(deps::Set::Bench)?;
    build::run(&build::Options { release: true, arm64: false })?;
    let folder = build::target().join("release");
    let programs = build::set_aside(&folder)?;
    for what in [["cata-vmm", "--example", "boot"], ["cata-guest", "--example", "measured"]] {
        let args = ["rustc", "--quiet", "--release", "--package"];
        let fixed = ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"];
        build::cargo(&[&args[..], &what[..], &fixed[..]].concat())?;
    }
    images::make(&["busybox"])?;
    images::kernels(&programs.cata)?;
    Ok(vec![
        ("CATA_BIN", programs.cata),
        ("CATA_SUPERVISOR", programs.supervisor),
        ("CATA_BENCH_BOOT", folder.join("examples/boot")),
        ("CATA_BENCH_GUEST", folder.join("examples/measured")),
    ])
}

fn in_lab(programs: &[(&str, PathBuf)], rounds: usize) -> Result<()> {
    let this = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(&this);
    // One processor: what a hypervisor does beside its guest is then seen too.
    command.args(["lab", "--cpus", "1", "--mem", "4096", "--timeout", "7200"]);
    for (name, path) in programs {
        command.arg("--env").arg(format!("{name}={}", path.display()));
    }
    for name in Kind::ALL.iter().filter_map(|kind| kind.variable()) {
        if std::env::var_os(name).is_some() && !programs.iter().any(|(known, _)| *known == name) {
            command.args(["--env", name]);
        }
    }
    command.arg("--scratch").arg(cache::dir()?.join("worlds")).arg("--").arg(this);
    command.args(["bench", "vm", "--rounds", &rounds.to_string()]);
    let status = command.status().context("run the lab")?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}

fn measure(world: &World, rounds: usize) -> Result<()> {
    counts::prepare();
    let parts = parts(world)?;
    let mut monitors = Vec::new();
    for kind in Kind::ALL {
        match Monitor::find(kind) {
            Ok(monitor) => monitors.push(monitor),
            Err(error) => println!("{} is left out: {error:#}", kind.name()),
        }
    }
    let mut tables = TABLES.map(|(_, columns)| Figures::new(columns));
    // The first machine of a hypervisor reads it, and its kernel, from the disk: that one is no figure.
    for monitor in &monitors {
        if let Err(error) = boot(monitor, &parts) {
            println!("{} for the first time: {error:#}", monitor.kind.name());
        }
    }
    for round in 1..=rounds {
        for monitor in &monitors {
            let name = monitor.kind.name();
            // One that does not work does not stop the others, and is no figure.
            for attempt in 1..=TRIES {
                match play(monitor, &parts) {
                    Ok(rows) => {
                        println!("round {round}, {name}: {}", figures::plain(&rows));
                        for (table, row) in tables.iter_mut().zip(rows) {
                            table.add(name, row);
                        }
                        break;
                    }
                    Err(error) => println!("round {round}, {name}, attempt {attempt}: {error:#}"),
                }
            }
        }
    }
    for ((what, _), table) in TABLES.iter().zip(&tables) {
        println!("\n## {what}: median of {rounds}, and how many times cata-vmm's\n\n{table}");
    }
    container::measure(world, rounds)
}

/// The kernel that `cata` runs, its drivers, and our program in the place of `cata-guest`.
fn parts(world: &World) -> Result<Parts> {
    kernel::seed(world)?;
    let kernel = world.root().join("kernels/default").canonicalize().context("find the default kernel")?;
    let mut initramfs = fs::read(kernel.join("initramfs")).context("read the drivers")?;
    let guest = std::env::var_os("CATA_BENCH_GUEST").context("$CATA_BENCH_GUEST names no program")?;
    let guest = fs::read(&guest).with_context(|| format!("read {}", guest.display()))?;
    let mut archive = cpio::Archive::new();
    archive.directory("dev")?;
    // Rust's programs do not begin without standard streams, and the first word comes before any file system.
    for (name, device) in [("dev/console", (5, 1)), ("dev/null", (1, 3)), ("dev/kmsg", (1, 11))] {
        archive.device(name, 0o600, device)?;
    }
    archive.file("init", 0o755, &guest)?;
    initramfs.extend(archive.finish());
    let path = world.file("initramfs", initramfs);
    let disk = world.scratch().join("disk");
    File::create(&disk)
        .and_then(|mut file| (0..DISK).try_for_each(|_| file.write_all(&[0x5a; 1 << 20])))
        .with_context(|| format!("write {}", disk.display()))?;
    for words in [
        &["tuntap", "add", TAP, "mode", "tap", "vnet_hdr"][..],
        &["addr", "add", HOST, "dev", TAP],
        &["link", "set", TAP, "up"],
    ] {
        let status = Command::new("ip").args(words).status().context("run `ip`")?;
        ensure!(status.success(), "ip {}: {status}", words.join(" "));
    }
    Ok(Parts {
        kernel: kernel.join("vmlinux"),
        initramfs: path,
        disk,
        tap: TAP,
        memory_mib: MEMORY,
        words: format!("BENCH_DISK={DISK} BENCH_NET={SENT} BENCH_COUNT={COUNT} BENCH_MEMORY={TAKEN}"),
        scratch: world.scratch(),
    })
}

/// A machine until its guest has its devices.
fn boot(monitor: &Monitor, parts: &Parts) -> Result<()> {
    let _listener = TcpListener::bind(PORT).context("listen for the guest")?;
    Machine::start(monitor, parts)?.until('D').map(drop)
}

/// A machine's whole life: a row for each of the tables.
fn play(monitor: &Monitor, parts: &Parts) -> Result<[Row; TABLES.len()]> {
    let listener = TcpListener::bind(PORT).context("listen for the guest")?;
    listener.set_nonblocking(true).context("listen for the guest")?;
    let mut machine = Machine::start(monitor, parts)?;
    let boot = [machine.until('K')?, machine.until('D')?].map(|at| at.as_secs_f64() * 1e3);
    let mut guest = accept(&listener)?;
    // What it did last is over by then.
    thread::sleep(Duration::from_millis(500));
    let idle = memory::of(machine.pid(), MEMORY)?;
    let go = |mut guest: &TcpStream| guest.write_all(&[1]).context("tell the guest to go on");
    go(&guest)?;
    let disk = machine.steps('a', "bcde")?;
    let counted = serve(&mut guest).context("the host's end of the network")?;
    let network = machine.steps('f', "ghi")?;
    machine.until('T')?;
    let taken = memory::of(machine.pid(), MEMORY)?;
    go(&guest)?;
    machine.until('F')?;
    // Until nothing more comes back.
    let (began, mut last, mut freed) = (Instant::now(), Instant::now(), taken.guest);
    while began.elapsed() < BACK && last.elapsed() < STILL {
        thread::sleep(Duration::from_millis(500));
        let now = memory::of(machine.pid(), MEMORY)?.guest;
        if now < freed - 1.0 {
            (freed, last) = (now, Instant::now());
        }
    }
    let [to, from, echo] = counted.map(|row| row.to_vec());
    Ok([boot.to_vec(), vec![idle.own, idle.guest, taken.guest, freed], disk, network, to, from, echo])
}

/// The guest's connection.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let began = Instant::now();
    loop {
        match listener.accept() {
            Ok((guest, _)) => {
                guest.set_nonblocking(false).context("use the guest's connection")?;
                guest.set_read_timeout(Some(machine::PATIENCE)).context("use the guest's connection")?;
                guest.set_nodelay(true).context("use the guest's connection")?;
                return Ok(guest);
            }
            Err(_) if began.elapsed() < machine::PATIENCE => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).context("the guest did not connect"),
        }
    }
}

/// The host's part: take, give, echo. What each of these took, in counts.
fn serve(guest: &mut TcpStream) -> std::io::Result<[[f64; 4]; 3]> {
    let mut buffer = vec![0_u8; 64 << 10];
    let pieces = (SENT << 20) / buffer.len() as u64;
    let mut byte = [0];
    let began = Counts::read(TAP);
    for _ in 0..pieces {
        guest.read_exact(&mut buffer)?;
    }
    guest.write_all(&[1])?;
    let taken = Counts::read(TAP);
    for _ in 0..pieces {
        guest.write_all(&buffer)?;
    }
    // The first of the small ones comes when all of this has arrived.
    guest.read_exact(&mut byte)?;
    let given = Counts::read(TAP);
    guest.write_all(&byte)?;
    for _ in 1..COUNT {
        guest.read_exact(&mut byte)?;
        guest.write_all(&byte)?;
    }
    let ended = Counts::read(TAP);
    Ok([taken.since(&began), given.since(&taken), ended.since(&given)])
}
