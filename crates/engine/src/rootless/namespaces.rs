//! The namespaces of a user without privileges: found or made, and entered, before anything else is done.
//!
//! All his commands and containers share one user namespace, and one network in it that stands for the host's. A
//! process of their own holds them (`cata_sandbox::hold`) for as long as anybody uses them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use cata_sandbox::hold;
use cata_sandbox::status::{self, StatusKind};
use cata_sys::{detach, message};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, mknodat, open};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid, WaitOptions, waitpid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{ids, outside};

/// How often a holder that has just ended is looked for again.
const ATTEMPTS: usize = 500;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What this process uses: the holder stays for as long as it is open anywhere.
#[derive(Debug)]
pub(crate) struct Held {
    directory: PathBuf,
    pid: i32,
    users: OwnedFd,
}

static HELD: OnceLock<Held> = OnceLock::new();

/// The user's namespaces, if this process is in them.
pub(crate) fn held() -> Option<&'static Held> {
    HELD.get()
}

impl Held {
    /// What keeps the holder alive, to be handed on.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.users.try_clone()
    }

    /// The network that stands for the host's.
    pub(crate) fn network(&self) -> io::Result<OwnedFd> {
        namespace(self.pid, "net")
    }

    /// Where its network is by name.
    pub(crate) fn network_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Becomes root of the user's namespace, of which `state` has the traces. To be called before there is a second
/// thread. `Some`: what the user is to be warned of.
///
/// # Errors
/// In words: what this host refuses.
pub fn enter(state: &Path, supervisor: &Path) -> Result<Option<String>, String> {
    let directory = state.join(hold::DIRECTORY);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|e| format!("create {}: {e}", directory.display()))?;
    let failed = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    for _ in 0..ATTEMPTS {
        let lock = File::options().create(true).truncate(false).write(true).open(directory.join(hold::LOCK));
        let lock = lock.map_err(failed("open the lock of the user's namespaces"))?;
        locked(&lock).map_err(failed("lock the user's namespaces"))?;
        let made = match found(&directory) {
            Ok(Some((pid, users))) => Ok((pid, users, None)),
            // One whose maker was killed before it was written down goes by itself.
            Err(error) => Err(error.to_string()),
            Ok(None) => match orphaned(state) {
                [0, 0] => Ok(make(&directory, supervisor, [0, 0])?),
                // Who has them may end at this moment.
                from => make(&directory, supervisor, from),
            },
        };
        let entered = made.ok().and_then(|made| Some((namespace(made.0, "user").ok()?, made)));
        let Some((namespace, (pid, users, warning))) = entered else {
            drop(lock);
            std::thread::sleep(PAUSE);
            continue;
        };
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))
            .map_err(|e| format!("enter the user's namespace: {e}"))?;
        drop(lock);
        HELD.get_or_init(|| Held { directory, pid, users });
        settle()?;
        return Ok(warning.or_else(alone));
    }
    Err("the holder of the user's namespaces ends again and again".to_owned())
}

/// Root of it, with mounts of its own: what is mounted for a step of a build or to look into a container is
/// nobody else's business.
fn settle() -> Result<(), String> {
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .map_err(|e| format!("become root of the user namespace: {e}"))?;
    cata_sys::namespace::unshare(UnshareFlags::NEWNS).map_err(|e| format!("make a mount namespace: {e}"))
}

fn alone() -> Option<String> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    (map.lines().count() < 2).then(|| "only your own id exists in the container".to_owned())
}

fn locked(file: &File) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| flock(file, FlockOperation::LockExclusive))?)
}

fn namespace(pid: i32, kind: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(open(format!("/proc/{pid}/ns/{kind}"), flags, Mode::empty())?)
}

/// The living holder, and its pipe. The caller has the lock.
fn found(directory: &Path) -> io::Result<Option<(i32, OwnedFd)>> {
    let file = directory.join(hold::HOLDER);
    let Ok(alive) = File::open(&file) else { return Ok(None) };
    match flock(&alive, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {}
        Ok(()) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let pid = fs::read_to_string(&file)?.trim().parse().map_err(io::Error::other)?;
    match pipe(directory, hold::USERS, OFlags::WRONLY) {
        Ok(users) => Ok(Some((pid, users))),
        // It ends at this moment.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn pipe(directory: &Path, name: &str, how: OFlags) -> Result<OwnedFd, Errno> {
    open(directory.join(name), how | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Starts a holder, of namespaces of its own or of those that other processes are in. The caller has the lock.
fn make(
    directory: &Path,
    supervisor: &Path,
    [from_user, from_network]: [u32; 2],
) -> Result<(i32, OwnedFd, Option<String>), String> {
    let failed = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let refused = |e| {
        format!("containers for users without privileges need user namespaces, which this host refuses: {e}")
    };
    outside::wait_for_end(directory);
    let files = (|| -> io::Result<_> {
        for name in [hold::USERS, hold::OUTSIDE] {
            match mknodat(CWD, directory.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let alive =
            File::options().create(true).truncate(false).write(true).open(directory.join(hold::HOLDER))?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive)?;
        let read = pipe(directory, hold::USERS, OFlags::RDONLY)?;
        let users = pipe(directory, hold::USERS, OFlags::WRONLY)?;
        let out = pipe(directory, hold::OUTSIDE, OFlags::RDWR)?;
        let lock = File::open(directory.join(hold::LOCK))?;
        Ok((alive, read, users, out, lock))
    })();
    let (mut alive, read, users, out, lock) = files.map_err(failed("prepare the user's namespaces"))?;
    let (ours, theirs) = message::pair().map_err(|e| format!("make a socket: {e}"))?;
    let given = [alive.as_fd(), theirs.as_fd(), read.as_fd(), out.as_fd(), lock.as_fd()];
    let words = [hold::WORD, &from_user.to_string(), &from_network.to_string()];
    let pid = detach::spawn(supervisor, &words, &given).map_err(|e| {
        format!("start {}: {e}: is cata-supervisor installed beside cata?", supervisor.display())
    })?;
    drop(theirs);
    let begun = (|| {
        let mut warning = None;
        if from_user == 0 {
            hold::heard(&ours).map_err(refused)?;
            warning = ids::write(pid)?;
            hold::go_on(&ours).map_err(refused)?;
        }
        hold::heard(&ours).map_err(refused)?;
        alive
            .set_len(0)
            .and_then(|()| alive.write_all(pid.to_string().as_bytes()))
            .map_err(failed("write down the holder of the user's namespaces"))?;
        Ok(warning.map(|why| format!("{why}: only your own id exists in the container")))
    })();
    match begun {
        Ok(warning) => Ok((pid, users, warning)),
        Err(error) => {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            Err(error)
        }
    }
}

/// Supervisors whose holder was killed: one whose users are to be taken over, and one whose network.
fn orphaned(state: &Path) -> [u32; 2] {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).ok();
    let (user, network) = (own("user"), own("net"));
    let mut found = [0, 0];
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !status::alive(&dir) {
            continue;
        }
        // One whose container has ended is about to go.
        let lasting = |status: &status::Status| status.status != StatusKind::Exited;
        let Some(status) = status::read(&dir).ok().filter(lasting) else { continue };
        let pid = status.supervisor_pid.unsigned_abs();
        let of = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        if of("user").is_some_and(|it| Some(it) != user) {
            if of("net").is_some_and(|it| Some(it) != network) {
                return [pid, pid];
            }
            found[0] = pid;
        }
    }
    found
}
