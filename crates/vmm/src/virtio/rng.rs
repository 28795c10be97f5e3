//! Entropy: what the host's kernel gives.

use rustix::rand::{GetRandomFlags, getrandom};

use super::device::{Active, ConfigSpace, Device};

/// What one request gets at most: the driver asks again.
const MOST: usize = 4096;

/// The entropy device.
pub(crate) struct Rng;

impl Device for Rng {
    fn kind(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> Vec<u16> {
        vec![16]
    }

    fn config(&self) -> ConfigSpace {
        ConfigSpace::new(Vec::new(), 0..0)
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        active.serve(queue, false, |ram, chain| {
            let mut bytes = [0; MOST];
            let length = chain.writable_len().min(MOST);
            let got = getrandom(&mut bytes[..length], GetRandomFlags::empty()).unwrap_or(0);
            ram.scatter(&chain.writable, 0, &bytes[..got]) as u32
        });
    }
}
