//! What a signal means to a container's first process.

use std::path::Path;

/// Whether the kernel would drop this signal: the process is pid 1 of a pid namespace of its own, and
/// neither catches it nor holds it back (as users of `sigwait` and `signalfd` do).
#[must_use]
pub fn is_dropped(pid: i32, signal: i32) -> bool {
    let path = format!("/proc/{pid}/status");
    std::fs::read_to_string(Path::new(&path)).is_ok_and(|text| kernel_drops(&text, signal))
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
        mask >> (signal - 1).clamp(0, 63) & 1 == 1
    };
    !has("SigCgt:") && !has("SigBlk:")
}

#[cfg(test)]
mod tests {
    use super::kernel_drops;

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
