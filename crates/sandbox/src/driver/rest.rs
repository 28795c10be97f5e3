//! What a container has left of processes where no cgroup holds them together: the children of the supervisor, who is
//! its orphans' reaper.

use std::collections::BTreeSet;
use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often who has come meanwhile is looked for.
const ROUNDS: usize = 1000;
/// How long one may take to end: then its children are ours.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Ends them all, generation after generation. Nothing but a cgroup holds one who makes others faster than he is looked for.
pub(super) fn kill() {
    let mut ended = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found: Vec<i32> = children().into_iter().filter(|pid| ended.insert(*pid)).collect();
        if found.is_empty() {
            return;
        }
        // Nobody but this process waits for them, so the numbers are still theirs.
        for pid in found.into_iter().filter_map(Pid::from_raw) {
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // It may have ended by itself.
            let _ = pidfd_send_signal(&process, Signal::KILL);
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE));
        }
    }
}

/// This program has one thread.
fn children() -> Vec<i32> {
    let text = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
