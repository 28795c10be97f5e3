//! `exec`: one more process in a running container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cata_sys::clone::Namespaces;
use rustix::io::Errno;
use rustix::thread::ThreadNameSpaceType;

use crate::error::{SpawnError, Stage, at};
use crate::handshake::Failure;
use crate::init;
use crate::manner::{Alone, Attendant, Manner, Spawned};
use crate::namespace::{may_return, open_path};
use crate::parent::{Birth, Handles};
use crate::plan::{ExecPlan, NamespaceKind};
use crate::spawn::lend_pipes;

/// Starts one more process in the container whose first process `container` is a pidfd of.
///
/// # Errors
/// [`SpawnError::NotRunning`] when the container has ended, and everything that `spawn` knows.
pub fn exec(
    plan: &ExecPlan,
    container: BorrowedFd<'_>,
    handles: &Handles<'_>,
) -> Result<Spawned, SpawnError> {
    exec_with(plan, container, handles, Manner::default(), &mut Alone)
}

/// [`exec`], in another manner and with company.
///
/// # Errors
/// As [`exec`].
pub fn exec_with(
    plan: &ExecPlan,
    container: BorrowedFd<'_>,
    handles: &Handles<'_>,
    manner: Manner<'_>,
    attendant: &mut dyn Attendant,
) -> Result<Spawned, SpawnError> {
    let pid = pid_of(container)?;
    let mut namespaces = 0;
    for kind in NamespaceKind::ALL {
        let name = kind.file_name();
        let theirs = read_link(&format!("/proc/{pid}/ns/{name}"))?;
        if Some(&theirs) != read_link(&format!("/proc/self/ns/{name}")).ok().as_ref() {
            namespaces |= thread_type(kind).bits();
        }
    }
    let mut namespaces = ThreadNameSpaceType::from_bits_retain(namespaces);
    // In the same mount namespace only its root is another.
    let root = match namespaces.contains(ThreadNameSpaceType::MOUNT) {
        true => None,
        false => Some(open_root(pid)?),
    };
    if namespaces.contains(ThreadNameSpaceType::USER)
        && let Some(root) = root_of(pid)
    {
        lend_pipes(&handles.stdio, root);
    }
    let own_pids = namespaces.contains(ThreadNameSpaceType::PROCESS_ID);
    // The pid namespace is the one it is born in.
    namespaces.remove(ThreadNameSpaceType::PROCESS_ID);
    let pid_namespace = match own_pids {
        true => Some(open_namespace(&format!("/proc/{pid}/ns/pid"))?),
        false => None,
    };
    // Without rights to its own namespaces nobody has any to the container's before he is one of its users.
    let own = open_namespace("/proc/self/ns/pid")?;
    let user = match namespaces.contains(ThreadNameSpaceType::USER) && !may_return(own.as_fd()) {
        true => Some(open_namespace(&format!("/proc/{pid}/ns/user"))?),
        false => None,
    };
    let becomes_root = namespaces.contains(ThreadNameSpaceType::USER);
    if user.is_some() {
        namespaces.remove(ThreadNameSpaceType::USER);
    }
    let into = init::Into { container, namespaces, root: root.as_ref().map(AsFd::as_fd), becomes_root };
    let mut birth = Birth {
        namespaces: Namespaces::default(),
        pid_namespace: pid_namespace.as_ref().map(AsFd::as_fd),
        time: None,
        net_devices: (&[], None),
        user: user.as_ref().map(AsFd::as_fd),
        enter: Vec::new(),
        uid_mappings: &[],
        gid_mappings: &[],
        oom_score_adj: plan.process.oom_score_adj,
        cgroup: handles.cgroup,
    };
    let child = |channel: &mut _| match init::further(plan, &into, handles.stdio, manner, channel) {
        Err(failure) => failure,
    };
    let born = birth.give(attendant, |channel, _| child(channel));
    if !matches!(&born, Err(error) if is_divided(error)) {
        return born;
    }
    // An init has put itself and its services into cgroups of their own: where it is there is room.
    let beside = handles.cgroup.map(|cgroup| cgroup.of_process(pid)).transpose();
    let beside = beside.map_err(|error| SpawnError::from(Failure::cgroup(&error)))?.flatten();
    if beside.is_none() {
        return born;
    }
    birth.cgroup = beside.as_ref();
    birth.give(attendant, |channel, _| child(channel))
}

/// The kernel's word for a cgroup that gives controllers to those below it, and takes no processes therefore.
fn is_divided(error: &SpawnError) -> bool {
    let busy = Some(Errno::BUSY.raw_os_error());
    matches!(error, SpawnError::System { stage: Stage::Clone, source, .. } if source.raw_os_error() == busy)
}

/// The pid behind a pidfd, as `/proc` tells it.
fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32, SpawnError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(|source| SpawnError::System {
        stage: Stage::JoinNamespace,
        subject: path.clone(),
        detail: None,
        source,
    })?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    number.filter(|pid| *pid > 0).ok_or(SpawnError::NotRunning)
}

/// Whom the container's root is here.
fn root_of(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?;
    text.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        (numbers.next()?? == 0).then(|| numbers.next().flatten())?
    })
}

fn read_link(path: &str) -> Result<Vec<u8>, SpawnError> {
    match rustix::fs::readlink(path, Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        Err(Errno::NOENT | Errno::SRCH) => Err(SpawnError::NotRunning),
        Err(errno) => Err(at(Stage::JoinNamespace, path)(errno)),
    }
}

fn open_namespace(path: &str) -> Result<OwnedFd, SpawnError> {
    match open_path(path) {
        Err(Errno::NOENT | Errno::SRCH) => Err(SpawnError::NotRunning),
        result => result.map_err(at(Stage::JoinNamespace, path)),
    }
}

fn open_root(pid: i32) -> Result<OwnedFd, SpawnError> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/{pid}/root");
    match rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => Err(SpawnError::NotRunning),
        result => result.map_err(at(Stage::JoinNamespace, path)),
    }
}

fn thread_type(kind: NamespaceKind) -> ThreadNameSpaceType {
    match kind {
        NamespaceKind::User => ThreadNameSpaceType::USER,
        NamespaceKind::Mount => ThreadNameSpaceType::MOUNT,
        NamespaceKind::Pid => ThreadNameSpaceType::PROCESS_ID,
        NamespaceKind::Network => ThreadNameSpaceType::NETWORK,
        NamespaceKind::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        NamespaceKind::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        NamespaceKind::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
        NamespaceKind::Time => ThreadNameSpaceType::TIME,
    }
}
