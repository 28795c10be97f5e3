//! A cgroup that exists: who is in it, freezing, killing, out-of-memory events, removing.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cata_sys::path::Root;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, inotify, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files::{self, field};
use super::{CgroupError, Controller, Directory};

/// First and longest pause of a loop that waits for the kernel.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// How long freezing may take; thawing and counting processes are immediate.
const FREEZE: Duration = Duration::from_secs(2);

/// A container's cgroup: one open directory a hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) directories: Vec<Open>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) unified: bool,
    pub(super) controllers: Vec<Controller>,
}

impl Open {
    pub(super) fn new(directory: &Directory, fd: OwnedFd) -> Self {
        Self {
            fd,
            path: directory.full(),
            unified: directory.unified,
            controllers: directory.controllers.clone(),
        }
    }

    fn failed(&self, action: &'static str, file: &str) -> impl FnOnce(io::Error) -> CgroupError {
        let path = self.path.join(file);
        move |source| CgroupError::Io { action, path, source }
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        files::read(self.fd.as_fd(), file).map_err(self.failed("read", file))
    }

    /// A file that not every kernel has, or only with a controller that could not be enabled.
    pub(super) fn read_if_present(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match files::read(self.fd.as_fd(), file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", file)(error)),
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        files::write(self.fd.as_fd(), file, value).map_err(self.failed("write", file))
    }
}

/// Asks until the answer is yes or the time is over.
fn wait(within: Duration, mut done: impl FnMut() -> Result<bool, CgroupError>) -> Result<bool, CgroupError> {
    let end = Instant::now() + within;
    let mut pause = PAUSE.0;
    loop {
        if done()? {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE.1);
    }
}

impl Cgroup {
    /// What was asked for and is not in force, in words.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The cgroup2 directory, for clone3's `CLONE_INTO_CGROUP` (Linux 5.7); also there on hybrid machines.
    /// The child must then still go into the others: [`Cgroup::enter_rest`].
    #[must_use]
    pub fn unified_fd(&self) -> Option<BorrowedFd<'_>> {
        self.directories.iter().find(|open| open.unified).map(|open| open.fd.as_fd())
    }

    /// Puts a process into every hierarchy.
    ///
    /// # Errors
    /// [`CgroupError::Io`] naming the file.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        self.directories.iter().try_for_each(|open| open.write("cgroup.procs", &pid))
    }

    /// Puts the calling process, which must have one thread and was born into [`Cgroup::unified_fd`] if there
    /// is one, into the other hierarchies: none on pure version 2.
    ///
    /// Only a thread that moves itself need not wait until no process on the machine forks or exits
    /// (`cgroup.procs`, or anybody else's number, waits for an RCU grace period: 5 to 15 ms).
    ///
    /// # Errors
    /// [`CgroupError::Io`] naming the file.
    pub fn enter_rest(&self) -> Result<(), CgroupError> {
        self.directories.iter().filter(|open| !open.unified).try_for_each(|open| open.write("tasks", "0"))
    }

    /// A cgroup that the container made below its own: `path`, in the hierarchies of these controllers, or in all.
    ///
    /// # Errors
    /// [`CgroupError::Path`], [`CgroupError::Missing`].
    pub fn below(&self, path: &str, controllers: &[&str]) -> Result<Self, CgroupError> {
        let wrong = |why| CgroupError::Path { path: path.to_owned(), why };
        let relative: PathBuf = Path::new(path).components().filter(|c| *c != Component::RootDir).collect();
        if relative.components().any(|part| part == Component::ParentDir) {
            return Err(wrong("must not contain `..`"));
        }
        let mut directories = Vec::with_capacity(self.directories.len());
        let mut found = controllers.is_empty();
        for open in &self.directories {
            let chosen = controllers.is_empty()
                || open.controllers.iter().any(|controller| controllers.contains(&controller.name()));
            found |= chosen;
            let at = if chosen { relative.as_path() } else { Path::new("") };
            // The container's own files: it cannot lead out of its directory.
            let at_or_self = if at.as_os_str().is_empty() { Path::new(".") } else { at };
            let root = Root::new(open.fd.try_clone().map_err(open.failed("open", path))?);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = root.open_without_links(at_or_self, flags).map_err(|error| match error {
                Errno::NOENT => CgroupError::Missing(open.path.join(at)),
                error => open.failed("open", path)(error.into()),
            })?;
            directories.push(Open {
                fd,
                path: open.path.join(at),
                unified: open.unified,
                controllers: open.controllers.clone(),
            });
        }
        if !found {
            return Err(wrong("is of a controller whose cgroup the container does not have"));
        }
        Ok(Self { directories, warnings: Vec::new() })
    }

    /// Where processes are frozen, killed and counted.
    fn core(&self) -> Option<&Open> {
        self.directories
            .iter()
            .find(|open| open.unified)
            .or_else(|| self.freezer())
            .or(self.directories.first())
    }

    fn freezer(&self) -> Option<&Open> {
        self.directories.iter().find(|open| !open.unified && open.controllers.contains(&Controller::Freezer))
    }

    pub(super) fn having(&self, controller: Controller) -> Option<&Open> {
        self.directories.iter().find(|open| open.controllers.contains(&controller))
    }

    /// The cgroup below it that a process is in: what an init has divided among its services has no processes of
    /// its own any more, and takes none.
    ///
    /// # Errors
    /// [`CgroupError::Io`]. `None`: it is in none, or here.
    pub fn of_process(&self, pid: i32) -> Result<Option<Self>, CgroupError> {
        let Some(core) = self.core().filter(|core| core.unified) else { return Ok(None) };
        let found = find(core.fd.as_fd(), &core.path, pid).map_err(core.failed("read", "cgroup.procs"))?;
        let Some((fd, path)) = found else { return Ok(None) };
        let mut directories = vec![Open { fd, path, unified: true, controllers: core.controllers.clone() }];
        for open in self.directories.iter().filter(|open| !open.unified) {
            let fd = open.fd.try_clone().map_err(open.failed("open", ""))?;
            let (path, controllers) = (open.path.clone(), open.controllers.clone());
            directories.push(Open { fd, path, unified: false, controllers });
        }
        Ok(Some(Self { directories, warnings: Vec::new() }))
    }

    /// Host pids of all processes in it, and in cgroups that the container made below it.
    ///
    /// # Errors
    /// [`CgroupError::Io`]; a cgroup that is gone has no processes.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let Some(core) = self.core() else { return Ok(Vec::new()) };
        let mut pids = BTreeSet::new();
        collect(core.fd.as_fd(), &mut pids).map_err(core.failed("read", "cgroup.procs"))?;
        Ok(pids.into_iter().collect())
    }

    /// After [`Cgroup::update`] made new hierarchies: moves everybody who is not in them yet.
    pub(super) fn gather(&self) -> Result<(), CgroupError> {
        let Some(core) = self.core() else { return Ok(()) };
        for open in self.directories.iter().filter(|open| open.path != core.path) {
            // Who forks meanwhile is met in the next round.
            for _ in 0..100 {
                let mut inside = BTreeSet::new();
                collect(open.fd.as_fd(), &mut inside).map_err(open.failed("read", "cgroup.procs"))?;
                let outside: Vec<i32> =
                    self.processes()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
                if outside.is_empty() {
                    break;
                }
                for pid in outside {
                    match files::write(open.fd.as_fd(), "cgroup.procs", &pid.to_string()) {
                        Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                            return Err(open.failed("write", "cgroup.procs")(error));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Kills every process and waits until there is none, `within` at most; zero only sends.
    ///
    /// # Errors
    /// [`CgroupError::TimedOut`] when some do not die (uninterruptible calls).
    pub fn kill(&self, within: Duration) -> Result<(), CgroupError> {
        let Some(core) = self.core() else { return Ok(()) };
        let whole = core.unified && files::write(core.fd.as_fd(), "cgroup.kill", "1").is_ok();
        let mut frozen = false;
        if !whole {
            // Frozen processes neither fork nor end, so that none is missed and no number is reused.
            frozen = self.freeze().is_ok();
            self.signal_all()?;
        }
        if frozen {
            self.thaw()?;
        }
        if within.is_zero() {
            return Ok(());
        }
        let gone = wait(within, || {
            if !whole {
                self.signal_all()?;
            }
            Ok(self.processes()?.is_empty())
        })?;
        if gone {
            return Ok(());
        }
        Err(CgroupError::TimedOut { path: core.path.clone(), what: "killing its processes", within })
    }

    fn signal_all(&self) -> Result<(), CgroupError> {
        let open = |pid: i32| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?));
        let held: Vec<(i32, OwnedFd)> = self.processes()?.into_iter().filter_map(open).collect();
        // A number may have been reused before its descriptor was opened: only who is still listed is ours.
        let listed = self.processes()?;
        for (_, process) in held.iter().filter(|(pid, _)| listed.contains(pid)) {
            // Ended meanwhile: as wanted.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        Ok(())
    }

    /// Stops all processes (`pause`). Returns when they are stopped; if they cannot be, they go on.
    ///
    /// # Errors
    /// [`CgroupError::TimedOut`], or that there is nothing to freeze with.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let core = self.frozen_by()?;
        let (file, on) = if core.unified { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        core.write(file, on)?;
        let done = wait(FREEZE, || {
            if core.unified {
                return Ok(field(&core.read("cgroup.events")?, "frozen") == Some(1));
            }
            if core.read(file)?.trim() == on {
                return Ok(true);
            }
            // Who forked while freezing is caught by asking again.
            core.write(file, on)?;
            Ok(false)
        })?;
        if done {
            return Ok(());
        }
        self.thaw()?;
        Err(CgroupError::TimedOut { path: core.path.clone(), what: "freezing", within: FREEZE })
    }

    /// Lets them go on (`unpause`).
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let core = self.frozen_by()?;
        let (file, off) = if core.unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        core.write(file, off)
    }

    /// Whether it is frozen now.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let core = self.frozen_by()?;
        if core.unified {
            return Ok(field(&core.read("cgroup.events")?, "frozen") == Some(1));
        }
        Ok(core.read("freezer.state")?.trim() != "THAWED")
    }

    /// The directory at which another program may freeze it: of the freezer where version 1 has one.
    #[must_use]
    pub fn freezing_directory(&self) -> Option<&Path> {
        let open = self.freezer().or_else(|| self.directories.iter().find(|open| open.unified));
        open.map(|open| open.path.as_path())
    }

    fn frozen_by(&self) -> Result<&Open, CgroupError> {
        let unified = self.directories.iter().find(|open| open.unified);
        unified.or_else(|| self.freezer()).ok_or_else(|| CgroupError::NoController {
            limit: "pausing".to_owned(),
            controller: Controller::Freezer,
        })
    }

    /// How often the kernel killed a process in it for want of memory; `None` where it does not tell.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn oom_events(&self) -> Result<Option<u64>, CgroupError> {
        let Some(memory) = self.having(Controller::Memory) else { return Ok(None) };
        let file = if memory.unified { "memory.events" } else { "memory.oom_control" };
        Ok(memory.read_if_present(file)?.and_then(|text| field(&text, "oom_kill")))
    }

    /// A descriptor that becomes readable when [`Cgroup::oom_events`] may have changed (and when the cgroup is
    /// removed). Read up to 4096 bytes of it and throw them away, then ask. `None` where memory is not counted.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn oom_fd(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(memory) = self.having(Controller::Memory) else { return Ok(None) };
        if memory.unified {
            if memory.read_if_present("memory.events")?.is_none() {
                return Ok(None);
            }
            let failed = |e: Errno| memory.failed("watch", "memory.events")(e.into());
            let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
            let watch = watch.map_err(failed)?;
            let path = memory.path.join("memory.events");
            inotify::add_watch(&watch, &path, inotify::WatchFlags::MODIFY).map_err(failed)?;
            return Ok(Some(watch));
        }
        let failed = |e: Errno| memory.failed("watch", "memory.oom_control")(e.into());
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let control = openat(&memory.fd, "memory.oom_control", flags, Mode::empty()).map_err(failed)?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        memory.write("cgroup.event_control", &line)?;
        Ok(Some(event))
    }

    /// Removes it with every cgroup the container made below it; what is gone already is no error. While
    /// processes are still ending it is tried again, `within` at most.
    ///
    /// # Errors
    /// [`CgroupError::TimedOut`] when there are still processes; the other hierarchies are removed all the same.
    pub fn remove(&self, within: Duration) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for open in self.directories.iter().rev() {
            let one = remove_tree(&open.path, within);
            result = result.and(one);
        }
        result
    }
}

/// Adds the processes of a cgroup and of all below it.
fn collect(directory: BorrowedFd<'_>, pids: &mut BTreeSet<i32>) -> io::Result<()> {
    match files::read(directory, "cgroup.procs") {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // Removed meanwhile; or a threaded cgroup, whose processes its root lists.
        Err(error) if gone(&error) || error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    let children = match files::children(directory) {
        Err(error) if gone(&error) => return Ok(()),
        children => children?,
    };
    for name in children {
        match open_child(directory, &name) {
            Ok(child) => collect(child.as_fd(), pids)?,
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where below a cgroup a process is.
fn find(directory: BorrowedFd<'_>, path: &Path, pid: i32) -> io::Result<Option<(OwnedFd, PathBuf)>> {
    let children = match files::children(directory) {
        Err(error) if gone(&error) => return Ok(None),
        children => children?,
    };
    for name in children {
        let child = match open_child(directory, &name) {
            Err(error) if gone(&error) => continue,
            child => child?,
        };
        let path = path.join(OsStr::from_bytes(name.as_bytes()));
        // What cannot be listed (a threaded one, or removed meanwhile) has nobody in it.
        let listed = files::read(child.as_fd(), "cgroup.procs").unwrap_or_default();
        if listed.lines().any(|line| line.parse() == Ok(pid)) {
            return Ok(Some((child, path)));
        }
        if let Some(found) = find(child.as_fd(), &path, pid)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn open_child(directory: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

/// ENOENT, or ENODEV for a file of a cgroup that was removed.
fn gone(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number == Some(Errno::NOENT.raw_os_error()) || number == Some(Errno::NODEV.raw_os_error())
}

/// Removes a cgroup and all below it, trying again while it is busy.
pub(super) fn remove_tree(path: &Path, within: Duration) -> Result<(), CgroupError> {
    let done = wait(within, || match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => {
            remove_children(path);
            match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(true),
                // Still somebody there: try again.
                Err(_) => Ok(false),
            }
        }
        Err(error) => Err(CgroupError::Io { action: "remove", path: path.to_owned(), source: error.into() }),
    })?;
    if done {
        return Ok(());
    }
    Err(CgroupError::TimedOut { path: path.to_owned(), what: "removing it", within })
}

/// Removes what can be removed below a cgroup; what cannot shows when the cgroup itself is removed.
fn remove_children(path: &Path) {
    let Ok(directory) = files::open_directory(CWD, path) else { return };
    for name in files::children(directory.as_fd()).unwrap_or_default() {
        if unlinkat(&directory, &name, AtFlags::REMOVEDIR) == Err(Errno::BUSY) {
            let Ok(name) = name.to_str() else { continue };
            remove_children(&path.join(name));
            let _ = unlinkat(&directory, name, AtFlags::REMOVEDIR);
        }
    }
}
