//! The processor's time stamp counter, and how fast it counts.

use std::time::Duration;

/// How long one measurement takes: against it the error of a reading (well under a microsecond) is less than a
/// thousandth.
const SPAN: Duration = Duration::from_millis(4);

/// How far two measurements may be from each other, in parts of a thousand.
const TOLERANCE: u64 = 2;

/// How fast this machine's time stamp counter counts, in kHz; takes about ten milliseconds.
///
/// None where there is no such counter, where its speed changes with the processor's (`CPUID.80000007H:EDX[8]`,
/// Intel SDM vol. 3 §18.17.1), or where two measurements do not agree.
pub fn frequency_khz() -> Option<u32> {
    if !imp::invariant() {
        return None;
    }
    let first = Reading::take();
    std::thread::sleep(SPAN);
    let second = Reading::take();
    std::thread::sleep(SPAN);
    agreed(khz(&first, &second)?, khz(&second, &Reading::take())?)
}

/// The counter and the clock at one moment.
struct Reading {
    ticks: u64,
    /// Since an arbitrary moment, in nanoseconds.
    at: u128,
}

impl Reading {
    /// The best of several: one between whose two looks at the clock nothing else ran.
    fn take() -> Self {
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            u128::from(now.tv_sec.unsigned_abs()) * 1_000_000_000 + u128::from(now.tv_nsec.unsigned_abs())
        };
        let look = || {
            let before = now();
            let ticks = imp::ticks();
            let after = now();
            (after - before, Self { ticks, at: before + (after - before) / 2 })
        };
        let mut best = look();
        for _ in 0..16 {
            let next = look();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }
}

fn khz(from: &Reading, to: &Reading) -> Option<u32> {
    let ticks = u128::from(to.ticks.checked_sub(from.ticks)?);
    let khz = (ticks * 1_000_000).checked_div(to.at.checked_sub(from.at)?)?;
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

fn agreed(one: u32, other: u32) -> Option<u32> {
    let far = u64::from(one.abs_diff(other)) * 1000 > u64::from(one.max(other)) * TOLERANCE;
    (!far).then(|| one.midpoint(other))
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    /// Power management capabilities, and the bit that says that the counter's speed never changes.
    const POWER: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;

    pub(super) fn invariant() -> bool {
        __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx & INVARIANT != 0
    }

    pub(super) fn ticks() -> u64 {
        // SAFETY: the instruction reads a register; every x86-64 processor has it, and Linux allows it to
        // programs (unless they forbade it themselves with PR_SET_TSC, which ends them by a signal).
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    pub(super) fn invariant() -> bool {
        false
    }

    pub(super) fn ticks() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No exact figure can be asserted of a machine that nobody knows.
    #[test]
    fn counter_counts_at_a_speed_that_processors_have() {
        let Some(khz) = frequency_khz() else { return };
        assert!((100_000..20_000_000).contains(&khz), "{khz}");
    }

    #[test]
    fn measurements_that_disagree_are_none() {
        assert_eq!(agreed(2_600_000, 2_600_100), Some(2_600_050));
        assert_eq!(agreed(2_600_000, 2_700_000), None);
        let at = |ticks, at| Reading { ticks, at };
        assert_eq!(khz(&at(100, 0), &at(2_600_100, 1_000_000)), Some(2_600_000));
        assert_eq!(khz(&at(100, 0), &at(50, 1_000_000)), None, "it went back");
        assert_eq!(khz(&at(100, 5), &at(200, 5)), None, "no time went by");
    }
}
