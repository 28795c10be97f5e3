//! Bytes of a hostile guest, given to the hypervisor: see `cata_vmm::fuzzing::rng`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| cata_vmm::fuzzing::rng(&cata_vmm::fuzzing::image(data)));
