//! The balloon: memory the guest does not need goes back to the host, by inflation (asked for from outside)
//! and by reports of free pages (whenever the guest has some).

use super::device::{Active, ConfigSpace, Device};
use crate::memory::{Ram, Span};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 2;
/// The guest takes pages back by itself before it kills a process.
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;
const PAGE: u64 = 4096;

/// Where in the configuration space the wanted size is, in pages of 4 KiB.
const TARGET: usize = 0;
/// Where the driver says what it reached.
const ACTUAL: usize = 4;

/// The memory balloon.
pub(crate) struct Balloon {
    config: ConfigSpace,
}

/// A balloon's size as seen from outside.
pub(crate) fn sizes(config: &ConfigSpace) -> (u64, u64) {
    (u64::from(config.number(TARGET)) * PAGE, u64::from(config.number(ACTUAL)) * PAGE)
}

/// Asks for another size; the driver is to be told by an interrupt.
pub(crate) fn ask(config: &ConfigSpace, bytes: u64) {
    let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
    config.change(TARGET, &pages.to_le_bytes());
}

impl Balloon {
    pub(crate) fn new() -> Balloon {
        Balloon { config: ConfigSpace::new(vec![0; 8], ACTUAL..ACTUAL + 4) }
    }
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        5
    }

    fn features(&self) -> u64 {
        DEFLATE_ON_OOM | REPORTING
    }

    fn queues(&self) -> Vec<u16> {
        vec![128, 16, 128]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        active.serve(queue, false, |ram, chain| {
            match queue {
                INFLATE => inflate(ram, &chain.readable),
                REPORT => report(ram, &chain.writable),
                // Pages come back when the guest touches them.
                _ => debug_assert_eq!(queue, DEFLATE),
            }
            0
        });
    }
}

/// Discards pages named by their numbers, neighbours together: each call shakes the guest's page tables. A list that is
/// longer than four of a driver's is cut, and the rest stays the guest's: one chain must not keep all devices waiting.
fn inflate(ram: &Ram, spans: &[Span]) {
    let mut bytes = [0; 4096];
    let got = ram.gather(spans, 0, &mut bytes);
    let mut pages: Vec<u64> = (bytes[..got].chunks_exact(4))
        .map(|n| u64::from(u32::from_le_bytes([n[0], n[1], n[2], n[3]])))
        .collect();
    pages.sort_unstable();
    for run in pages.chunk_by(|page, next| page + 1 == *next) {
        discard(ram, run[0] * PAGE, run.len() as u64 * PAGE);
    }
}

/// Discards ranges that the guest says are free, whole pages of them.
fn report(ram: &Ram, spans: &[Span]) {
    for span in spans {
        let start = span.address.next_multiple_of(PAGE);
        let end = (span.address + u64::from(span.length)) & !(PAGE - 1);
        discard(ram, start, end.saturating_sub(start));
    }
}

fn discard(ram: &Ram, address: u64, length: u64) {
    if length > 0 {
        // What is no memory is not discarded, and nobody is harmed.
        let _ = ram.discard(address, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflation_discards_the_pages_named_and_no_others() {
        let ram = Ram::new(32 << 20).unwrap();
        assert!(ram.write(16 * PAGE, &[1; 8 * PAGE as usize]));
        let before = ram.resident().unwrap();
        let mut list = Vec::new();
        // Upwards, downwards, alone, and two that do not exist.
        for page in [16_u32, 17, 21, 20, 23, u32::MAX, 32 << 8] {
            list.extend(page.to_le_bytes());
        }
        assert!(ram.write(0, &list));
        inflate(&ram, &[Span { address: 0, length: list.len() as u32 }]);
        let after = ram.resident().unwrap();
        assert_eq!(before + PAGE - after, 5 * PAGE);
        let mut kept = [0; 1];
        assert!(ram.read(18 * PAGE, &mut kept));
        assert_eq!(kept, [1]);
    }

    #[test]
    fn inflation_by_an_endless_list_ends_soon() {
        let ram = Ram::new(32 << 20).unwrap();
        let before = ram.resident().unwrap();
        // All of memory as one list, a thousand times.
        let whole = Span { address: 0, length: 32 << 20 };
        inflate(&ram, &[whole; 1000]);
        assert!(ram.resident().unwrap() <= before);
        // What is beyond the list's bound is not looked at.
        assert!(ram.write(16 * PAGE, &[1; PAGE as usize]));
        assert!(ram.write(PAGE, &[16_u8, 0, 0, 0]));
        inflate(&ram, &[Span { address: 0, length: 2 * PAGE as u32 }]);
        let mut kept = [0; 1];
        assert!(ram.read(16 * PAGE, &mut kept));
        assert_eq!(kept, [1]);
    }

    #[test]
    fn report_discards_whole_pages_only() {
        let ram = Ram::new(32 << 20).unwrap();
        assert!(ram.write(0, &[1; 4 * PAGE as usize]));
        report(&ram, &[Span { address: 100, length: 3 * PAGE as u32 }]);
        assert_eq!(ram.resident().unwrap(), 2 * PAGE);
    }
}
