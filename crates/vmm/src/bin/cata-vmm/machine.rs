//! `cata-vmm machine`: from the supervisor's word to the container's exit code.
//!
//! First as root and with nothing of the guest's in sight: the tree, its server, the monitor. Then this process
//! becomes another user and one loop passes everything between the guest and those outside.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cata_guest::order::{Disk, Errand, Links, Monitor, Order};
use cata_guest::protocol::{
    Boot, Exited, FIRST, Failed, Frame, Hello, Kind, ProtocolError, Start, Started, VERSION,
};
use cata_guest::report::{BootTimes, LONGEST, Report, Word};
use cata_runtime::plan::WindowSize;
use cata_sys::message;
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, waitpid};
use rustix::termios::tcgetwinsize;

use crate::child::Child;
use crate::console::Console;
use crate::names::Names;
use crate::pump::{Pump, make_raw};
use crate::qmp::Qmp;
use crate::relay::{Clients, Wire};
use crate::{Refusal, alone, kvm, qemu, read_errand, report, stage};

/// Most descriptors of a machine.
const MOST_DESCRIPTORS: usize = 64;
/// How long a guest may take to its first word: software emulation on a loaded host is slow.
const BOOT: Duration = Duration::from_secs(300);
/// How often the guest is told the time.
const CLOCK: Duration = Duration::from_secs(30);
/// How long the last output may take to be taken.
const LAST: Duration = Duration::from_secs(10);
/// A machine that ended for a reason of its own.
const BROKEN: i32 = 125;

/// See the module.
pub(crate) fn run(plan: &OwnedFd, supervisor: &OwnedFd) -> ExitCode {
    let mut machine = match begin(plan, supervisor.as_fd()) {
        Ok(machine) => machine,
        Err(Refusal(failed)) => {
            let code = failed.exit_code;
            report(supervisor.as_fd(), &Report::Failed(failed));
            return ExitCode::from(u8::try_from(code).unwrap_or(125));
        }
    };
    let end = machine.play(supervisor);
    let code = machine.finish(supervisor, end);
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The kernel boots.
    Booting,
    /// The guest gets ready.
    Preparing,
    /// The process is made.
    Starting,
    /// It runs.
    Running,
}

/// How it ended.
enum End {
    /// As it should: the process has ended.
    Exited(Exited),
    /// The process could not be made.
    Failed(Failed),
    /// The machine has ended.
    Broken(String),
    /// It is of no use, and another would be of none.
    Hopeless(String),
}

/// What runs the guest.
enum Running {
    Kvm(cata_vmm::Running),
    Qemu(Child, Qmp),
}

impl Running {
    /// Readable when it has ended.
    fn ended(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kvm(machine) => machine.ended(),
            Self::Qemu(child, _) => child.pidfd.as_fd(),
        }
    }

    /// Holds processors and devices where they are; whether they stand still already. QEMU says so later.
    fn pause(&self) -> bool {
        match self {
            Self::Kvm(machine) => {
                machine.pause();
                true
            }
            Self::Qemu(_, control) => {
                control.pause();
                false
            }
        }
    }

    fn resume(&self) {
        match self {
            Self::Kvm(machine) => machine.resume(),
            Self::Qemu(_, control) => control.resume(),
        }
    }
}

struct Machine {
    stage: Stage,
    errand: Errand,
    links: Links,
    wire: Wire,
    log: Console,
    complaints: Console,
    signals: SignalFd,
    monitor: Running,
    server: Child,
    pump: Pump,
    clients: Clients,
    names: Option<Names>,
    born: Instant,
    /// When the stage it is in began.
    since: Instant,
    times: BootTimes,
    told_time: Instant,
    /// Neither processors nor devices move, or are about to stop.
    held: bool,
}

/// What may be sent to a container's process; the rest is this process' own.
fn forwarded() -> Vec<i32> {
    let own = [
        Signal::KILL,
        Signal::STOP,
        Signal::CHILD,
        Signal::SEGV,
        Signal::BUS,
        Signal::FPE,
        Signal::ILL,
        Signal::PIPE,
    ]
    .map(Signal::as_raw);
    (1..32).chain(34..65).filter(|signal| !own.contains(signal)).collect()
}

fn begin(plan: &OwnedFd, supervisor: BorrowedFd<'_>) -> Result<Machine, Refusal> {
    // From the first moment: one that comes early is passed on when there is a process.
    let signals = SignalFd::new(&forwarded()).map_err(Refusal::at("receive signals"))?;
    let errand = read_errand(plan)?;
    let word = message::receive(supervisor, LONGEST, MOST_DESCRIPTORS)
        .map_err(Refusal::at("hear the supervisor"))?;
    let (bytes, fds) = word.ok_or_else(|| Refusal::new("the supervisor has gone"))?;
    let Word::Begin { links } = serde_json::from_slice(&bytes).map_err(Refusal::new)? else {
        return Err(Refusal::new("the supervisor speaks out of turn"));
    };
    let links =
        links.map(serde_json::from_value::<Links>).transpose().map_err(Refusal::new)?.unwrap_or_default();
    let mut fds = fds.into_iter();
    let kernel = fds.next().ok_or_else(|| Refusal::new("no kernel came along"))?;
    let archives: Vec<OwnedFd> = fds.by_ref().take(links.archives).collect();
    let taps: Vec<OwnedFd> = fds.collect();
    let (complaints, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(Refusal::at("make a pipe"))?;
    nonblocking(&complaints)?;
    let disks = open_disks(&errand.vm)?;
    let served = stage::serve(&errand.vm, &stderr)?;
    let (channel, theirs) = pair()?;
    let (log, their_log) = pair()?;
    nonblocking(&log)?;
    enum Made {
        Kvm(cata_vmm::Machine),
        Qemu(Child, Qmp),
    }
    let made = match errand.vm.monitor {
        Monitor::Qemu => {
            let (control, their_control) = pair()?;
            let ends = qemu::Ends {
                control: &their_control,
                kernel: &kernel,
                archives: &archives,
                channel: &theirs,
                log: &their_log,
                deck: &served.socket,
                taps: &taps,
                disks: &disks,
                stderr: &stderr,
            };
            Made::Qemu(qemu::start(&errand.vm, &links.interfaces, &ends)?, Qmp::new(control))
        }
        Monitor::Kvm => {
            let deck = served.socket;
            let ends = kvm::Ends { kernel, archives, channel: theirs, log: their_log, deck, taps, disks };
            Made::Kvm(kvm::make(&errand.vm, &links, ends)?)
        }
    };
    // The write ends are the children's: their end is to be seen.
    drop(stderr);
    let names = links.names.then(Names::new).transpose()?;
    let terminal = errand.plan.process.terminal;
    if terminal {
        make_raw();
    }
    let filters = alone::filters()?;
    alone::give_up_rights(errand.vm.uid)?;
    let born = Instant::now();
    let monitor = match made {
        Made::Qemu(child, control) => Running::Qemu(child, control),
        Made::Kvm(machine) => Running::Kvm(machine.start(Some(&filters)).map_err(Refusal::new)?),
    };
    alone::give_up_calls(&filters)?;
    Ok(Machine {
        stage: Stage::Booting,
        wire: Wire::new(channel),
        log: Console::new(log),
        complaints: Console::new(complaints),
        signals,
        monitor,
        server: served.server,
        pump: Pump::new(FIRST, terminal),
        clients: Clients::default(),
        names,
        errand,
        links,
        born,
        since: born,
        times: BootTimes { kernel: 0, guest: 0, process: 0 },
        told_time: Instant::now(),
        held: false,
    })
}

/// One at a time: a disk that two kernels write is destroyed.
fn open_disks(order: &Order) -> Result<Vec<OwnedFd>, Refusal> {
    let open = |disk: &Disk| {
        let path = disk.source.display();
        let file = File::options().read(true).write(true).open(&disk.source);
        let file = file.map_err(Refusal::at(format_args!("open the disk {path}")))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(Refusal::at(format_args!("lock the disk {path}")))?;
        Ok(OwnedFd::from(file))
    };
    order.disks.iter().map(open).collect()
}

fn pair() -> Result<(OwnedFd, OwnedFd), Refusal> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Refusal::at("make a pair of sockets"))
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Refusal> {
    fcntl_getfl(fd)
        .and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(Refusal::at("make a descriptor non-blocking"))
}

/// What a word from outside can lead to besides going on.
type Turn = Result<(), End>;

impl From<ProtocolError> for End {
    fn from(error: ProtocolError) -> Self {
        Self::Broken(format!("the guest does not keep to the protocol: {error}"))
    }
}

impl Machine {
    fn play(&mut self, supervisor: &OwnedFd) -> End {
        loop {
            if let Err(end) = self.turn(supervisor) {
                return end;
            }
        }
    }

    fn turn(&mut self, supervisor: &OwnedFd) -> Turn {
        self.wait(supervisor);
        self.log.read();
        self.complaints.read();
        if let Running::Qemu(_, control) = &mut self.monitor
            && control.has_stopped()
            && self.held
        {
            report(supervisor.as_fd(), &Report::Paused);
        }
        let closed = self.wire.flush().is_err() | !self.wire.read();
        while let Some(frame) = self.wire.next()? {
            self.hear(frame, supervisor)?;
        }
        self.listen(supervisor)?;
        if self.stage == Stage::Running {
            self.forward_signals()?;
            for frame in self.pump.exchange() {
                self.send(&frame)?;
            }
        }
        if !self.wire.is_full() {
            for frame in self.clients.listen() {
                self.send(&frame)?;
            }
        }
        if let Some(names) = &mut self.names {
            for frame in names.ready() {
                self.send(&frame)?;
            }
        }
        if self.stage == Stage::Running && !self.held && self.told_time.elapsed() >= CLOCK {
            self.tell_time()?;
        }
        if closed || is_readable(self.monitor.ended()) {
            return Err(End::Broken(self.why_it_ended()));
        }
        if is_readable(self.server.pidfd.as_fd()) {
            self.complaints.read();
            let said = self.complaints.last(3);
            let colon = if said.is_empty() { "" } else { ": " };
            return Err(End::Broken(format!("the file server ended{colon}{said}")));
        }
        if self.stage != Stage::Running && self.born.elapsed() >= BOOT {
            let seconds = BOOT.as_secs();
            let said = self.log.last(5);
            return Err(End::Hopeless(format!(
                "the guest was not ready after {seconds} s; its kernel said: {said}"
            )));
        }
        Ok(())
    }

    fn wait(&self, supervisor: &OwnedFd) {
        let mut flags = PollFlags::IN;
        if self.wire.wants_to_write() {
            flags |= PollFlags::OUT;
        }
        let read = PollFlags::IN;
        let mut watched = vec![
            PollFd::new(&self.wire, flags),
            PollFd::new(supervisor, read),
            PollFd::from_borrowed_fd(self.monitor.ended(), read),
            PollFd::new(&self.server.pidfd, read),
        ];
        if let Running::Qemu(_, control) = &self.monitor {
            watched.push(PollFd::from_borrowed_fd(control.fd(), read));
        }
        watched.extend(
            [self.log.fd(), self.complaints.fd()]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::from_borrowed_fd(fd, read)),
        );
        if self.stage == Stage::Running {
            watched.push(PollFd::new(&self.signals, read));
            watched.extend(self.pump.watched());
        }
        if !self.wire.is_full() {
            for wire in self.clients.wires() {
                let flags = if wire.wants_to_write() { PollFlags::IN | PollFlags::OUT } else { read };
                watched.push(PollFd::from_borrowed_fd(wire.as_fd(), flags));
            }
        }
        if let Some(names) = &self.names {
            watched.extend(names.readable().map(|fd| PollFd::from_borrowed_fd(fd, read)));
        }
        let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
        // Interrupted is as good as ready: everything is looked at.
        let _ = poll(&mut watched, Some(&timeout));
    }

    fn send(&mut self, frame: &Frame) -> Turn {
        self.wire.send(frame).map_err(|_| End::Broken(self.why_it_ended()))
    }

    fn tell_time(&mut self) -> Turn {
        self.told_time = Instant::now();
        self.send(&Frame::new(Kind::Clock, 0, now().to_le_bytes().to_vec()))
    }

    fn pause(&mut self, supervisor: &OwnedFd) {
        let still = self.held || self.monitor.pause();
        self.held = true;
        if still {
            report(supervisor.as_fd(), &Report::Paused);
        }
    }

    /// The guest's clock stood still meanwhile: it is told the time first thing.
    fn resume(&mut self) -> Turn {
        if !std::mem::take(&mut self.held) {
            return Ok(());
        }
        self.monitor.resume();
        self.tell_time()
    }

    /// The supervisor says something; its going is our end by another way.
    fn listen(&mut self, supervisor: &OwnedFd) -> Turn {
        if !is_readable(supervisor.as_fd()) {
            return Ok(());
        }
        match message::receive(supervisor.as_fd(), LONGEST, 1) {
            Ok(Some((bytes, fds))) => {
                match serde_json::from_slice(&bytes) {
                    Ok(Word::Client) => fds.into_iter().for_each(|fd| self.clients.add(fd)),
                    Ok(Word::Memory { bytes }) => self.set_memory(bytes),
                    Ok(Word::Pause) => self.pause(supervisor),
                    Ok(Word::Resume) => self.resume()?,
                    Ok(Word::Begin { .. }) | Err(_) => {}
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok(None) | Err(_) => Err(End::Broken("the supervisor has gone".to_owned())),
        }
    }

    fn set_memory(&self, bytes: u64) {
        let most = self.errand.vm.memory;
        match &self.monitor {
            Running::Kvm(machine) => {
                machine.set_balloon(most.saturating_sub(bytes));
            }
            Running::Qemu(_, control) => control.set_memory(bytes.min(most)),
        }
    }

    fn hear(&mut self, frame: Frame, supervisor: &OwnedFd) -> Turn {
        let own = frame.session == FIRST;
        match (frame.kind, self.stage) {
            (Kind::Hello, Stage::Booting) => {
                let hello: Hello = frame.parse()?;
                if hello.version != VERSION {
                    let text = format!(
                        "the guest's cata-guest speaks version {} of the protocol, this is {VERSION}: \
                         install the kernel again with `cata kernel install`",
                        hello.version
                    );
                    return Err(End::Hopeless(text));
                }
                self.stage = Stage::Preparing;
                self.times.kernel = self.took();
                let boot = Frame::document(Kind::Boot, 0, &self.boot())?;
                self.send(&boot)
            }
            (Kind::Fatal, _) => {
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                let clean: String = text.chars().filter(|c| !c.is_control()).collect();
                Err(End::Broken(format!("the guest could not get ready: {clean}")))
            }
            (Kind::Booted, Stage::Preparing) => {
                self.stage = Stage::Starting;
                self.times.guest = self.took();
                let start = Frame::document(Kind::Start, FIRST, &self.start())?;
                self.send(&start)
            }
            (Kind::Started, Stage::Starting) if own => {
                let started: Started = frame.parse()?;
                self.stage = Stage::Running;
                self.times.process = self.took();
                let boot = Some(self.times);
                report(supervisor.as_fd(), &Report::Started { withheld: started.withheld, boot });
                Ok(())
            }
            (Kind::Failed, Stage::Starting) if own => Err(End::Failed(frame.parse()?)),
            (Kind::Data | Kind::Eof | Kind::Credit, Stage::Running) if own => Ok(self.pump.take(&frame)?),
            (Kind::Fate, Stage::Running) if own => {
                let (signal, dropped) = frame.signal_fate()?;
                report(supervisor.as_fd(), &Report::Fate { signal, dropped });
                Ok(())
            }
            (Kind::Exiting, Stage::Running) if own => {
                report(supervisor.as_fd(), &Report::Exiting);
                Ok(())
            }
            (Kind::Exited, Stage::Running) if own => Err(End::Exited(frame.parse()?)),
            (Kind::Query, Stage::Running) => {
                let answer = match &mut self.names {
                    Some(names) => names.ask(&frame),
                    None => Some(Frame::new(Kind::Answer, frame.session, Vec::new())),
                };
                answer.map_or(Ok(()), |answer| self.send(&answer))
            }
            (
                Kind::Started
                | Kind::Failed
                | Kind::Data
                | Kind::Eof
                | Kind::Credit
                | Kind::Exited
                | Kind::Told,
                Stage::Running,
            ) if !own => {
                self.clients.tell(frame);
                Ok(())
            }
            (Kind::Fate | Kind::Exiting, Stage::Running) => Ok(()),
            (kind, _) => Err(ProtocolError::Turn(kind).into()),
        }
    }

    /// How long the stage took that has just ended, in microseconds.
    fn took(&mut self) -> u64 {
        let began = std::mem::replace(&mut self.since, Instant::now());
        u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn boot(&self) -> Boot {
        Boot {
            clock: now(),
            hostname: self.errand.plan.hostname.clone().unwrap_or_default(),
            network: self.links.interfaces.clone(),
            names: self.links.names,
            ipv6: self.links.ipv6,
            cgroup: self.errand.vm.cgroup.clone(),
        }
    }

    fn start(&self) -> Start {
        let mut plan = self.errand.plan.clone();
        plan.cgroup = Some(self.errand.vm.cgroup.clone());
        if plan.process.terminal {
            plan.process.window = tcgetwinsize(rustix::stdio::stdin())
                .ok()
                .map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col });
        }
        Start::First { plan: Box::new(plan), all_devices: self.errand.vm.all_devices }
    }

    fn forward_signals(&mut self) -> Turn {
        while let Some(signal) = self.signals.next() {
            let size = (signal == Signal::WINCH.as_raw()).then(|| self.pump.size()).flatten();
            self.send(&size.unwrap_or_else(|| Frame::signal(FIRST, signal)))?;
        }
        Ok(())
    }

    /// The monitor is gone: because of what?
    fn why_it_ended(&mut self) -> String {
        self.settle();
        if let Some(why) = self.log.panic() {
            return format!("the guest's kernel panicked: {why}");
        }
        let child = match &self.monitor {
            Running::Kvm(machine) => {
                let end = machine.end().map_or_else(|| "it hung up".to_owned(), |end| kvm::describe(&end));
                return format!("the virtual machine (kvm) ended: {end}");
            }
            Running::Qemu(child, _) => child.pid,
        };
        let status = waitpid(Some(child), WaitOptions::NOHANG).ok().flatten();
        let said = self.complaints.last(3);
        let how = match status.map(|(_, status)| (status.exit_status(), status.terminating_signal())) {
            Some((Some(0), _)) => "ended by itself".to_owned(),
            Some((Some(code), _)) => format!("ended with {code}"),
            Some((_, Some(signal))) => format!("was killed by signal {signal}"),
            _ => "hung up".to_owned(),
        };
        let monitor = self.errand.vm.monitor.as_str();
        let mut text = format!("the virtual machine ({monitor}) {how}");
        if !said.is_empty() {
            text.push_str(": ");
            text.push_str(&said);
        }
        let log = self.log.last(2);
        if said.is_empty() && !log.is_empty() {
            text.push_str("; the guest's last words: ");
            text.push_str(&log);
        }
        text
    }

    /// What has been written but not read yet.
    fn settle(&mut self) {
        let until = Instant::now() + Duration::from_millis(500);
        while (self.log.fd().is_some() || self.complaints.fd().is_some()) && Instant::now() < until {
            self.log.read();
            self.complaints.read();
            if self.log.panic().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells the supervisor, and what to exit with.
    fn finish(&mut self, supervisor: &OwnedFd, end: End) -> i32 {
        let hopeless = matches!(end, End::Hopeless(_));
        match end {
            End::Exited(exited) => {
                self.pump.finish(LAST);
                report(
                    supervisor.as_fd(),
                    &Report::Ended { oom: exited.oom, peak: exited.peak, error: None },
                );
                exited.code
            }
            End::Failed(failed) => {
                let code = failed.exit_code;
                report(supervisor.as_fd(), &Report::Failed(failed));
                code
            }
            End::Broken(message) if self.stage == Stage::Running => {
                self.pump.finish(LAST);
                report(supervisor.as_fd(), &Report::Ended { oom: false, peak: None, error: Some(message) });
                BROKEN
            }
            End::Broken(message) | End::Hopeless(message) => {
                let failed = Failed { message, hint: None, exit_code: BROKEN };
                let died = self.stage == Stage::Booting && !hopeless;
                report(supervisor.as_fd(), &if died { Report::Died(failed) } else { Report::Failed(failed) });
                BROKEN
            }
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&now)), Ok(1..))
}

/// Nanoseconds since the epoch.
fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
