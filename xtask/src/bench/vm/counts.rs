//! What can be counted while a guest works: unlike times, it is the same on a loaded machine.

use std::fs;
use std::path::Path;
use std::process::Command;

/// KVM's own counts.
const KVM: &str = "/sys/kernel/debug/kvm";

/// So many since the beginning, of all machines.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Counts {
    /// How often a guest came out.
    exits: f64,
    /// Interrupts that guests were given.
    interrupts: f64,
    /// Frames that came out of the tap's guest, and went in.
    out: f64,
    into: f64,
}

/// Makes KVM's counts visible in this world; without them there are zeros.
pub(super) fn prepare() {
    if !Path::new(KVM).exists() {
        let _ = Command::new("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]).status();
    }
}

impl Counts {
    pub(super) fn read(tap: &str) -> Self {
        let number = |name: &str| {
            let text = fs::read_to_string(format!("{KVM}/{name}")).unwrap_or_default();
            text.trim().parse().unwrap_or(0.0)
        };
        let (out, into) = frames(&fs::read_to_string("/proc/net/dev").unwrap_or_default(), tap);
        Self { exits: number("exits"), interrupts: number("irq_injections"), out, into }
    }

    /// The columns of [`Counts::since`].
    pub(super) const COLUMNS: [&str; 4] = ["exits", "interrupts", "frames out", "frames in"];

    pub(super) fn since(&self, before: &Self) -> [f64; 4] {
        [
            self.exits - before.exits,
            self.interrupts - before.interrupts,
            self.out - before.out,
            self.into - before.into,
        ]
    }
}

/// What the host's end of a link has received and sent (`/proc/net/dev`).
fn frames(text: &str, link: &str) -> (f64, f64) {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':'));
    let fields: Vec<f64> =
        line.unwrap_or_default().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0.0);
    (at(1), at(9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_packets_of_both_directions() {
        let text = "Inter-|   Receive\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\nbench0: 900 7 0 0 0 0 0 0 800 5 0 0 0 0 0 0\n";
        assert_eq!(frames(text, "bench0"), (7.0, 5.0));
        assert_eq!(frames(text, "bench1"), (0.0, 0.0));
    }
}
