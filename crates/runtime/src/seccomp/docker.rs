//! Docker's default seccomp profile, as a table.
//!
//! It follows the profile of moby/profiles: everything refused with EPERM but what is named here; what needs a
//! capability is allowed to those who have it. The rule on `ptrace` and a kernel before 4.8 is left out: this
//! engine needs a newer one.

use cata_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::Arch;

/// Allowed to everybody.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat
    dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr
    fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
    get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents
    io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
    listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid
    setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64
    statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
    tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed to those who have a capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Execution domains that `personality` may choose: Linux and Linux32, each also with a version number of
/// the 2.6 series (`UNAME26`), and the question which one is in force.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_DECnet: socket families below this one are all allowed.
const FIRST_REFUSED_FAMILY: u64 = 12;
/// Of the families above, those that are allowed. Missing are old or dangerous ones: Econet, ATM SVC, IrDA,
/// mISDN, CAIF, the kernel's crypto API (AF_ALG), and AF_VSOCK, which no network namespace confines.
const FAMILIES: [u64; 24] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44];
/// AF_MCTP: the last family allowed.
const LAST_FAMILY: u64 = 45;

/// The flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, pid, network.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Docker's default profile for a container that has these capabilities (`CAP_CHOWN`, …; its bounding set).
#[must_use]
pub fn docker_default(caps: &[impl AsRef<str>], arch: Arch) -> LinuxSeccomp {
    let has = |cap: &str| caps.iter().any(|have| have.as_ref() == cap);
    let mut names: Vec<String> = words(ALLOWED);
    for (cap, calls) in BY_CAPABILITY {
        if has(cap) {
            names.extend(words(calls));
        }
    }
    names.extend(words(match arch {
        Arch::X86_64 => "arch_prctl modify_ldt",
        Arch::X86 => "modify_ldt",
        Arch::Aarch64 => {
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
        }
    }));
    let mut rules = vec![rule(names, None)];
    rules.push(one("socket", Operator::ScmpCmpLt, FIRST_REFUSED_FAMILY, None));
    for family in FAMILIES.into_iter().chain([LAST_FAMILY]) {
        rules.push(one("socket", Operator::ScmpCmpEq, family, None));
    }
    for personality in PERSONALITIES {
        rules.push(one("personality", Operator::ScmpCmpEq, personality, None));
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(one("clone", Operator::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0)));
        // Its flags are behind a pointer, where no filter can look: libraries fall back to clone.
        let mut clone3 = rule(words("clone3"), None);
        clone3.set_action(Action::ScmpActErrno).set_errno_ret(Some(ENOSYS));
        rules.push(clone3);
    }

    let mut profile = LinuxSeccompBuilder::default().build().unwrap_or_default();
    profile.set_default_action(Action::ScmpActErrno);
    profile.set_default_errno_ret(Some(EPERM));
    profile.set_architectures(Some(match arch {
        Arch::X86_64 => vec![OciArch::ScmpArchX86_64, OciArch::ScmpArchX86, OciArch::ScmpArchX32],
        Arch::X86 => vec![OciArch::ScmpArchX86],
        Arch::Aarch64 => vec![OciArch::ScmpArchAarch64, OciArch::ScmpArchArm],
    }));
    profile.set_syscalls(Some(rules));
    profile
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn rule(names: Vec<String>, args: Option<Vec<LinuxSeccompArg>>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(Action::ScmpActAllow).set_args(args);
    rule
}

/// Allows a call if its first argument compares so.
fn one(name: &str, operator: Operator, value: u64, value_two: Option<u64>) -> LinuxSyscall {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value);
    let argument = value_two.into_iter().fold(argument, LinuxSeccompArgBuilder::value_two);
    rule(words(name), argument.build().ok().map(|argument| vec![argument]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::seccomp::syscalls;

    /// Docker's capabilities that a profile asks for.
    const CAPS: [&str; 3] = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD"];

    #[test]
    fn every_call_that_is_denied_is_tried_by_a_test() {
        let profile = docker_default(&CAPS, Arch::X86_64);
        let rules = profile.syscalls().iter().flatten();
        let ruled: BTreeSet<&str> = rules.flat_map(LinuxSyscall::names).map(String::as_str).collect();
        let denied: Vec<_> = syscalls::all(Arch::X86_64).filter(|(name, _)| !ruled.contains(name)).collect();
        assert!(denied.len() > 60, "{denied:?}");
        let test = include_str!("../../../../tests/it/oci_confinement.rs");
        for (name, number) in denied {
            assert!(test.contains(&format!("(\"{name}\", {number}),")), "{name} ({number}) is not tried");
        }
    }
}
