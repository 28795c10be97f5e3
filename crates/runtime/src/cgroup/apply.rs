//! Making a cgroup: directories, controllers down the tree, values.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_sys::bpf;
use rustix::fs::{AtFlags, CWD, Mode, mkdirat, unlinkat};
use rustix::io::Errno;

use super::control::Open;
use super::files::{self, open_directory};
use super::{Cgroup, CgroupError, CgroupPlan, Controller, Directory, Need, Write};

/// How long a left-over of the same name may take to go.
const LEFT_OVER: Duration = Duration::from_millis(500);

/// Makes the cgroup. An empty one that is already there (left by a killed supervisor) is replaced.
///
/// # Errors
/// [`CgroupError`]; then nothing that was made here remains, but for parent directories.
pub fn create(plan: &CgroupPlan) -> Result<Cgroup, CgroupError> {
    let mut cgroup = Cgroup { directories: Vec::with_capacity(plan.directories.len()), warnings: Vec::new() };
    let result = fill(plan, &mut cgroup);
    match result {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            // The first error is the one that tells something.
            let _ = cgroup.remove(Duration::ZERO);
            Err(error)
        }
    }
}

fn fill(plan: &CgroupPlan, cgroup: &mut Cgroup) -> Result<(), CgroupError> {
    for directory in &plan.directories {
        let open = make(directory)?;
        cgroup.directories.push(open);
        if directory.unified && !directory.controllers.is_empty() {
            enable(directory, cgroup)?;
        }
    }
    write_all(&plan.writes, cgroup)?;
    filter_devices(plan, cgroup)
}

fn filter_devices(plan: &CgroupPlan, cgroup: &Cgroup) -> Result<(), CgroupError> {
    let (Some(program), Some(directory)) = (&plan.devices, cgroup.directories.first()) else { return Ok(()) };
    let failed = |source| CgroupError::Devices { path: directory.path.clone(), source };
    let program = bpf::load_device_filter(&program.0).map_err(failed)?;
    bpf::attach_device_filter(directory.fd.as_fd(), program.as_fd()).map_err(failed)
}

impl Cgroup {
    /// Finds the cgroup of a plan again, after the one who made it is gone.
    ///
    /// # Errors
    /// [`CgroupError::Missing`] when nothing of it exists.
    pub fn open(plan: &CgroupPlan) -> Result<Self, CgroupError> {
        let mut directories = Vec::with_capacity(plan.directories.len());
        for directory in &plan.directories {
            match open_directory(CWD, &directory.full()) {
                Ok(fd) => directories.push(Open::new(directory, fd)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(CgroupError::Io { action: "open", path: directory.full(), source });
                }
            }
        }
        if directories.is_empty() {
            let path = plan.directories.first().map(Directory::full).unwrap_or_default();
            return Err(CgroupError::Missing(path));
        }
        Ok(Self { directories, warnings: Vec::new() })
    }

    /// Takes over a cgroup that somebody else has made around a process (systemd): hierarchies that are not there
    /// yet are made and the process is put into them, then the limits are written.
    ///
    /// # Errors
    /// [`CgroupError`]; what was made here is then for whoever ends the cgroup.
    pub fn adopt(plan: &CgroupPlan, pid: i32) -> Result<Self, CgroupError> {
        let mut cgroup =
            Self { directories: Vec::with_capacity(plan.directories.len()), warnings: Vec::new() };
        for directory in &plan.directories {
            let open = match open_directory(CWD, &directory.full()) {
                Ok(fd) => Open::new(directory, fd),
                Err(_) => make(directory)?,
            };
            cgroup.directories.push(open);
            if directory.unified && !directory.controllers.is_empty() {
                enable(directory, &mut cgroup)?;
            }
        }
        write_all(&plan.writes, &mut cgroup)?;
        filter_devices(plan, &cgroup)?;
        cgroup.add(pid)?;
        Ok(cgroup)
    }

    /// Changes limits to those of a new plan for the same path; hierarchies that it needs in addition are
    /// made and the processes moved in. Limits it does not mention stay, and so do device rules. Keep the new
    /// plan: [`Cgroup::open`] knows hierarchies by it.
    ///
    /// # Errors
    /// [`CgroupError`] naming the limit; what was written before it stays.
    pub fn update(&mut self, plan: &CgroupPlan) -> Result<(), CgroupError> {
        self.warnings.clear();
        let mut writes: Vec<Write> =
            plan.writes.iter().filter(|write| !write.file.starts_with("devices.")).cloned().collect();
        let mut place = Vec::with_capacity(plan.directories.len());
        for (index, directory) in plan.directories.iter().enumerate() {
            let path = directory.full();
            if let Some(at) = self.directories.iter().position(|open| open.path == path) {
                place.push(at);
                if directory.unified && !directory.needed.is_empty() {
                    enable(directory, self)?;
                }
                continue;
            }
            place.push(self.directories.len());
            if writes.iter().any(|write| write.directory == index) {
                // An earlier update may have made it already.
                let open = match open_directory(CWD, &path) {
                    Ok(fd) => Open::new(directory, fd),
                    Err(_) => make(directory)?,
                };
                self.directories.push(open);
            } else {
                // Nothing to say there (device rules alone): it is not joined for nothing.
                place[index] = usize::MAX;
            }
        }
        for write in &mut writes {
            write.directory = place.get(write.directory).copied().unwrap_or(usize::MAX);
        }
        swap_order(&mut writes, self);
        write_all(&writes, self)?;
        self.gather()
    }
}

/// Version 1 keeps memory <= memory+swap at every moment: raise the sum first, lower it last.
fn swap_order(writes: &mut [Write], cgroup: &Cgroup) {
    let find = |file: &str| writes.iter().position(|write| write.file == file);
    let (Some(limit), Some(sum)) = (find("memory.limit_in_bytes"), find("memory.memsw.limit_in_bytes"))
    else {
        return;
    };
    let Some(directory) = cgroup.directories.get(writes[limit].directory) else { return };
    let Ok(now) = files::read(directory.fd.as_fd(), "memory.memsw.limit_in_bytes") else { return };
    let wanted = writes[limit].value.parse::<u64>().unwrap_or(u64::MAX);
    if now.trim().parse::<u64>().is_ok_and(|now| wanted > now) && limit < sum {
        writes.swap(limit, sum);
    }
}

/// Makes one directory, with parents.
fn make(directory: &Directory) -> Result<Open, CgroupError> {
    let full = directory.full();
    let failed =
        |action, path: &Path, source: io::Error| CgroupError::Io { action, path: path.to_owned(), source };
    let mount = open_directory(CWD, &directory.mount).map_err(|e| failed("open", &directory.mount, e))?;
    let mode = Mode::from_raw_mode(0o755);
    let mut result = mkdirat(&mount, &directory.path, mode);
    if result == Err(Errno::NOENT) {
        for parent in ancestors(&directory.path) {
            match mkdirat(&mount, &parent, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("create", &directory.mount.join(parent), error.into())),
            }
        }
        result = mkdirat(&mount, &directory.path, mode);
    }
    if result == Err(Errno::EXIST) {
        let old = open_directory(mount.as_fd(), &directory.path).map_err(|e| failed("open", &full, e))?;
        let processes = files::read(old.as_fd(), "cgroup.procs").map_err(|e| failed("read", &full, e))?;
        if !processes.trim().is_empty() {
            return Err(CgroupError::InUse(full));
        }
        drop(old);
        super::control::remove_tree(&full, LEFT_OVER)?;
        result = mkdirat(&mount, &directory.path, mode);
    }
    result.map_err(|error| failed("create", &full, error.into()))?;
    let undo = || unlinkat(&mount, &directory.path, AtFlags::REMOVEDIR).ok();
    let fd = open_directory(mount.as_fd(), &directory.path)
        .inspect_err(|_| _ = undo())
        .map_err(|e| failed("open", &full, e))?;
    if !directory.unified && directory.controllers.contains(&Controller::Cpuset) {
        inherit_cpuset(mount.as_fd(), &directory.path)
            .inspect_err(|_| _ = undo())
            .map_err(|e| failed("prepare the CPU set of", &full, e))?;
    }
    Ok(Open::new(directory, fd))
}

/// `a`, `a/b` of `a/b/c`.
fn ancestors(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned).collect();
    all.reverse();
    all
}

/// A new cpuset of version 1 is empty, and nothing can live in it: it gets what its parent has.
fn inherit_cpuset(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let mut parent: OwnedFd = mount.try_clone_to_owned()?;
    for path in ancestors(path).iter().map(PathBuf::as_path).chain([path]) {
        let here = open_directory(mount, path)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if files::read(here.as_fd(), file)?.trim().is_empty() {
                files::write(here.as_fd(), file, files::read(parent.as_fd(), file)?.trim())?;
            }
        }
        parent = here;
    }
    Ok(())
}

/// Hands the wanted controllers down the tree to a cgroup of version 2.
fn enable(directory: &Directory, cgroup: &mut Cgroup) -> Result<(), CgroupError> {
    let full = directory.full();
    let Some(open) = cgroup.directories.iter().find(|open| open.path == full) else { return Ok(()) };
    let missing = |fd: BorrowedFd<'_>| -> Result<Vec<Controller>, CgroupError> {
        let have = files::read(fd, "cgroup.controllers").map_err(|source| CgroupError::Io {
            action: "read",
            path: full.join("cgroup.controllers"),
            source,
        })?;
        let have: Vec<&str> = have.split_ascii_whitespace().collect();
        Ok(directory.controllers.iter().copied().filter(|c| !have.contains(&c.name())).collect())
    };
    let wanted = missing(open.fd.as_fd())?;
    if wanted.is_empty() {
        return Ok(());
    }
    let mut first_failure = None;
    for parent in std::iter::once(PathBuf::new()).chain(ancestors(&directory.path)) {
        let path = directory.mount.join(parent);
        if let Err(source) = enable_in(&path, &wanted) {
            let controllers = subtree(&wanted);
            let path = path.join("cgroup.subtree_control");
            first_failure.get_or_insert(CgroupError::Enable { controllers, path, source });
        }
    }
    let still = missing(open.fd.as_fd())?;
    if let Some(lacking) = still.iter().find(|controller| directory.needed.contains(controller)) {
        let limit = format!("a limit on {}", full.display());
        return Err(first_failure.unwrap_or(CgroupError::NoController { limit, controller: *lacking }));
    }
    for controller in still {
        let why = first_failure.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        cgroup.warnings.push(format!("the cgroup controller `{controller}` could not be enabled{why}"));
    }
    Ok(())
}

/// `+memory +pids`.
fn subtree(controllers: &[Controller]) -> String {
    let words: Vec<String> = controllers.iter().map(|controller| format!("+{controller}")).collect();
    words.join(" ")
}

/// One write for all; when that fails one each, so that one that is not available does not hinder the others.
fn enable_in(path: &Path, controllers: &[Controller]) -> io::Result<()> {
    let parent = open_directory(CWD, path)?;
    // With processes in it, it would become the top of a threaded subtree, in which no process can be put. Only the
    // machine's own top, which has no type, may have some.
    let text = |name| files::read(parent.as_fd(), name).unwrap_or_default();
    if !text("cgroup.type").is_empty() && !text("cgroup.procs").trim().is_empty() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let file = files::open_write(parent.as_fd(), "cgroup.subtree_control")?;
    if files::write_value(&file, &subtree(controllers)).is_ok() {
        return Ok(());
    }
    let mut result = Ok(());
    for controller in controllers {
        let one = files::write_value(&file, &format!("+{controller}"));
        result = result.and(one);
    }
    result
}

fn write_all(writes: &[Write], cgroup: &mut Cgroup) -> Result<(), CgroupError> {
    // Lists (devices, rates) are many writes to one file.
    let mut kept: Option<(usize, &str, OwnedFd)> = None;
    for write in writes {
        let Some(open) = cgroup.directories.get(write.directory) else { continue };
        let reused =
            kept.take().filter(|(at, file, _)| (*at, *file) == (write.directory, write.file.as_str()));
        let mut file = match reused {
            Some((_, _, fd)) => Ok(fd),
            None => files::open_write(open.fd.as_fd(), &write.file),
        };
        let (mut name, mut value) = (&write.file, &write.value);
        if let (Err(error), Some(otherwise)) = (&file, &write.otherwise)
            && error.kind() == io::ErrorKind::NotFound
        {
            (name, value) = (&otherwise.0, &otherwise.1);
            file = files::open_write(open.fd.as_fd(), name);
        }
        let result = file.and_then(|fd| files::write_value(&fd, value).map(|()| fd));
        // ENOTSUPP: the file is there for old programs only.
        let absent = result.as_ref().is_err_and(|error| {
            error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(95 | 524))
        });
        match (result, &write.need) {
            (Ok(fd), _) => kept = (name == &write.file).then_some((write.directory, name.as_str(), fd)),
            (Err(_), Need::BestEffort) => {}
            (Err(_), Need::IfPresent(limit)) if absent => {
                let path = open.path.join(name);
                cgroup
                    .warnings
                    .push(format!("{limit} is not enforced: the kernel offers no {}", path.display()));
            }
            (Err(source), Need::Required(limit) | Need::IfPresent(limit)) => {
                let (limit, value) = (limit.clone(), value.clone());
                return Err(CgroupError::Limit { limit, value, path: open.path.join(name), source });
            }
        }
    }
    Ok(())
}
