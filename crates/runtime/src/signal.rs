//! What a signal means to a container's first process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Whether the kernel would drop this signal: the process is pid 1 of a pid namespace of its own, and
/// neither catches it nor holds it back (as users of `sigwait` and `signalfd` do).
#[must_use]
pub fn is_dropped(pid: i32, signal: i32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    if !read("status").is_ok_and(|text| kernel_drops(&text, signal)) {
        return false;
    }
    // While somebody waits for signals by `sigwait`, its status does not show what it blocks otherwise.
    let awaited = read("syscall").ok().and_then(|text| awaited_at(&text)).and_then(|at| {
        let mut mask = [0; 8];
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        memory.read_exact_at(&mut mask, at).ok().map(|()| u64::from_ne_bytes(mask))
    });
    !awaited.is_some_and(|mask| holds(mask, signal))
}

/// The number of `rt_sigtimedwait`.
const SIGTIMEDWAIT: &str = if cfg!(target_arch = "aarch64") { "137" } else { "128" };

/// Where a process that waits for signals has their set, from its `/proc/<pid>/syscall`.
fn awaited_at(syscall: &str) -> Option<u64> {
    let mut words = syscall.split_whitespace();
    let at = words.next().filter(|number| *number == SIGTIMEDWAIT).and(words.next())?;
    u64::from_str_radix(at.strip_prefix("0x")?, 16).ok()
}

fn holds(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1).clamp(0, 63) & 1 == 1
}

/// Whether `/proc/<pid>/status` describes a process to which `signal` means nothing.
fn kernel_drops(status: &str, signal: i32) -> bool {
    if signal == 9 || signal == 19 {
        return false;
    }
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // As seen from each namespace, the outermost first.
    let mut pids = field("NSpid:").unwrap_or_default().split_whitespace();
    if pids.next().is_none() || pids.next_back() != Some("1") {
        return false;
    }
    let has = |name: &str| {
        let mask = field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(u64::MAX);
        holds(mask, signal)
    };
    !has("SigCgt:") && !has("SigBlk:")
}

#[cfg(test)]
mod tests {
    use super::{SIGTIMEDWAIT, awaited_at, kernel_drops};

    #[test]
    fn set_of_who_waits_for_signals_is_where_its_call_says() {
        let call = format!("{SIGTIMEDWAIT} 0x7ffc01 0x0 0x7ffc02 0x8 0x0 0x0 0x7ff 0x401\n");
        assert_eq!(awaited_at(&call), Some(0x7f_fc01));
        for other in ["running\n", "-1 0x7f 0x40\n", "7 0x7ffc01 0x0\n", ""] {
            assert_eq!(awaited_at(other), None, "{other}");
        }
    }

    #[test]
    fn signal_without_handler_is_dropped_for_pid_1_only() {
        let status = |pids, blocked, caught| {
            format!("Name:\tx\nNSpid:\t{pids}\nSigBlk:\t{blocked:016x}\nSigIgn:\t0\nSigCgt:\t{caught:016x}\n")
        };
        let term = 1_u64 << 14;
        assert!(kernel_drops(&status("77\t1", 0, 0), 15));
        assert!(!kernel_drops(&status("77\t1", 0, term), 15));
        assert!(!kernel_drops(&status("77\t1", term, 0), 15));
        assert!(!kernel_drops(&status("77\t7", 0, 0), 15));
        assert!(!kernel_drops(&status("77", 0, 0), 15));
        assert!(!kernel_drops(&status("77\t1", 0, 0), 9));
        assert!(!kernel_drops("", 15));
    }
}
