//! The machine's whole life: boot, then one loop that does what the host says.

use std::convert::Infallible;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_guest::protocol::{
    Boot, DECK, Exited, FIRST, Failed, Frame, Hello, Kind, ProtocolError, Start, Started, Stream, VERSION,
};
use cata_runtime::cgroup::{self, Cgroup};
use cata_runtime::plan::{Device, DeviceKind, Plan, Process};
use cata_runtime::{ExecPlan, Handles, SpawnError, Spawned};
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::process::{WaitOptions, wait};
use rustix::time::{ClockId, clock_gettime, clock_settime};

use crate::boot::{self, BootError, failed};
use crate::link::Link;
use crate::names::Names;
use crate::session::{Pipes, Session, failure};
use crate::{facts, network};

/// So many frames are taken from processes before the host is listened to again.
const TURNS: usize = 32;
/// How far the guest's clock may be off before it is set.
const DRIFT: u64 = 500_000_000;
/// Deeper than this no tree of devices is walked.
const DEVICES_DEEP: usize = 4;

struct Machine {
    link: Link,
    signals: SignalFd,
    cgroup: Option<Cgroup>,
    /// OOM kills told already.
    ooms: u64,
    names: Option<Names>,
    sessions: Vec<Session>,
}

/// Never returns but with an error.
pub(crate) fn run() -> Result<Infallible, BootError> {
    let drivers = boot::load_drivers();
    boot::move_to_tmpfs()?;
    boot::mount_kernels_own()?;
    // The OOM killer takes the container's processes, never this one.
    fs::write("/proc/self/oom_score_adj", "-1000").map_err(failed("be spared by the OOM killer"))?;
    raise_limits();
    let signals = SignalFd::new(&[rustix::process::Signal::CHILD.as_raw()]).map_err(failed("see signals"))?;
    let port = boot::open_port(&drivers)?;
    let mut machine =
        Machine { link: Link::new(port), signals, cgroup: None, ooms: 0, names: None, sessions: Vec::new() };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let hello = Hello { version: VERSION, kernel, drivers };
    machine.link.send(&Frame::document(Kind::Hello, 0, &hello)?)?;
    loop {
        machine.turn()?;
    }
}

impl Machine {
    fn turn(&mut self) -> Result<(), BootError> {
        self.wait()?;
        self.link.flush()?;
        self.link.read()?;
        while let Some(frame) = self.link.next()? {
            self.obey(&frame)?;
        }
        while self.signals.next().is_some() {}
        self.reap()?;
        self.exchange()?;
        if let Some(names) = &mut self.names {
            for frame in names.ready() {
                self.link.send(&frame)?;
            }
        }
        self.bury()
    }

    /// Until something can be done.
    fn wait(&self) -> Result<(), BootError> {
        let mut flags = PollFlags::IN;
        if self.link.wants_to_write() {
            flags |= PollFlags::OUT;
        }
        let mut watched = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.link.is_heard() {
            watched.push(PollFd::new(&self.link, flags));
        }
        for session in &self.sessions {
            if !self.link.is_full() {
                watched.extend(session.readable().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            }
            watched.extend(session.writable().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        }
        if let Some(names) = self.names.as_ref().filter(|_| !self.link.is_full()) {
            watched.extend(names.readable().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        // A port that nobody has opened yet is always ready: look again in a moment.
        let first = (!self.link.is_heard()).then(|| Duration::from_millis(2));
        let wait = self.sessions.iter().filter_map(Session::wait).chain(first).min();
        let timeout = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(failed("wait")(error)),
        }
    }

    fn obey(&mut self, frame: &Frame) -> Result<(), BootError> {
        match frame.kind {
            Kind::Boot => return self.boot(frame),
            Kind::Start => return self.start(frame),
            Kind::Clock => set_clock(u64::from_le_bytes(frame.number()?)),
            Kind::Ask => {
                let first = self.sessions.iter().find(|session| session.number == FIRST);
                let told = facts::tell(frame.parse()?, self.cgroup.as_ref(), first.map(|first| first.pid));
                self.link.send(&Frame::document(Kind::Told, frame.session, &told)?)?;
            }
            Kind::Answer => {
                if let Some(names) = &mut self.names {
                    names.answer(frame);
                }
            }
            Kind::Data | Kind::Eof | Kind::Credit | Kind::Signal | Kind::Resize | Kind::Hangup => {
                // One that has just ended: the host will hear of it.
                let Some(session) = self.sessions.iter_mut().find(|s| s.number == frame.session) else {
                    return Ok(());
                };
                if let Some(answer) = for_session(session, frame)? {
                    self.link.send(&answer)?;
                }
            }
            kind => return Err(ProtocolError::Turn(kind).into()),
        }
        Ok(())
    }

    fn boot(&mut self, frame: &Frame) -> Result<(), BootError> {
        let boot: Boot = frame.parse()?;
        let answer = match self.make_ready(&boot) {
            Ok(()) => Frame::new(Kind::Booted, 0, Vec::new()),
            Err(error) => {
                let mut text = error.to_string().into_bytes();
                text.truncate(Kind::Fatal.longest());
                Frame::new(Kind::Fatal, 0, text)
            }
        };
        self.link.send(&answer)
    }

    fn make_ready(&mut self, boot: &Boot) -> Result<(), BootError> {
        set_clock(boot.clock);
        let deck = PathBuf::from("/").join(DECK);
        fs::create_dir_all(&deck).map_err(failed("make /deck"))?;
        boot::mount_at("virtiofs", DECK, &deck, &[], 0)?;
        // Programs that reserve much and use little find on a small machine what they find on a large host.
        let _ = fs::write("/proc/sys/vm/overcommit_memory", "1");
        // Fails for no name that the engine lets through.
        let _ = rustix::system::sethostname(boot.hostname.as_bytes());
        network::configure(boot)?;
        if boot.names {
            self.names = Some(Names::listen()?);
        }
        let made = cgroup::create(&boot.cgroup);
        self.cgroup = Some(made.map_err(|error| {
            BootError::System("make the container's cgroup".into(), std::io::Error::other(error.to_string()))
        })?);
        Ok(())
    }

    fn start(&mut self, frame: &Frame) -> Result<(), BootError> {
        let number = frame.session;
        if number == 0 || self.sessions.iter().any(|session| session.number == number) {
            return Err(ProtocolError::Turn(Kind::Start).into());
        }
        let start: Start = frame.parse()?;
        let answer = match self.spawn(number, start) {
            Ok(started) => Frame::document(Kind::Started, number, &started)?,
            Err(failed) => Frame::document(Kind::Failed, number, &failed)?,
        };
        self.link.send(&answer)
    }

    fn spawn(&mut self, number: u32, start: Start) -> Result<Started, Failed> {
        let io = |error: rustix::io::Errno| Failed {
            message: format!("cannot make streams: {}", std::io::Error::from(error)),
            hint: None,
            exit_code: 125,
        };
        let terminal = match &start {
            Start::First { plan, .. } => plan.process.terminal,
            Start::Further { process } => process.terminal,
        };
        let pipes = if terminal { Pipes::none() } else { Pipes::new() }.map_err(io)?;
        let mut spawned = match start {
            Start::First { mut plan, all_devices } => {
                if all_devices {
                    let known: Vec<PathBuf> = plan.devices.iter().map(|d| d.path.clone()).collect();
                    let more = devices(Path::new("/dev"), DEVICES_DEEP);
                    plan.devices.extend(more.into_iter().filter(|device| !known.contains(&device.path)));
                }
                self.first(&plan, &pipes)
            }
            Start::Further { process } => self.further(*process, &pipes),
        }
        .map_err(|error| failure(&error))?;
        let withheld = std::mem::take(&mut spawned.withheld);
        let session = Session::new(number, spawned, pipes).map_err(io)?;
        let pid = session.pid;
        self.sessions.push(session);
        Ok(Started { pid, withheld })
    }

    fn handles<'a>(&'a self, pipes: &'a Pipes) -> Handles<'a> {
        let [stdin, stdout, stderr] = &pipes.theirs;
        let handles = Handles::new(stdin.as_fd(), stdout.as_fd(), stderr.as_fd());
        match &self.cgroup {
            Some(cgroup) => handles.cgroup(cgroup),
            None => handles,
        }
    }

    fn first(&mut self, plan: &Plan, pipes: &Pipes) -> Result<Spawned, SpawnError> {
        self.ooms = self.count_ooms();
        cata_runtime::spawn(plan, &self.handles(pipes))
    }

    fn further(&self, process: Process, pipes: &Pipes) -> Result<Spawned, SpawnError> {
        let first = self.sessions.iter().find(|session| session.number == FIRST);
        let container = first.ok_or(SpawnError::NotRunning)?;
        cata_runtime::exec(
            &ExecPlan { process, personality: None },
            container.process(),
            &self.handles(pipes),
        )
    }

    fn count_ooms(&self) -> u64 {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_events().ok().flatten()).unwrap_or(0)
    }

    fn reap(&mut self) -> Result<(), BootError> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                .unwrap_or(255);
            let pid = pid.as_raw_nonzero().get();
            if let Some(session) = self.sessions.iter_mut().find(|session| session.pid == pid) {
                // Process 1 of a namespace dies of this signal only when one in it has had the machine powered off.
                let powered_off = session.number == FIRST
                    && status.terminating_signal() == Some(rustix::process::Signal::INT.as_raw());
                let code = if powered_off { 0 } else { code };
                session.reaped(code);
                let exiting = Frame::new(Kind::Exiting, session.number, Vec::new());
                self.link.send(&exiting)?;
            }
        }
        Ok(())
    }

    /// Streams, both ways.
    fn exchange(&mut self) -> Result<(), BootError> {
        for session in &mut self.sessions {
            if let Some(grant) = session.write() {
                self.link.send(&grant)?;
            }
            for frame in session.signal_again() {
                self.link.send(&frame)?;
            }
            for _ in 0..TURNS {
                if self.link.is_full() {
                    break;
                }
                let Some(frame) = session.read() else { break };
                self.link.send(&frame)?;
            }
        }
        Ok(())
    }

    /// Sessions that are over.
    fn bury(&mut self) -> Result<(), BootError> {
        let mut at = 0;
        while at < self.sessions.len() {
            let Some(code) = self.sessions[at].over() else {
                at += 1;
                continue;
            };
            let session = self.sessions.remove(at);
            let (mut oom, mut peak) = (false, None);
            if session.number == FIRST {
                // The host ends the machine when it hears of it.
                rustix::fs::sync();
                oom = self.count_ooms() > self.ooms;
                peak = self.cgroup.as_ref().and_then(|cgroup| cgroup.peak().ok().flatten());
            }
            let exited = Exited { code, oom, peak };
            self.link.send(&Frame::document(Kind::Exited, session.number, &exited)?)?;
        }
        Ok(())
    }
}

/// As service managers do: a kernel's own limits are those of forty years ago.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // What the kernel refuses stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(524_288) });
    let _ = setrlimit(Resource::Memlock, Rlimit { current: Some(8 << 20), maximum: Some(8 << 20) });
}

fn for_session(session: &mut Session, frame: &Frame) -> Result<Option<Frame>, ProtocolError> {
    match frame.kind {
        Kind::Data => match frame.stream()? {
            (Stream::Stdin, bytes) => session.give(bytes)?,
            _ => return Err(ProtocolError::Turn(Kind::Data)),
        },
        Kind::Eof => session.end_input(),
        Kind::Credit => {
            let (stream, bytes) = frame.granted()?;
            session.granted(stream, bytes)?;
        }
        Kind::Signal => return Ok(Some(session.signal(i32::from_le_bytes(frame.number()?)))),
        Kind::Resize => {
            let (rows, columns) = frame.size()?;
            session.resize(rows, columns);
        }
        Kind::Hangup => session.hang_up(),
        kind => return Err(ProtocolError::Turn(kind)),
    }
    Ok(None)
}

/// Sets the clock if it is off by more than a little: stepping it disturbs programs.
fn set_clock(host: u64) {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let own = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0));
    if own.abs_diff(host) > DRIFT {
        let time = Timespec {
            tv_sec: i64::try_from(host / 1_000_000_000).unwrap_or(0),
            tv_nsec: i64::try_from(host % 1_000_000_000).unwrap_or(0),
        };
        // Process 1 of a machine may.
        let _ = clock_settime(ClockId::Realtime, time);
    }
}

/// Every node below a directory, for a privileged container.
fn devices(dir: &Path, deep: usize) -> Vec<Device> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() && deep > 0 {
            found.extend(devices(&entry.path(), deep - 1));
        } else if kind.is_block_device() || kind.is_char_device() {
            let file_type = FileType::from_raw_mode(meta.mode());
            found.push(Device {
                path: entry.path(),
                kind: if file_type == FileType::BlockDevice { DeviceKind::Block } else { DeviceKind::Char },
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
                mode: meta.mode() & 0o777,
                uid: meta.uid(),
                gid: meta.gid(),
            });
        }
    }
    found
}
