//! Boots a kernel in a machine of this library and says how it ended: for the lab, and for measurements.
//!
//!     boot --kernel FILE [--initramfs FILE]… [--cmdline TEXT] [--cpus N] [--memory MIB] [--serial] [--disk FILE]… [--rng] [--balloon]
//!
//!     boot --probe
//!
//! The console goes to standard output, what is said of the machine to standard error.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use cata_vmm::config::{BlockConfig, FsConfig, MachineConfig};
use cata_vmm::{End, Machine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn open(path: &str, write: bool) -> anyhow::Result<OwnedFd> {
    let file =
        File::options().read(true).write(write).open(path).with_context(|| format!("cannot open {path}"))?;
    Ok(file.into())
}

fn parse(mut arguments: VecDeque<String>) -> anyhow::Result<MachineConfig> {
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
            "--rng" => config.rng = true,
            "--balloon" => config.balloon = true,
            other => bail!("unknown option {other}"),
        }
    }
    let mut config = config.context("--kernel is missing")?;
    config.console = Some(console()?);
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
    let config = parse(std::env::args().skip(1).collect())?;
    let began = Instant::now();
    let machine = Machine::new(config, open("/dev/kvm", true)?)?;
    let made = began.elapsed();
    let running = machine.start(Some(&cata_vmm::jail::Filters::new()?))?;
    let started = began.elapsed();
    let ended = running.ended();
    while poll(&mut [PollFd::new(&ended, PollFlags::IN)], None::<&Timespec>).is_err() {}
    let (lived, facts) = (began.elapsed(), running.facts()?);
    let end = running.stop();
    writeln!(
        io::stderr(),
        "boot: {end:?}; made in {made:?}, started after {started:?}, ended after {lived:?}; {} exits, {} MiB resident",
        facts.exits,
        facts.resident_bytes >> 20
    )?;
    if end == End::PowerOff { Ok(()) } else { bail!("the machine did not power itself off") }
}
