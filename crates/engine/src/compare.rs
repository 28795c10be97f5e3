//! `compare`: one image both ways, a container and then a virtual machine, and what was measured of each.
//!
//! Both are leashed: when this process ends, however it ends, whichever runs is killed and removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cata_guest::protocol::{Ask, Told, View};
use cata_image::Progress;
use cata_kernel::image::Arch;
use cata_sandbox::health::HealthStatus;
use cata_sandbox::launch::Isolation;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::container::exec::ExecOptions;
use crate::container::machine::MachineFacts;
use crate::container::wait::Waiter;
use crate::container::{RemoveOptions, StartOptions, top};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::request::{CreateRequest, Transport};
use crate::timing::Timing;

/// Between two looks at whether it is ready.
const LOOK: Duration = Duration::from_millis(5);
/// How long a supervisor may take to say that its container has ended.
const NEWS: Duration = Duration::from_secs(2);
/// A connection on this machine is there at once, or not at all.
const CONNECT: Duration = Duration::from_secs(1);

/// What is compared, and when it counts as ready.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareRequest {
    /// The container; its isolation and its name are ours.
    pub create: CreateRequest,
    /// `--ready`.
    pub ready: Option<Ready>,
    /// How long each may take to become so.
    pub patience: Duration,
}

/// How one sees that a program does what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// It runs.
    Running,
    /// Its health check says so.
    Health,
    /// It takes connections at this TCP port.
    Port(u16),
    /// This shell command succeeds in it.
    Command(String),
}

/// Both, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// As typed.
    pub image: String,
    /// What "ready" meant.
    pub ready: Ready,
    /// What this process sees of the host.
    pub host: View,
    /// As a container.
    pub container: Hull,
    /// As a virtual machine.
    pub vm: Hull,
}

/// One way of running it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hull {
    /// What runs the machine, and why that.
    pub machine: Option<MachineFacts>,
    /// What its first process sees.
    pub view: View,
    /// From the start to the program's first instruction, milliseconds.
    pub first_instruction_ms: f64,
    /// From the start until it was ready, milliseconds.
    pub ready_ms: f64,
    /// Its processes, as its own kernel counts them.
    pub processes: usize,
    /// What the host sees of it.
    pub on_host: Vec<HostProcess>,
    /// What it costs the host.
    pub memory: Memory,
    /// What it has of the host's, and what is its own.
    pub shared: BTreeMap<String, bool>,
}

/// A process of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostProcess {
    /// As the host sees it.
    pub pid: i32,
    /// The kernel's 15-character name.
    pub name: String,
}

/// Proportional set sizes (PSS), bytes, when it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Memory {
    /// All its processes on the host, supervisor and monitor included.
    pub whole: u64,
    /// Without the program's own processes, or without the guest's memory.
    pub outside: u64,
}

impl Engine {
    /// Runs an image as a container, then as a virtual machine.
    ///
    /// # Errors
    /// As `create` and `start`; [`Error::State`] when it ends before it is ready, [`Error::Timeout`] when it
    /// does not become so. Nothing is left in any case.
    pub fn compare(&self, request: &CompareRequest, progress: &dyn Progress) -> Result<Comparison> {
        let hull = |isolation| CreateRequest {
            isolation,
            name: None,
            auto_remove: true,
            leashed: true,
            stop_timeout: Some(0),
            ..request.create.clone()
        };
        let process = CreateRequest { kernel: None, ..hull(Isolation::Process) };
        let vm = hull(Isolation::Vm);
        // What will stop the second is said before the first is started.
        crate::plan::vm::check(&vm)?;
        let arch = vm.platform.as_deref().map_or(Ok(Arch::NATIVE), crate::plan::platform::machine)?;
        self.choose_monitor(vm.monitor, arch)?;
        if !crate::plan::vm::is_whole(&vm) {
            self.kernel_open(vm.kernel.as_deref(), arch)?;
        }
        let host = cata_guest::view::of(own_pid()).map_err(Error::file("read", "/proc/self"))?;
        let (ready, container) = self.measure(process, request, &host, progress)?;
        let (_, vm) = self.measure(vm, request, &host, progress)?;
        Ok(Comparison { image: request.create.image.clone(), ready, host, container, vm })
    }

    fn measure(
        &self,
        create: CreateRequest,
        request: &CompareRequest,
        host: &View,
        progress: &dyn Progress,
    ) -> Result<(Ready, Hull)> {
        let record = self.create(create, progress, &mut Timing::default())?.record;
        let measured = self.measure_created(&record, request, host);
        // The leash is gone with the connection; a start that failed never had one.
        let removed = self.remove(record.id.as_str(), RemoveOptions { force: true, volumes: true });
        self.wait_gone(&record.id);
        let measured = measured?;
        match removed {
            Ok(()) | Err(Error::NoContainer(_)) => Ok(measured),
            Err(error) => Err(error),
        }
    }

    fn measure_created(
        &self,
        record: &Record,
        request: &CompareRequest,
        host: &View,
    ) -> Result<(Ready, Hull)> {
        let ready = request.ready.clone().unwrap_or_else(|| sign(record));
        let start = Instant::now();
        let started = self.start(record, StartOptions::default(), &mut Timing::default())?;
        let Some(started) = started else {
            return Err(Error::State { what: "somebody else has started it".to_owned(), hint: None });
        };
        let first_instruction = start.elapsed();
        if !self.wait_ready(record, &ready, &started.waiter, request.patience)? {
            return Err(ended(record, started.waiter));
        }
        let ready_after = start.elapsed();
        let (status, _) = self.status(&record.id)?;
        let looked = self.look(record, status.pid, status.supervisor_pid);
        let (view, processes, on_host, memory) = match looked {
            // Nothing can be seen of what has gone; its supervisor may hear of it a moment later.
            Err(_) if is_over(&started.waiter, NEWS) => return Err(ended(record, started.waiter)),
            looked => looked?,
        };
        let hull = Hull {
            machine: self.machine_facts(record),
            shared: shared(host, &view),
            view,
            first_instruction_ms: milliseconds(first_instruction),
            ready_ms: milliseconds(ready_after),
            processes,
            on_host,
            memory,
        };
        Ok((ready, hull))
    }

    fn look(
        &self,
        record: &Record,
        first: i32,
        supervisor: i32,
    ) -> Result<(View, usize, Vec<HostProcess>, Memory)> {
        let is_machine = record.request.isolation == Isolation::Vm;
        let view = if is_machine {
            match self.ask_guest(record, Ask::View)? {
                Told::View(view) => view,
                told => {
                    let what = format!("the guest does not tell what it sees: {told:?}");
                    return Err(Error::State { what, hint: None });
                }
            }
        } else {
            cata_guest::view::of(first).map_err(Error::file("read", format!("/proc/{first}")))?
        };
        let processes = self.processes(record.id.as_str())?.len();
        let mut pids = top::pids(record)?;
        let supervisors = memory_of(&[supervisor]);
        let payload = if is_machine { guest_memory(&pids) } else { memory_of(&pids) };
        let whole = memory_of(&pids).saturating_add(supervisors);
        pids.insert(0, supervisor);
        let name = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some(HostProcess { pid: *pid, name: name.trim_end().to_owned() })
        };
        let on_host = pids.iter().filter_map(name).collect();
        Ok((view, processes, on_host, Memory { whole, outside: whole.saturating_sub(payload) }))
    }

    /// False: it has ended before.
    fn wait_ready(
        &self,
        record: &Record,
        ready: &Ready,
        waiter: &Waiter,
        patience: Duration,
    ) -> Result<bool> {
        let start = Instant::now();
        let view = self.view(record.clone())?;
        let address = view.network.endpoints.iter().find_map(|endpoint| {
            endpoint.ipv4.map(|(a, _)| a.into()).or(endpoint.ipv6.map(|(a, _)| a.into()))
        });
        loop {
            let is_ready = match ready {
                Ready::Running => return Ok(true),
                Ready::Health => {
                    let status = self.status(&record.id)?.0;
                    status.health.is_some_and(|health| health.status == HealthStatus::Healthy)
                }
                Ready::Port(port) => {
                    let Some(address) = address else {
                        return Err(Error::Invalid(format!(
                            "port {port} cannot be reached: the container has no address"
                        )));
                    };
                    TcpStream::connect_timeout(&SocketAddr::new(address, *port), CONNECT).is_ok()
                }
                Ready::Command(command) => {
                    let argv = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
                    let options = ExecOptions { argv, ..ExecOptions::default() };
                    let session = self.exec(record.id.as_str(), options, [None, None, None]);
                    session.and_then(super::container::exec::Session::finish).is_ok_and(|code| code == 0)
                }
            };
            if is_ready {
                return Ok(true);
            }
            if is_over(waiter, LOOK) {
                return Ok(false);
            }
            if start.elapsed() > patience {
                return Err(Error::Timeout(format!("{} to be ready ({})", hull(record), ready.describe())));
            }
        }
    }
}

impl Ready {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Running => "it runs".to_owned(),
            Self::Health => "its health check says so".to_owned(),
            Self::Port(port) => format!("port {port} accepts"),
            Self::Command(command) => format!("`{command}` succeeds"),
        }
    }
}

/// PURE: what shows best that a container is ready: its probe, or else the first port that it has.
fn sign(record: &Record) -> Ready {
    if record.config.health.is_some() {
        return Ready::Health;
    }
    let published = record.request.ports.iter().filter(|port| port.transport == Transport::Tcp);
    let exposed = record.config.exposed.iter().filter_map(|port| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        number.parse().ok().filter(|_| protocol == "tcp")
    });
    let port = published.map(|port| port.container_port).chain(exposed).next();
    port.map_or(Ready::Running, Ready::Port)
}

/// PURE: what a process has of the host's: by the kernel's own numbers.
fn shared(host: &View, view: &View) -> BTreeMap<String, bool> {
    let kernel = host.boot == view.boot;
    let namespaces = host.namespaces.iter().map(|(kind, number)| {
        // Numbers of another kernel mean nothing here.
        (format!("{kind} namespace"), kernel && view.namespaces.get(kind) == Some(number))
    });
    namespaces.chain([("kernel".to_owned(), kernel)]).collect()
}

fn hull(record: &Record) -> &'static str {
    if record.request.isolation == Isolation::Vm { "the virtual machine" } else { "the container" }
}

fn ended(record: &Record, waiter: Waiter) -> Error {
    let image = &record.request.image;
    match waiter.finish() {
        Ok(exit) => Error::State {
            what: format!("{} ended with exit code {} before it could be measured", hull(record), exit.code),
            hint: Some(format!(
                "`cata run --rm … {image} …` shows what it says; what is compared must stay for a while"
            )),
        },
        Err(error) => error,
    }
}

/// Whether it has ended, after a moment at most.
fn is_over(waiter: &Waiter, moment: Duration) -> bool {
    let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: moment.subsec_nanos().into() };
    let fd = waiter.as_fd();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn memory_of(pids: &[i32]) -> u64 {
    let read = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    pids.iter().filter_map(read).map(|text| pss(&text, |_| true)).sum()
}

/// The guest's memory is a file without a name, mapped by the monitor and by the file server.
fn guest_memory(pids: &[i32]) -> u64 {
    let read = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/smaps")).ok();
    let is_guest = |name: &str| name.starts_with("/memfd:guest") || name.starts_with("/memfd:memory-backend");
    pids.iter().filter_map(read).map(|text| pss(&text, is_guest)).sum()
}

/// PURE: the sum of `Pss` of the mappings with such names (proc_pid_smaps(5)), bytes.
fn pss(smaps: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let (mut counts, mut sum) = (false, 0_u64);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "Pss:" {
            let kib = words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            sum = sum.saturating_add(if counts { kib * 1024 } else { 0 });
        } else if !first.ends_with(':') {
            // `start-end perms offset device inode name`
            counts = wanted(words.nth(4).unwrap_or_default());
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "7f00-7f10 rw-s 00000000 00:01 1029 /memfd:guest (deleted)\n\
        Size:             1024 kB\nPss:                 600 kB\nPss_Dirty:           600 kB\n\
        7f20-7f30 r-xp 00000000 08:01 77 /usr/bin/cata-vmm\nPss:  40 kB\n\
        7f40-7f50 rw-p 00000000 00:00 0\nPss:   2 kB\n";

    #[test]
    fn pss_counts_what_is_wanted() {
        assert_eq!(pss(SMAPS, |_| true), 642 * 1024);
        assert_eq!(pss(SMAPS, |name| name.starts_with("/memfd:guest")), 600 * 1024);
        assert_eq!(pss("", |_| true), 0);
    }

    #[test]
    fn shared_is_what_has_the_same_number_in_the_same_kernel() {
        let view = |boot: &str, numbers: [(&str, u64); 2]| View {
            boot: boot.to_owned(),
            namespaces: numbers.map(|(kind, number)| (kind.to_owned(), number)).into_iter().collect(),
            ..View::default()
        };
        let host = view("a", [("user", 1), ("pid", 2)]);
        let of = |other: &View| {
            let shared = shared(&host, other);
            [shared["kernel"], shared["user namespace"], shared["pid namespace"]]
        };
        assert_eq!(of(&view("a", [("user", 1), ("pid", 9)])), [true, true, false]);
        // A guest's numbers begin where the host's do.
        assert_eq!(of(&view("b", [("user", 1), ("pid", 2)])), [false; 3]);
    }
}
