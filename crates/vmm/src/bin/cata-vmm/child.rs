//! Programs that the machine consists of besides this one: they die with it, have the descriptors they are
//! given by their own numbers, and run as whom they are told.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cata_sys::clone::{Namespaces, Side, SoleThread};
use cata_sys::mount::{self, Depth, attribute};
use cata_sys::{capability, namespace};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::UnshareFlags;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// What is started.
pub(crate) struct Order<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [String],
    /// Open in it by the numbers they have here.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// Its complaints.
    pub(crate) stderr: BorrowedFd<'a>,
    /// Whom it becomes; `None`: it stays root.
    pub(crate) uid: Option<u32>,
}

pub(crate) fn start(order: &Order<'_>) -> io::Result<Child> {
    let text = |text: &[u8]| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(order.program.as_os_str().as_bytes())?;
    let mut argv = vec![program.clone()];
    for argument in order.arguments {
        argv.push(text(argument.as_bytes())?);
    }
    let env = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let proof = SoleThread::check()?;
    match cata_sys::clone::clone(proof, Namespaces::default(), None)? {
        Side::Parent(pid, pidfd) => Ok(Child { pid, pidfd }),
        Side::Child(_) => {
            let Err(error) = prepare(order, null.as_fd());
            let errno = error.unwrap_or_else(|| cata_sys::program::execute(&program, &argv, &env));
            let line = format!("{}: {}\n", order.program.display(), io::Error::from(errno));
            let _ = rustix::io::write(order.stderr, line.as_bytes());
            cata_sys::clone::exit(127)
        }
    }
}

/// Everything before the program; `Err(None)` is success, because what follows never returns.
fn prepare(order: &Order<'_>, null: BorrowedFd<'_>) -> Result<std::convert::Infallible, Option<Errno>> {
    let steps = || -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(order.stderr)?;
        rustix::stdio::dup2_stderr(order.stderr)?;
        if let Some(uid) = order.uid {
            shut_in(uid)?;
        }
        // A change of ids cancels it: after that.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        cata_sys::disposition::reset()?;
        cata_sys::program::close_on_execute_from(3)?;
        for fd in order.descriptors {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    Err(steps().err())
}

/// Gives up root for good, in a process of one thread that needs programs and libraries of the host: what it
/// sees of the file system it can only read.
fn shut_in(uid: u32) -> Result<(), Errno> {
    let apart = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    namespace::unshare(apart)?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let set = attribute::RDONLY | attribute::NOSUID;
    mount::set_attributes(root.as_fd(), Depth::Recursive, set, 0, attribute::PRIVATE)?;
    capability::limit_bounding(0)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_gid(Gid::from_raw(uid))?;
    rustix::thread::set_thread_uid(Uid::from_raw(uid))?;
    rustix::thread::set_no_new_privs(true)
}

/// A descriptor's number as text.
pub(crate) fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
