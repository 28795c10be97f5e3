//! `companion`: a program of the host's own that stands for a container's process, in the container's cgroup
//! and network: a hypervisor, or one session of it. It has no file system, user or rights of a container.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cata_sys::clone::Namespaces;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use rustix::thread::LinkNameSpaceType;

use crate::error::{SpawnError, Stage, at};
use crate::handshake::{Channel, Failure, Message};
use crate::init;
use crate::manner::Spawned;
use crate::parent::{Birth, Handles};
use crate::plan::{NamespaceKind, WindowSize};

/// What a companion is.
#[derive(Debug)]
pub struct Companion<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments, its own name not among them.
    pub arguments: &'a [&'a str],
    /// It has them as 3, 4, …
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Its standard streams are a terminal, of this size if any is given.
    pub terminal: Option<Option<WindowSize>>,
}

/// Numbers that nobody has asked for.
const OUT_OF_THE_WAY: i32 = 64;

/// Starts one and returns once it runs. Of the handles' namespaces only the network's is entered; the process
/// has a mount namespace and a session of its own.
///
/// # Errors
/// [`SpawnError`].
pub fn companion(wanted: &Companion<'_>, handles: &Handles<'_>) -> Result<Spawned, SpawnError> {
    let terminal = wanted.terminal.map(terminal).transpose()?;
    let (master, slave) = terminal.unzip();
    let birth = Birth {
        namespaces: Namespaces(u64::from(rustix::thread::UnshareFlags::NEWNS.bits())),
        pid_namespace: None,
        user: None,
        enter: Vec::new(),
        time: None,
        net_devices: (&[], None),
        uid_mappings: &[],
        gid_mappings: &[],
        oom_score_adj: None,
        cgroup: handles.cgroup,
    };
    let mut spawned = birth.give(&mut crate::manner::Alone, |channel, _| {
        match become_it(wanted, handles, slave.as_ref(), channel) {
            Err(failure) => failure,
        }
    })?;
    spawned.terminal = master;
    Ok(spawned)
}

/// A terminal of the host's.
fn terminal(size: Option<WindowSize>) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let pair = || -> Result<_, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some(size) = size {
            let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        Ok((master, slave))
    };
    pair().map_err(at(Stage::Terminal, "/dev/ptmx"))
}

/// In the new process.
fn become_it(
    wanted: &Companion<'_>,
    handles: &Handles<'_>,
    slave: Option<&OwnedFd>,
    channel: &Channel,
) -> Result<Infallible, Failure> {
    init::wake(channel)?;
    if let Some((_, network)) = handles.join.iter().find(|(kind, _)| *kind == NamespaceKind::Network) {
        rustix::thread::move_into_link_name_space(*network, Some(LinkNameSpaceType::Network))
            .map_err(Failure::at(Stage::JoinNamespace, "net"))?;
    }
    let failed = || Failure::at(Stage::StandardStreams, "");
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, OUT_OF_THE_WAY);
    let channel = channel.above(OUT_OF_THE_WAY).map_err(failed())?;
    let sources = wanted.descriptors.iter().map(|fd| copy(*fd)).collect::<Result<Vec<_>, _>>();
    let sources = sources.map_err(failed())?;
    let streams = match slave {
        Some(slave) => {
            rustix::process::ioctl_tiocsctty(slave)
                .map_err(Failure::at(Stage::Terminal, "controlling terminal"))?;
            [slave.as_fd(); 3].map(copy)
        }
        None => handles.stdio.map(copy),
    };
    let [stdin, stdout, stderr] = streams;
    rustix::stdio::dup2_stdin(stdin.map_err(failed())?).map_err(failed())?;
    rustix::stdio::dup2_stdout(stdout.map_err(failed())?).map_err(failed())?;
    rustix::stdio::dup2_stderr(stderr.map_err(failed())?).map_err(failed())?;
    cata_sys::disposition::reset().map_err(Failure::at(Stage::Execute, "signals"))?;
    cata_sys::program::close_on_execute_from(3).map_err(Failure::at(Stage::Execute, "close_range"))?;
    for (source, number) in sources.iter().zip(cata_sys::detach::FIRST..) {
        cata_sys::program::give(source.as_fd(), number).map_err(failed())?;
    }
    let text = |text: &[u8]| CString::new(text).map_err(|_| Failure::at(Stage::Execute, "")(Errno::INVAL));
    let program = text(wanted.program.as_os_str().as_bytes())?;
    let mut argv = vec![program.clone()];
    for argument in wanted.arguments {
        argv.push(text(argument.as_bytes())?);
    }
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    channel.send(&Message::Ready, None).map_err(Failure::at(Stage::Handshake, ""))?;
    Err(match cata_sys::program::execute(&program, &argv, &[path]) {
        Errno::NOENT => Failure::NoProgram(wanted.program.display().to_string()),
        errno => Failure::at(Stage::Execute, wanted.program.display())(errno),
    })
}

/// Makes what follows visible to nobody else: for the companion itself, in the mount namespace it was born in.
///
/// # Errors
/// That of `mount_setattr`.
pub fn hide_mounts() -> io::Result<()> {
    let depth = cata_sys::mount::Depth::Recursive;
    let private = cata_sys::mount::attribute::PRIVATE;
    Ok(cata_sys::mount::set_propagation(Path::new("/"), private, depth)?)
}

/// What [`plan::Root`](crate::plan::Root) describes, as a detached tree.
///
/// # Errors
/// In words.
pub fn root_tree(root: &crate::plan::Root) -> Result<OwnedFd, String> {
    crate::rootfs::tree(root).map_err(SpawnError::from).map_err(|error| {
        use std::error::Error as _;
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    })
}
