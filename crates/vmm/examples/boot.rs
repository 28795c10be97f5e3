//! Boots a kernel in a machine of this library and says how it ended: for the lab, and for measurements.
//!
//!     boot --kernel FILE [--initramfs FILE]… [--cmdline TEXT] [--cpus N] [--memory MIB] [--serial] [--disk FILE]… [--rng] [--balloon]
//!          [--fs TAG=SOCKET] [--vsock SOCKET] [--tap NAME] [--pause MS] [--balloon-at MS=MIB]
//!
//!     boot --probe
//!
//! The console, or the serial port, goes to standard output; what is said of the machine to standard error.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cata_vmm::config::{BlockConfig, FsConfig, MachineConfig, NetConfig, VsockConfig};
use cata_vmm::{End, Machine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn open(path: &str, write: bool) -> anyhow::Result<OwnedFd> {
    let file =
        File::options().read(true).write(write).open(path).with_context(|| format!("cannot open {path}"))?;
    Ok(file.into())
}

/// What happens to a machine that runs: after so many milliseconds it is held for as long, or its balloon
/// shall have so many mebibytes.
#[derive(Default)]
struct Events {
    pause: Option<u64>,
    balloon: Option<(u64, u64)>,
}

fn parse(mut arguments: VecDeque<String>, events: &mut Events) -> anyhow::Result<MachineConfig> {
    let mut config: Option<MachineConfig> = None;
    let (mut cpus, mut memory) = (1, 256);
    let console = || io::stdout().as_fd().try_clone_to_owned();
    while let Some(option) = arguments.pop_front() {
        let mut value = || arguments.pop_front().with_context(|| format!("{option} wants a value"));
        if option == "--kernel" {
            config = Some(MachineConfig::new(1, 0, open(&value()?, false)?));
            continue;
        }
        let config = config.as_mut().context("--kernel comes first")?;
        match option.as_str() {
            "--initramfs" => config.initramfs.push(open(&value()?, false)?),
            "--cmdline" => config.cmdline = value()?,
            "--cpus" => cpus = value()?.parse()?,
            "--memory" => memory = value()?.parse()?,
            "--serial" => config.serial = Some(console()?),
            "--disk" => {
                let file = open(&value()?, true)?;
                config.block.push(BlockConfig {
                    file,
                    read_only: false,
                    serial: format!("disk{}", config.block.len()),
                });
            }
            "--fs" => {
                let value = value()?;
                let (tag, path) = value.split_once('=').context("--fs TAG=SOCKET")?;
                config.fs.push(FsConfig { tag: tag.into(), socket: UnixStream::connect(path)?.into() });
            }
            "--tap" => {
                let tap = cata_sys::tap::make(&value()?)?;
                config.net.push(NetConfig { tap, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 });
            }
            "--vsock" => {
                let listener = UnixListener::bind(value()?)?.into();
                config.vsock = Some(VsockConfig { cid: 3, listener });
            }
            "--pause" => events.pause = Some(value()?.parse()?),
            "--balloon-at" => {
                let value = value()?;
                let (when, size) = value.split_once('=').context("--balloon-at MS=MIB")?;
                events.balloon = Some((when.parse()?, size.parse()?));
            }
            "--rng" => config.rng = true,
            "--balloon" => config.balloon = true,
            other => bail!("unknown option {other}"),
        }
    }
    let mut config = config.context("--kernel is missing")?;
    // The serial port has standard output for itself.
    if config.serial.is_none() {
        config.console = Some(console()?);
    }
    (config.vcpus, config.memory_bytes) = (cpus, memory << 20);
    Ok(config)
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--probe") {
        let began = Instant::now();
        let answer = cata_vmm::probe::probe(Path::new("/dev/kvm"));
        writeln!(io::stdout(), "{answer}, found out in {:?}", began.elapsed())?;
        return Ok(());
    }
    let mut events = Events::default();
    let config = parse(std::env::args().skip(1).collect(), &mut events)?;
    let began = Instant::now();
    let machine = Machine::new(config, open("/dev/kvm", true)?)?;
    let made = began.elapsed();
    let running = machine.start(Some(&cata_vmm::jail::Filters::new()?))?;
    let started = began.elapsed();
    writeln!(io::stderr(), "boot: made in {made:?}, started after {started:?}")?;
    if let Some(wait) = events.pause.map(Duration::from_millis) {
        std::thread::sleep(wait);
        running.pause();
        let exits = running.facts()?.exits;
        std::thread::sleep(wait);
        let moved = running.facts()?.exits - exits;
        writeln!(io::stderr(), "boot: held for {wait:?}, {moved} exits meanwhile")?;
        running.resume();
    }
    if let Some((when, size)) = events.balloon {
        std::thread::sleep(Duration::from_millis(when));
        let before = running.facts()?.resident_bytes >> 20;
        running.set_balloon(size << 20);
        let patience = Instant::now() + Duration::from_secs(60);
        while running.balloon().is_some_and(|(_, actual)| actual != size << 20) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        let after = running.facts()?.resident_bytes >> 20;
        writeln!(
            io::stderr(),
            "boot: balloon {:?}, resident {before} MiB before, {after} MiB after",
            running.balloon()
        )?;
    }
    let ended = running.ended();
    while poll(&mut [PollFd::new(&ended, PollFlags::IN)], None::<&Timespec>).is_err() {}
    let (lived, facts) = (began.elapsed(), running.facts()?);
    let end = running.stop();
    writeln!(
        io::stderr(),
        "boot: {end:?} after {lived:?}; {} exits, {} MiB resident",
        facts.exits,
        facts.resident_bytes >> 20
    )?;
    if end == End::PowerOff { Ok(()) } else { bail!("the machine did not power itself off") }
}
