//! The cage around a machine's process: nothing of the host's file system, no privilege, and in each thread
//! only the system calls that its work needs. A guest that breaks out of its machine is in here.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cata_sys::mount::{Depth, Filesystem, attach, attribute, pivot_into, set_propagation};
use cata_sys::{capability, heap, namespace};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use rustix::thread::{Gid, Uid};
use rustix::thread::{
    UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// What went wrong on the way into the cage.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the virtual machine: {what}")]
pub struct JailError {
    what: &'static str,
    source: io::Error,
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> JailError {
    move |source| JailError { what, source: source.into() }
}

/// Leaves the host for good: an empty, read-only root that nobody else sees, names and System V objects of its
/// own, this user and group and no other, no capability, no way to gain any, no core dump. For a process with
/// one thread that is root; whoever it starts from now on is confined as well.
///
/// The network namespace stays, and so does every open descriptor: what must not be open is to be closed before.
pub fn enter(user: u32, group: u32) -> Result<(), JailError> {
    let apart = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    namespace::unshare(apart).map_err(step("namespaces"))?;
    set_propagation(Path::new("/"), attribute::PRIVATE, Depth::Recursive).map_err(step("mounts"))?;
    empty_root().map_err(step("an empty root"))?;
    capability::limit_bounding(0).map_err(step("capabilities"))?;
    set_thread_groups(&[]).map_err(step("groups"))?;
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    set_thread_res_gid(group, group, group).map_err(step("the group"))?;
    set_thread_res_uid(user, user, user).map_err(step("the user"))?;
    capability::set_sets(0, 0, 0).map_err(step("capabilities"))?;
    set_no_new_privs(true).map_err(step("privileges"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("dumps"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(step("dumps"))
}

fn empty_root() -> Result<(), rustix::io::Errno> {
    let tmpfs = Filesystem::open("tmpfs")?;
    tmpfs.set("size", b"4k")?;
    tmpfs.set("mode", b"0555")?;
    let root = tmpfs.mount(attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC)?;
    // Any directory will do to hang it up before it becomes the root; this one is everywhere.
    let place = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    use std::os::fd::AsFd;
    attach(root.as_fd(), place.as_fd())?;
    pivot_into(root.as_fd())
}

/// What a thread is for, and so which system calls it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Runs a processor: in and out of the guest, eventfds.
    Vcpu,
    /// Serves devices: files, sockets and taps that are open already.
    Devices,
    /// The one that watches over the machine and talks to its guest and its supervisor.
    Link,
}

/// System call filters, one for each kind of thread.
#[derive(Debug, Clone)]
pub struct Filters(Arc<[BpfProgram; 3]>);

/// What every thread needs: memory, locks, time, signals, its end.
const EVERY: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Debug builds look whether a descriptor is open before they close it.
    libc::SYS_fcntl,
    // Asked of a descriptor before it is closed where assertions are compiled in.
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

const DEVICES: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_getrandom,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
];

const LINK: &[libc::c_long] = &[
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_getsockopt,
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_setsockopt,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// `KVM_RUN`, `KVM_SET_SIGNAL_MASK`, `KVM_KVMCLOCK_CTRL`.
const VCPU_IOCTLS: &[u64] = &[0xae80, 0x4004_ae8b, 0xaead];
/// `TUNSETOFFLOAD`, `TUNSETVNETHDRSZ`, `FIONBIO`.
const DEVICES_IOCTLS: &[u64] = &[0x4004_54d0, 0x4004_54d8, 0x5421];
/// `FIONBIO`, `FIONREAD`, terminals: `TCGETS`, `TCSETS`, `TIOCGWINSZ`, `TIOCSWINSZ`.
const LINK_IOCTLS: &[u64] = &[0x5421, 0x541b, 0x5401, 0x5402, 0x5413, 0x5414];

impl Filters {
    /// Compiles them, and prepares the heap for threads that have them: to be called before there are others.
    pub fn new() -> Result<Filters, JailError> {
        heap::share();
        let compile = |thread| {
            compile(thread).map_err(|e| JailError { what: "system calls", source: io::Error::other(e) })
        };
        Ok(Filters(Arc::new([compile(Thread::Vcpu)?, compile(Thread::Devices)?, compile(Thread::Link)?])))
    }

    /// From now on this thread has the system calls of its kind, and any other ends the process (`SIGSYS`).
    pub fn confine(&self, thread: Thread) -> Result<(), JailError> {
        apply_filter(&self.0[thread as usize])
            .map_err(|e| JailError { what: "system calls", source: io::Error::other(e) })
    }
}

fn compile(thread: Thread) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let (calls, ioctls): (&[&[libc::c_long]], _) = match thread {
        Thread::Vcpu => (&[EVERY], VCPU_IOCTLS),
        Thread::Devices => (&[EVERY, DEVICES], DEVICES_IOCTLS),
        Thread::Link => (&[EVERY, DEVICES, LINK], LINK_IOCTLS),
    };
    for call in calls.iter().copied().flatten() {
        rules.insert(*call, Vec::new());
    }
    for ioctl in ioctls {
        rules.entry(libc::SYS_ioctl).or_default().push(argument(1, SeccompCmpOp::Eq, *ioctl)?);
    }
    // Memory that can be executed is not made.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let execute = libc::PROT_EXEC as u64;
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(execute), 0)?]);
    }
    if thread == Thread::Link {
        // The one that asks the name service: datagrams and streams of the internet protocols and local ones.
        for family in [libc::AF_INET, libc::AF_UNIX] {
            rules.entry(libc::SYS_socket).or_default().push(argument(0, SeccompCmpOp::Eq, family as u64)?);
        }
        rules.insert(libc::SYS_connect, Vec::new());
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    filter.try_into()
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use super::*;

    const STEP: &str = "CATA_JAIL_STEP";

    /// Takes a step in a process of its own.
    fn alone(step: &str) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--quiet", "jail::tests::a_step_for_others"]).env(STEP, step);
        command.output().unwrap().status
    }

    /// Does nothing by itself: the tests below run it again in processes that may end.
    #[test]
    fn a_step_for_others() {
        let Ok(step) = std::env::var(STEP) else { return };
        let good = match step.as_str() {
            "cage" => in_the_cage(),
            _ => {
                let filters = Filters::new().unwrap();
                let thread = std::thread::spawn(move || {
                    filters.confine(Thread::Devices).unwrap();
                    with_filter(&step)
                });
                thread.join().unwrap()
            }
        };
        std::process::exit(if good { 7 } else { 8 });
    }

    fn with_filter(step: &str) -> bool {
        match step {
            "open" => std::fs::File::open("/etc/hostname").is_ok(),
            "execute" => {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                vm_memory::MmapRegion::<()>::build(None, 4096, libc::PROT_EXEC, flags).is_ok()
            }
            _ => {
                // So much that the allocator gives some back, then what it maps by itself.
                let small: Vec<Vec<u8>> = (0..200).map(|_| vec![1; 60_000]).collect();
                drop(small);
                vec![1_u8; 10 << 20].iter().map(|byte| u64::from(*byte)).sum::<u64>() == 10 << 20
            }
        }
    }

    fn in_the_cage() -> bool {
        // This thread alone goes in: what is asked of the kernel here is asked for a thread.
        enter(64_000, 64_001).unwrap();
        let empty = std::fs::read_dir("/").unwrap().count() == 0;
        let powerless = rustix::thread::capabilities(None).unwrap().permitted.is_empty();
        let made = std::fs::File::create("/file").is_ok();
        let again = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok();
        empty && powerless && !made && !again
    }

    #[test]
    fn a_call_that_a_thread_does_not_need_ends_the_process() {
        assert_eq!(alone("open").signal(), Some(libc::SIGSYS));
        assert_eq!(alone("execute").signal(), Some(libc::SIGSYS));
        assert_eq!(alone("memory").code(), Some(7));
    }

    #[test]
    fn cage_is_empty_and_has_no_way_out() {
        if rustix::process::geteuid().is_root() {
            assert_eq!(alone("cage").code(), Some(7));
        }
    }
}
