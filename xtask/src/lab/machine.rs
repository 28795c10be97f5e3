//! One run of the lab's machine: file servers, QEMU, the four ports, and the end.
//!
//! Sockets are made here and handed down by descriptor, so nothing has a path that could be too long or left
//! behind. Should this program be killed, its children are too.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache;
use rustix::io::FdFlags;

use super::kernel::Kernel;
use super::watch::{End, Watch};
use super::{Options, ramfs};

/// The exit code at the time limit, as `timeout` has it.
const TIMED_OUT: u8 = 124;

/// The throw-away disk; a file with holes.
const DISK: u64 = 16 << 30;

/// Parameters of the kernel: quiet, quick, and sure of its clock where the host is loaded.
const PARAMETERS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t nokaslr mitigations=off tsc=reliable \
    no_timer_check init_on_alloc=0 cryptomgr.notests audit=0 8250.nr_uarts=1 random.trust_cpu=on";

/// Runs the command in a machine; its exit status.
pub(super) fn run(options: &Options, kernel: &Kernel) -> Result<u8> {
    let place = Place::make()?;
    let mut shares = Vec::new();
    for (number, dir) in options.share.iter().enumerate() {
        let dir = dir.canonicalize().with_context(|| format!("share {}", dir.display()))?;
        shares.push((format!("lab{number}"), dir.to_string_lossy().into_owned()));
    }
    let mut initramfs = fs::read(&kernel.initramfs).context("read the kernel's initramfs")?;
    initramfs.extend(ramfs::make(options, &shares, &kernel.modules)?);
    fs::write(place.0.join("initramfs"), initramfs).context("write the initramfs")?;
    make_disk(&place.0.join("disk"))?;
    let console = match &options.log {
        Some(path) => path.clone(),
        None => place.0.join("console"),
    };
    File::create(&console).with_context(|| format!("create {}", console.display()))?;

    let mut machine = Machine::new(options, kernel, &place.0, &console);
    let mut servers = vec![machine.serve("labroot", "/", true, &place.0)?];
    for (tag, path) in &shares {
        servers.push(machine.serve(tag, path, false, &place.0)?);
    }
    let mut output = Vec::new();
    if !options.tty {
        output.push(machine.port("lab.out", io::stdout())?);
        output.push(machine.port("lab.err", io::stderr())?);
    }
    let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
    machine.add_port("lab.status", &theirs)?;
    drop(theirs);
    let mut watch = machine.watched()?;
    let mut qemu = machine.start(&place.0.join("qemu"))?;
    drop(machine);

    let end = watch.wait(&mut qemu.0, options.timeout)?;
    for copier in output {
        let _ = copier.join();
    }
    if end == End::Standstill {
        bail!("the machine stood still\n{}\n{}", watch.state, tail(&console));
    }
    if end == End::Limit {
        eprintln!("lab: the time limit of {} s has passed; the console's end:", options.timeout);
        eprintln!("{}", tail(&console));
        return Ok(TIMED_OUT);
    }
    let mut status = String::new();
    let mut ours = ours;
    ours.read_to_string(&mut status).context("read the command's status")?;
    match status.trim().parse() {
        Ok(status) => Ok(status),
        Err(_) => bail!(
            "the machine ended without a status\n{}\n{}\n{}",
            tail(&place.0.join("qemu")),
            tail(&place.0.join("virtiofsd")),
            tail(&console)
        ),
    }
}

/// The run's own directory, removed at its end.
struct Place(PathBuf);

impl Place {
    fn make() -> Result<Self> {
        let runs = cache::dir()?.join("lab/runs");
        fs::create_dir_all(&runs).with_context(|| format!("create {}", runs.display()))?;
        // What a killed run left.
        for entry in fs::read_dir(&runs).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = runs.join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that is ended with us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that the kernel kills when this thread ends.
fn child(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

fn make_disk(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(DISK).with_context(|| format!("extend {}", path.display()))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1"]).arg(path);
    let status = mke2fs.status().context("run `mke2fs` (Debian package e2fsprogs)")?;
    ensure!(status.success(), "mke2fs: {status}");
    Ok(())
}

/// QEMU's command line as it grows, and what it inherits.
struct Machine {
    command: Command,
    inherited: Vec<OwnedFd>,
    ports: u32,
}

impl Machine {
    fn new(options: &Options, kernel: &Kernel, place: &Path, console: &Path) -> Self {
        let mut command = child("qemu-system-x86_64");
        // q35 has a timer by which the kernel can measure its clock; `microvm` has none and hangs where the
        // host is loaded.
        command.args(["-M", "q35,usb=off,smbus=off,sata=off,vmport=off,memory-backend=mem"]);
        let memory = format!("memory-backend-memfd,id=mem,size={}M,share=on", options.mem);
        command.args(["-object", &memory, "-m", &options.mem.to_string(), "-smp", &options.cpus.to_string()]);
        let threads = if options.one_thread { "single" } else { "multi" };
        command.args(["-accel", &format!("tcg,thread={threads}"), "-cpu", "max,-la57"]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        // Threads with names, for who looks on.
        command.args(["-name", "lab,debug-threads=on"]);
        command.args(["-nic", "none", "-device", "virtio-serial-pci,max_ports=8"]);
        command.arg("-kernel").arg(&kernel.vmlinux).arg("-initrd").arg(place.join("initramfs"));
        let cgroups = if options.cgroup == "v2" { " cgroup_no_v1=all" } else { "" };
        // Measured by the guest against an emulated timer it is far off where the host is loaded.
        let clock = cata_sys::counter::frequency_khz().map(|khz| format!(" tsc_early_khz={khz}"));
        let clock = clock.unwrap_or_default();
        command.arg("-append").arg(format!("{PARAMETERS}{cgroups}{clock} {}", options.append));
        command.arg("-serial").arg(format!("file:{}", console.display()));
        let disk = place.join("disk");
        let disks = std::iter::once(&disk).chain(&options.disk);
        for (number, disk) in disks.enumerate() {
            let file = disk.to_string_lossy().replace(',', ",,");
            let cache = if number == 0 { ",cache=unsafe,discard=unmap" } else { "" };
            command.arg("-drive").arg(format!("if=none,id=d{number},file={file},format=raw{cache}"));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=d{number}"));
        }
        if options.tty {
            command.args(["-chardev", "stdio,id=tty,signal=off", "-device", "virtconsole,chardev=tty,nr=0"]);
        } else if options.stdin {
            command.args(["-chardev", "stdio,id=in,signal=off"]);
            command.args(["-device", "virtserialport,chardev=in,nr=7,name=lab.in"]);
        } else {
            command.stdin(Stdio::null());
        }
        Self { command, inherited: Vec::new(), ports: 0 }
    }

    /// Lets the next child have `fd`; its number.
    fn inherit(&mut self, fd: impl AsFd) -> Result<i32> {
        let copy = fd.as_fd().try_clone_to_owned().context("copy a descriptor")?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty()).context("let a descriptor be inherited")?;
        let number = copy.as_raw_fd();
        self.inherited.push(copy);
        Ok(number)
    }

    fn add_port(&mut self, name: &str, socket: &UnixStream) -> Result<()> {
        let fd = self.inherit(socket)?;
        let id = name.replace('.', "-");
        // Port 0 is for consoles.
        self.ports += 1;
        let number = self.ports;
        self.command.arg("-chardev").arg(format!("socket,id={id},fd={fd}"));
        self.command.arg("-device").arg(format!("virtserialport,chardev={id},nr={number},name={name}"));
        Ok(())
    }

    /// A port whose output is copied to `to`.
    fn port(&mut self, name: &str, mut to: impl Write + Send + 'static) -> Result<JoinHandle<()>> {
        let (mut ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        self.add_port(name, &theirs)?;
        Ok(thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = ours.read(&mut buffer) {
                // Whoever reads us may have gone; the command goes on.
                let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
            }
        }))
    }

    /// A monitor, and a port by which an interrupt can be sent.
    fn watched(&mut self) -> Result<Watch> {
        let (nudge, theirs) = UnixStream::pair().context("make a socket pair")?;
        self.add_port("lab.nudge", &theirs)?;
        let (monitor, theirs) = UnixStream::pair().context("make a socket pair")?;
        let fd = self.inherit(&theirs)?;
        self.command.arg("-chardev").arg(format!("socket,id=monitor,fd={fd}"));
        self.command.args(["-mon", "chardev=monitor,mode=control"]);
        Watch::new(monitor, nudge)
    }

    /// Starts a file server for `path` and adds its device.
    fn serve(&mut self, tag: &str, path: &str, cached: bool, place: &Path) -> Result<Ended> {
        let (new, old) = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd");
        let name = format!("cata-lab-{}-{tag}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).context("name a socket")?;
        let listener = UnixListener::bind_addr(&address).context("listen for the machine")?;
        // It accepts one connection, which is ours before it has even started.
        let connected = UnixStream::connect_addr(&address).context("connect to the file server")?;
        let cache = if cached { "always" } else { "auto" };
        let log = File::options().create(true).append(true).open(place.join("virtiofsd"))?;
        rustix::io::fcntl_setfd(&listener, FdFlags::empty()).context("let a descriptor be inherited")?;
        let fd = listener.as_raw_fd();
        let mut command = if Path::new(new).exists() {
            let mut command = child(new);
            command.arg(format!("--fd={fd}")).arg(format!("--shared-dir={path}"));
            command.args([&format!("--cache={cache}"), "--xattr", "--sandbox=chroot"]);
            command
        } else if Path::new(old).exists() {
            let mut command = child(old);
            command.arg(format!("--fd={fd}")).arg("-o").arg(format!("source={path}"));
            command.args(["-o", &format!("cache={cache}"), "-o", "xattr", "-o", "sandbox=chroot"]);
            command.arg("--thread-pool-size=0");
            command
        } else {
            bail!("no virtiofsd (Debian package qemu-system-common, from Debian 13 virtiofsd)");
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = command.spawn().context("run `setpriv` (Debian package util-linux)")?;
        drop(listener);
        let fd = self.inherit(&connected)?;
        self.command.arg("-chardev").arg(format!("socket,id={tag},fd={fd}"));
        self.command.arg("-device").arg(format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"));
        Ok(Ended(server))
    }

    fn start(&mut self, log: &Path) -> Result<Ended> {
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        self.command.stderr(log);
        self.command.spawn().map(Ended).context("run `setpriv` (Debian package util-linux)")
    }
}

/// A log's last lines.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
