//! Numbers of system calls by name, for the architectures a filter can be compiled for.
//!
//! The table is data from the kernel's headers (`asm/unistd_64.h`, `asm/unistd_32.h`,
//! `asm-generic/unistd.h` of 6.1) and, for calls that came later, its common table up to 6.17.

use cata_spec::runtime::Arch as OciArch;

use super::SeccompError;

/// An architecture that filters can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86_64 (Docker: `amd64`).
    X86_64,
    /// i386 (Docker: `x86`).
    X86,
    /// 64-bit ARM (Docker: `arm64`).
    Aarch64,
}

impl Arch {
    /// The architecture this program was built for.
    ///
    /// # Errors
    /// [`SeccompError::Machine`] where no table exists.
    pub fn native() -> Result<Self, SeccompError> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(SeccompError::Machine(other)),
        }
    }

    /// The kernel's `AUDIT_ARCH_*`, as a filter sees it.
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The name Docker's profiles use (`includes.arches`).
    #[must_use]
    pub fn docker(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    pub(super) fn oci(self) -> OciArch {
        match self {
            Self::X86_64 => OciArch::ScmpArchX86_64,
            Self::X86 => OciArch::ScmpArchX86,
            Self::Aarch64 => OciArch::ScmpArchAarch64,
        }
    }

    /// The number of a call, `None` if this architecture does not have it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        self.number_of(row(name)?)
    }

    pub(super) fn number_of(self, row: &Row) -> Option<u32> {
        let number = match self {
            Self::X86_64 => row.1,
            Self::X86 => row.2,
            Self::Aarch64 => row.3,
        };
        (number != N).then_some(u32::from(number))
    }
}

/// A name and its numbers.
pub(super) type Row = (&'static str, u16, u16, u16);

/// The row of a call that any architecture here has.
pub(super) fn row(name: &str) -> Option<&'static Row> {
    let at = TABLE.binary_search_by(|row| row.0.cmp(name)).ok()?;
    TABLE.get(at)
}

/// Every call of an architecture, with its number.
#[cfg(test)]
pub(super) fn all(arch: Arch) -> impl Iterator<Item = (&'static str, u32)> {
    TABLE.iter().filter_map(move |row| Some((row.0, arch.number_of(row)?)))
}

/// Whether a name without a row is at least a call somewhere.
pub(super) fn foreign(name: &str) -> bool {
    FOREIGN.contains(&name)
}

/// Calls that only architectures without a table here have, and names that are not calls of their own:
/// common profiles list them, so that they are worth no warning.
const FOREIGN: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "breakpoint",
    "cacheflush",
    "epoll_ctl_old",
    "epoll_wait_old",
    "fstatat64",
    "recv",
    "riscv_flush_icache",
    "riscv_hwprobe",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "semop",
    "send",
    "set_tls",
    "swapcontext",
    "sync_file_range2",
    "umount",
    "utimensat_time64",
];

/// Marks a call that an architecture does not have.
const N: u16 = u16::MAX;

/// Name, x86_64, i386, aarch64; in the order of the names.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("_llseek", N, 140, N), ("_newselect", N, 142, N), ("_sysctl", 156, 149, N), ("accept", 43, N, 202),
    ("accept4", 288, 364, 242), ("access", 21, 33, N), ("acct", 163, 51, 89), ("add_key", 248, 286, 217),
    ("adjtimex", 159, 124, 171), ("afs_syscall", 183, 137, N), ("alarm", 37, 27, N),
    ("arch_prctl", 158, 384, N), ("bdflush", N, 134, N), ("bind", 49, 361, 200), ("bpf", 321, 357, 280),
    ("break", N, 17, N), ("brk", 12, 45, 214), ("cachestat", 451, 451, 451), ("capget", 125, 184, 90),
    ("capset", 126, 185, 91), ("chdir", 80, 12, 49), ("chmod", 90, 15, N), ("chown", 92, 182, N),
    ("chown32", N, 212, N), ("chroot", 161, 61, 51), ("clock_adjtime", 305, 343, 266),
    ("clock_adjtime64", N, 405, N), ("clock_getres", 229, 266, 114), ("clock_getres_time64", N, 406, N),
    ("clock_gettime", 228, 265, 113), ("clock_gettime64", N, 403, N), ("clock_nanosleep", 230, 267, 115),
    ("clock_nanosleep_time64", N, 407, N), ("clock_settime", 227, 264, 112), ("clock_settime64", N, 404, N),
    ("clone", 56, 120, 220), ("clone3", 435, 435, 435), ("close", 3, 6, 57), ("close_range", 436, 436, 436),
    ("connect", 42, 362, 203), ("copy_file_range", 326, 377, 285), ("creat", 85, 8, N),
    ("create_module", 174, 127, N), ("delete_module", 176, 129, 106), ("dup", 32, 41, 23),
    ("dup2", 33, 63, N), ("dup3", 292, 330, 24), ("epoll_create", 213, 254, N),
    ("epoll_create1", 291, 329, 20), ("epoll_ctl", 233, 255, 21), ("epoll_ctl_old", 214, N, N),
    ("epoll_pwait", 281, 319, 22), ("epoll_pwait2", 441, 441, 441), ("epoll_wait", 232, 256, N),
    ("epoll_wait_old", 215, N, N), ("eventfd", 284, 323, N), ("eventfd2", 290, 328, 19),
    ("execve", 59, 11, 221), ("execveat", 322, 358, 281), ("exit", 60, 1, 93), ("exit_group", 231, 252, 94),
    ("faccessat", 269, 307, 48), ("faccessat2", 439, 439, 439), ("fadvise64", 221, 250, 223),
    ("fadvise64_64", N, 272, N), ("fallocate", 285, 324, 47), ("fanotify_init", 300, 338, 262),
    ("fanotify_mark", 301, 339, 263), ("fchdir", 81, 133, 50), ("fchmod", 91, 94, 52),
    ("fchmodat", 268, 306, 53), ("fchmodat2", 452, 452, 452), ("fchown", 93, 95, 55), ("fchown32", N, 207, N),
    ("fchownat", 260, 298, 54), ("fcntl", 72, 55, 25), ("fcntl64", N, 221, N), ("fdatasync", 75, 148, 83),
    ("fgetxattr", 193, 231, 10), ("file_getattr", 468, 468, 468), ("file_setattr", 469, 469, 469),
    ("finit_module", 313, 350, 273), ("flistxattr", 196, 234, 13), ("flock", 73, 143, 32), ("fork", 57, 2, N),
    ("fremovexattr", 199, 237, 16), ("fsconfig", 431, 431, 431), ("fsetxattr", 190, 228, 7),
    ("fsmount", 432, 432, 432), ("fsopen", 430, 430, 430), ("fspick", 433, 433, 433), ("fstat", 5, 108, 80),
    ("fstat64", N, 197, N), ("fstatat64", N, 300, N), ("fstatfs", 138, 100, 44), ("fstatfs64", N, 269, N),
    ("fsync", 74, 118, 82), ("ftime", N, 35, N), ("ftruncate", 77, 93, 46), ("ftruncate64", N, 194, N),
    ("futex", 202, 240, 98), ("futex_requeue", 456, 456, 456), ("futex_time64", N, 422, N),
    ("futex_wait", 455, 455, 455), ("futex_waitv", 449, 449, 449), ("futex_wake", 454, 454, 454),
    ("futimesat", 261, 299, N), ("get_kernel_syms", 177, 130, N), ("get_mempolicy", 239, 275, 236),
    ("get_robust_list", 274, 312, 100), ("get_thread_area", 211, 244, N), ("getcpu", 309, 318, 168),
    ("getcwd", 79, 183, 17), ("getdents", 78, 141, N), ("getdents64", 217, 220, 61),
    ("getegid", 108, 50, 177), ("getegid32", N, 202, N), ("geteuid", 107, 49, 175), ("geteuid32", N, 201, N),
    ("getgid", 104, 47, 176), ("getgid32", N, 200, N), ("getgroups", 115, 80, 158),
    ("getgroups32", N, 205, N), ("getitimer", 36, 105, 102), ("getpeername", 52, 368, 205),
    ("getpgid", 121, 132, 155), ("getpgrp", 111, 65, N), ("getpid", 39, 20, 172), ("getpmsg", 181, 188, N),
    ("getppid", 110, 64, 173), ("getpriority", 140, 96, 141), ("getrandom", 318, 355, 278),
    ("getresgid", 120, 171, 150), ("getresgid32", N, 211, N), ("getresuid", 118, 165, 148),
    ("getresuid32", N, 209, N), ("getrlimit", 97, 76, 163), ("getrusage", 98, 77, 165),
    ("getsid", 124, 147, 156), ("getsockname", 51, 367, 204), ("getsockopt", 55, 365, 209),
    ("gettid", 186, 224, 178), ("gettimeofday", 96, 78, 169), ("getuid", 102, 24, 174),
    ("getuid32", N, 199, N), ("getxattr", 191, 229, 8), ("getxattrat", 464, 464, 464), ("gtty", N, 32, N),
    ("idle", N, 112, N), ("init_module", 175, 128, 105), ("inotify_add_watch", 254, 292, 27),
    ("inotify_init", 253, 291, N), ("inotify_init1", 294, 332, 26), ("inotify_rm_watch", 255, 293, 28),
    ("io_cancel", 210, 249, 3), ("io_destroy", 207, 246, 1), ("io_getevents", 208, 247, 4),
    ("io_pgetevents", 333, 385, 292), ("io_pgetevents_time64", N, 416, N), ("io_setup", 206, 245, 0),
    ("io_submit", 209, 248, 2), ("io_uring_enter", 426, 426, 426), ("io_uring_register", 427, 427, 427),
    ("io_uring_setup", 425, 425, 425), ("ioctl", 16, 54, 29), ("ioperm", 173, 101, N), ("iopl", 172, 110, N),
    ("ioprio_get", 252, 290, 31), ("ioprio_set", 251, 289, 30), ("ipc", N, 117, N), ("kcmp", 312, 349, 272),
    ("kexec_file_load", 320, N, 294), ("kexec_load", 246, 283, 104), ("keyctl", 250, 288, 219),
    ("kill", 62, 37, 129), ("landlock_add_rule", 445, 445, 445), ("landlock_create_ruleset", 444, 444, 444),
    ("landlock_restrict_self", 446, 446, 446), ("lchown", 94, 16, N), ("lchown32", N, 198, N),
    ("lgetxattr", 192, 230, 9), ("link", 86, 9, N), ("linkat", 265, 303, 37), ("listen", 50, 363, 201),
    ("listmount", 458, 458, 458), ("listxattr", 194, 232, 11), ("listxattrat", 465, 465, 465),
    ("llistxattr", 195, 233, 12), ("lock", N, 53, N), ("lookup_dcookie", 212, 253, 18),
    ("lremovexattr", 198, 236, 15), ("lseek", 8, 19, 62), ("lsetxattr", 189, 227, 6),
    ("lsm_get_self_attr", 459, 459, 459), ("lsm_list_modules", 461, 461, 461),
    ("lsm_set_self_attr", 460, 460, 460), ("lstat", 6, 107, N), ("lstat64", N, 196, N),
    ("madvise", 28, 219, 233), ("map_shadow_stack", 453, 453, 453), ("mbind", 237, 274, 235),
    ("membarrier", 324, 375, 283), ("memfd_create", 319, 356, 279), ("memfd_secret", 447, 447, 447),
    ("migrate_pages", 256, 294, 238), ("mincore", 27, 218, 232), ("mkdir", 83, 39, N),
    ("mkdirat", 258, 296, 34), ("mknod", 133, 14, N), ("mknodat", 259, 297, 33), ("mlock", 149, 150, 228),
    ("mlock2", 325, 376, 284), ("mlockall", 151, 152, 230), ("mmap", 9, 90, 222), ("mmap2", N, 192, N),
    ("modify_ldt", 154, 123, N), ("mount", 165, 21, 40), ("mount_setattr", 442, 442, 442),
    ("move_mount", 429, 429, 429), ("move_pages", 279, 317, 239), ("mprotect", 10, 125, 226),
    ("mpx", N, 56, N), ("mq_getsetattr", 245, 282, 185), ("mq_notify", 244, 281, 184),
    ("mq_open", 240, 277, 180), ("mq_timedreceive", 243, 280, 183), ("mq_timedreceive_time64", N, 419, N),
    ("mq_timedsend", 242, 279, 182), ("mq_timedsend_time64", N, 418, N), ("mq_unlink", 241, 278, 181),
    ("mremap", 25, 163, 216), ("mseal", 462, 462, 462), ("msgctl", 71, 402, 187), ("msgget", 68, 399, 186),
    ("msgrcv", 70, 401, 188), ("msgsnd", 69, 400, 189), ("msync", 26, 144, 227), ("munlock", 150, 151, 229),
    ("munlockall", 152, 153, 231), ("munmap", 11, 91, 215), ("name_to_handle_at", 303, 341, 264),
    ("nanosleep", 35, 162, 101), ("newfstatat", 262, N, 79), ("nfsservctl", 180, 169, 42), ("nice", N, 34, N),
    ("oldfstat", N, 28, N), ("oldlstat", N, 84, N), ("oldolduname", N, 59, N), ("oldstat", N, 18, N),
    ("olduname", N, 109, N), ("open", 2, 5, N), ("open_by_handle_at", 304, 342, 265),
    ("open_tree", 428, 428, 428), ("open_tree_attr", 467, 467, 467), ("openat", 257, 295, 56),
    ("openat2", 437, 437, 437), ("pause", 34, 29, N), ("perf_event_open", 298, 336, 241),
    ("personality", 135, 136, 92), ("pidfd_getfd", 438, 438, 438), ("pidfd_open", 434, 434, 434),
    ("pidfd_send_signal", 424, 424, 424), ("pipe", 22, 42, N), ("pipe2", 293, 331, 59),
    ("pivot_root", 155, 217, 41), ("pkey_alloc", 330, 381, 289), ("pkey_free", 331, 382, 290),
    ("pkey_mprotect", 329, 380, 288), ("poll", 7, 168, N), ("ppoll", 271, 309, 73),
    ("ppoll_time64", N, 414, N), ("prctl", 157, 172, 167), ("pread64", 17, 180, 67), ("preadv", 295, 333, 69),
    ("preadv2", 327, 378, 286), ("prlimit64", 302, 340, 261), ("process_madvise", 440, 440, 440),
    ("process_mrelease", 448, 448, 448), ("process_vm_readv", 310, 347, 270),
    ("process_vm_writev", 311, 348, 271), ("prof", N, 44, N), ("profil", N, 98, N),
    ("pselect6", 270, 308, 72), ("pselect6_time64", N, 413, N), ("ptrace", 101, 26, 117),
    ("putpmsg", 182, 189, N), ("pwrite64", 18, 181, 68), ("pwritev", 296, 334, 70),
    ("pwritev2", 328, 379, 287), ("query_module", 178, 167, N), ("quotactl", 179, 131, 60),
    ("quotactl_fd", 443, 443, 443), ("read", 0, 3, 63), ("readahead", 187, 225, 213), ("readdir", N, 89, N),
    ("readlink", 89, 85, N), ("readlinkat", 267, 305, 78), ("readv", 19, 145, 65), ("reboot", 169, 88, 142),
    ("recvfrom", 45, 371, 207), ("recvmmsg", 299, 337, 243), ("recvmmsg_time64", N, 417, N),
    ("recvmsg", 47, 372, 212), ("remap_file_pages", 216, 257, 234), ("removexattr", 197, 235, 14),
    ("removexattrat", 466, 466, 466), ("rename", 82, 38, N), ("renameat", 264, 302, 38),
    ("renameat2", 316, 353, 276), ("request_key", 249, 287, 218), ("restart_syscall", 219, 0, 128),
    ("rmdir", 84, 40, N), ("rseq", 334, 386, 293), ("rt_sigaction", 13, 174, 134),
    ("rt_sigpending", 127, 176, 136), ("rt_sigprocmask", 14, 175, 135), ("rt_sigqueueinfo", 129, 178, 138),
    ("rt_sigreturn", 15, 173, 139), ("rt_sigsuspend", 130, 179, 133), ("rt_sigtimedwait", 128, 177, 137),
    ("rt_sigtimedwait_time64", N, 421, N), ("rt_tgsigqueueinfo", 297, 335, 240),
    ("sched_get_priority_max", 146, 159, 125), ("sched_get_priority_min", 147, 160, 126),
    ("sched_getaffinity", 204, 242, 123), ("sched_getattr", 315, 352, 275), ("sched_getparam", 143, 155, 121),
    ("sched_getscheduler", 145, 157, 120), ("sched_rr_get_interval", 148, 161, 127),
    ("sched_rr_get_interval_time64", N, 423, N), ("sched_setaffinity", 203, 241, 122),
    ("sched_setattr", 314, 351, 274), ("sched_setparam", 142, 154, 118),
    ("sched_setscheduler", 144, 156, 119), ("sched_yield", 24, 158, 124), ("seccomp", 317, 354, 277),
    ("security", 185, N, N), ("select", 23, 82, N), ("semctl", 66, 394, 191), ("semget", 64, 393, 190),
    ("semop", 65, N, 193), ("semtimedop", 220, N, 192), ("semtimedop_time64", N, 420, N),
    ("sendfile", 40, 187, 71), ("sendfile64", N, 239, N), ("sendmmsg", 307, 345, 269),
    ("sendmsg", 46, 370, 211), ("sendto", 44, 369, 206), ("set_mempolicy", 238, 276, 237),
    ("set_mempolicy_home_node", 450, 450, 450), ("set_robust_list", 273, 311, 99),
    ("set_thread_area", 205, 243, N), ("set_tid_address", 218, 258, 96), ("setdomainname", 171, 121, 162),
    ("setfsgid", 123, 139, 152), ("setfsgid32", N, 216, N), ("setfsuid", 122, 138, 151),
    ("setfsuid32", N, 215, N), ("setgid", 106, 46, 144), ("setgid32", N, 214, N), ("setgroups", 116, 81, 159),
    ("setgroups32", N, 206, N), ("sethostname", 170, 74, 161), ("setitimer", 38, 104, 103),
    ("setns", 308, 346, 268), ("setpgid", 109, 57, 154), ("setpriority", 141, 97, 140),
    ("setregid", 114, 71, 143), ("setregid32", N, 204, N), ("setresgid", 119, 170, 149),
    ("setresgid32", N, 210, N), ("setresuid", 117, 164, 147), ("setresuid32", N, 208, N),
    ("setreuid", 113, 70, 145), ("setreuid32", N, 203, N), ("setrlimit", 160, 75, 164),
    ("setsid", 112, 66, 157), ("setsockopt", 54, 366, 208), ("settimeofday", 164, 79, 170),
    ("setuid", 105, 23, 146), ("setuid32", N, 213, N), ("setxattr", 188, 226, 5),
    ("setxattrat", 463, 463, 463), ("sgetmask", N, 68, N), ("shmat", 30, 397, 196), ("shmctl", 31, 396, 195),
    ("shmdt", 67, 398, 197), ("shmget", 29, 395, 194), ("shutdown", 48, 373, 210), ("sigaction", N, 67, N),
    ("sigaltstack", 131, 186, 132), ("signal", N, 48, N), ("signalfd", 282, 321, N),
    ("signalfd4", 289, 327, 74), ("sigpending", N, 73, N), ("sigprocmask", N, 126, N),
    ("sigreturn", N, 119, N), ("sigsuspend", N, 72, N), ("socket", 41, 359, 198), ("socketcall", N, 102, N),
    ("socketpair", 53, 360, 199), ("splice", 275, 313, 76), ("ssetmask", N, 69, N), ("stat", 4, 106, N),
    ("stat64", N, 195, N), ("statfs", 137, 99, 43), ("statfs64", N, 268, N), ("statmount", 457, 457, 457),
    ("statx", 332, 383, 291), ("stime", N, 25, N), ("stty", N, 31, N), ("swapoff", 168, 115, 225),
    ("swapon", 167, 87, 224), ("symlink", 88, 83, N), ("symlinkat", 266, 304, 36), ("sync", 162, 36, 81),
    ("sync_file_range", 277, 314, 84), ("syncfs", 306, 344, 267), ("sysfs", 139, 135, N),
    ("sysinfo", 99, 116, 179), ("syslog", 103, 103, 116), ("tee", 276, 315, 77), ("tgkill", 234, 270, 131),
    ("time", 201, 13, N), ("timer_create", 222, 259, 107), ("timer_delete", 226, 263, 111),
    ("timer_getoverrun", 225, 262, 109), ("timer_gettime", 224, 261, 108), ("timer_gettime64", N, 408, N),
    ("timer_settime", 223, 260, 110), ("timer_settime64", N, 409, N), ("timerfd_create", 283, 322, 85),
    ("timerfd_gettime", 287, 326, 87), ("timerfd_gettime64", N, 410, N), ("timerfd_settime", 286, 325, 86),
    ("timerfd_settime64", N, 411, N), ("times", 100, 43, 153), ("tkill", 200, 238, 130),
    ("truncate", 76, 92, 45), ("truncate64", N, 193, N), ("tuxcall", 184, N, N), ("ugetrlimit", N, 191, N),
    ("ulimit", N, 58, N), ("umask", 95, 60, 166), ("umount", N, 22, N), ("umount2", 166, 52, 39),
    ("uname", 63, 122, 160), ("unlink", 87, 10, N), ("unlinkat", 263, 301, 35), ("unshare", 272, 310, 97),
    ("uretprobe", 335, N, N), ("uselib", 134, 86, N), ("userfaultfd", 323, 374, 282), ("ustat", 136, 62, N),
    ("utime", 132, 30, N), ("utimensat", 280, 320, 88), ("utimensat_time64", N, 412, N),
    ("utimes", 235, 271, N), ("vfork", 58, 190, N), ("vhangup", 153, 111, 58), ("vm86", N, 166, N),
    ("vm86old", N, 113, N), ("vmsplice", 278, 316, 75), ("vserver", 236, 273, N), ("wait4", 61, 114, 260),
    ("waitid", 247, 284, 95), ("waitpid", N, 7, N), ("write", 1, 4, 64), ("writev", 20, 146, 66),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_numbers_are_unique() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64] {
            let mut numbers: Vec<_> = TABLE.iter().filter_map(|row| arch.number(row.0)).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "{arch:?}");
        }
    }

    #[test]
    fn names_without_a_number_here_are_told_from_misspelt_ones() {
        assert_eq!(Arch::X86_64.number("read"), Some(0));
        assert_eq!(Arch::Aarch64.number("open"), None);
        assert!(row("chown32").is_some() && row("swapcontext").is_none());
        assert!(foreign("swapcontext") && !foreign("no_such_call"));
    }
}
