//! Processors as they wake up: features, registers, local interrupt lines.

use kvm_bindings::{CpuId, Msrs, kvm_fpu, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::Entry;
use crate::error::MachineError;
use crate::layout;
use crate::memory::Ram;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;

/// Makes a processor ready: `index` of `count`; the first one begins at `entry`, the others wait for it.
pub(crate) fn set_up(
    vcpu: &VcpuFd,
    supported: &CpuId,
    deadline_timer: bool,
    (index, count): (u8, u8),
    entry: Entry,
) -> Result<(), MachineError> {
    let cpuid = features(supported, deadline_timer, index, count);
    vcpu.set_cpuid2(&cpuid).map_err(MachineError::kvm("set a processor's features"))?;
    set_msrs(vcpu)?;
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(MachineError::kvm("set a processor's floating point unit"))?;
    if index == 0 {
        let mut special = vcpu.get_sregs().map_err(MachineError::kvm("read a processor's registers"))?;
        let general = registers(entry, &mut special);
        vcpu.set_sregs(&special).map_err(MachineError::kvm("set a processor's special registers"))?;
        vcpu.set_regs(&general).map_err(MachineError::kvm("set a processor's registers"))?;
    }
    let mut lapic = vcpu.get_lapic().map_err(MachineError::kvm("read a local interrupt controller"))?;
    set_local_line(&mut lapic, 0x350, 0x700);
    set_local_line(&mut lapic, 0x360, 0x400);
    vcpu.set_lapic(&lapic).map_err(MachineError::kvm("set a local interrupt controller"))
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), MachineError> {
    // Fast string operations; all memory is write-back unless said otherwise.
    for (index, data) in [(MSR_MISC_ENABLE, 1), (MSR_MTRR_DEFAULT, 1 << 11 | 6)] {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let Ok(msrs) = Msrs::from_entries(&[entry]) else { continue };
        vcpu.set_msrs(&msrs).map_err(MachineError::kvm("set a processor's model registers"))?;
    }
    Ok(())
}

/// The delivery mode of a local vector table entry.
fn set_local_line(lapic: &mut kvm_lapic_state, offset: usize, mode: u32) {
    for (byte, value) in lapic.regs[offset..offset + 4].iter_mut().zip(mode.to_le_bytes()) {
        *byte = value.cast_signed();
    }
}

/// What KVM can do, told by each processor with its own number and the shape of the whole.
fn features(supported: &CpuId, deadline_timer: bool, index: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let (id, count) = (u32::from(index), u32::from(count));
    // How many bits of the number name a processor within the package.
    let bits = count.next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => {
                entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
                entry.ecx |= 1 << 31;
                entry.ecx = if deadline_timer { entry.ecx | 1 << 24 } else { entry.ecx & !(1 << 24) };
                entry.edx = if count > 1 { entry.edx | 1 << 28 } else { entry.edx & !(1 << 28) };
            }
            // Caches: first and second level are a core's own, the third is everybody's.
            0x4 | 0x8000_001d => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { count - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
                if entry.function == 0x4 {
                    entry.eax |= (count.next_power_of_two() - 1) << 26;
                }
            }
            // Threads, cores.
            0xb | 0x1f => {
                let (shift, logical, kind) = match entry.index {
                    0 => (0, 1, 1),
                    1 => (bits, count, 2),
                    _ => (0, 0, 0),
                };
                entry.eax = shift;
                entry.ebx = logical;
                entry.ecx = entry.index & 0xff | kind << 8;
                entry.edx = id;
            }
            // Performance counters are not passed on.
            0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_0008 => entry.ecx = bits << 12 | (count - 1),
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
    cpuid
}

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

const CODE: u8 = 11;
const DATA: u8 = 3;

/// The first processor's registers.
fn registers(entry: Entry, special: &mut kvm_sregs) -> kvm_regs {
    let long = matches!(entry, Entry::Linux64(_));
    special.cs = segment(0x10, CODE, long);
    let data = segment(0x18, DATA, false);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = kvm_segment { limit: 0x67, selector: 0x20, type_: 11, present: 1, ..Default::default() };
    let (protection, paging, extension_type) = (1, 1 << 31, 1 << 4);
    special.cr0 = protection | extension_type;
    special.cr4 = 0;
    match entry {
        Entry::Pvh(rip) => kvm_regs { rflags: 2, rip, rbx: layout::START_INFO, ..Default::default() },
        Entry::Linux64(rip) => {
            special.cr0 |= paging;
            special.cr3 = layout::PAGE_TABLES;
            special.cr4 = 1 << 5;
            special.efer |= 1 << 8 | 1 << 10;
            special.gdt.base = layout::GDT;
            special.gdt.limit = 8 * 4 - 1;
            kvm_regs { rflags: 2, rip, rsi: layout::ZERO_PAGE, rsp: 0x8ff0, ..Default::default() }
        }
    }
}

/// The tables that a 64-bit entry needs: the first GiB mapped as it is, and flat segments.
pub(crate) fn write_tables(ram: &Ram) {
    let (directory, pages) = (layout::PAGE_TABLES + 0x1000, layout::PAGE_TABLES + 0x2000);
    let (present, large) = (0b11, 1 << 7);
    let mut leaves = Vec::with_capacity(4096);
    for index in 0..512_u64 {
        leaves.extend((index << 21 | large | present).to_le_bytes());
    }
    let gdt: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    let gdt: Vec<u8> = gdt.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let written = ram.write(layout::PAGE_TABLES, &(directory | present).to_le_bytes())
        && ram.write(directory, &(pages | present).to_le_bytes())
        && ram.write(pages, &leaves)
        && ram.write(layout::GDT, &gdt);
    debug_assert!(written, "what is below 1 MiB always fits");
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn each_processor_tells_its_own_number() {
        let entries = [(1, 0), (0xb, 0), (0xb, 1)];
        let entries =
            entries.map(|(function, index)| kvm_cpuid_entry2 { function, index, ..Default::default() });
        let supported = CpuId::from_entries(&entries).unwrap();
        let third = features(&supported, true, 2, 3);
        let [one, thread, core] = third.as_slice() else { panic!("entries were lost") };
        assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (2, 3));
        assert_eq!((thread.edx, thread.ebx), (2, 1));
        assert_eq!((core.edx, core.ebx, core.eax), (2, 3, 2));
    }
}
