//! Where what is in the guest's physical address space.
//!
//! ```text
//!   0x0000_0000  RAM, but for the hole that firmware would have
//!   0xd000_0000  devices, 4 KiB each
//!   0xfec0_0000  I/O APIC   0xfee0_0000 local APIC   0xfffb_c000 KVM's own pages
//!   0x1_0000_0000  the rest of RAM
//! ```

/// The end of the low RAM a kernel may use before 1 MiB.
pub(crate) const LOW_RAM_END: u64 = 0xa_0000;
/// Where RAM goes on after the hole.
pub(crate) const HIGH_RAM: u64 = 0x10_0000;
/// Where RAM stops below 4 GiB.
pub(crate) const GAP: u64 = 0xc000_0000;
/// Where RAM goes on.
pub(crate) const ABOVE_GAP: u64 = 1 << 32;

/// Page tables and descriptor table of the 64-bit entry.
pub(crate) const GDT: u64 = 0x500;
/// The PVH start information.
pub(crate) const START_INFO: u64 = 0x6000;
/// Its memory map.
pub(crate) const MEMORY_MAP: u64 = 0x6800;
/// The page of Linux's boot parameters.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// Four page tables that map the first GiB one to one.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
/// The command line.
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// ACPI's root pointer, in the hole, and the tables behind it.
pub(crate) const RSDP: u64 = 0xe_0000;
/// The end of the tables.
pub(crate) const ACPI_END: u64 = 0x10_0000;

/// The first device's registers.
pub(crate) const DEVICES: u64 = 0xd000_0000;
/// The size of a device's registers.
pub(crate) const DEVICE_SIZE: u64 = 0x1000;
/// The I/O APIC.
pub(crate) const IO_APIC: u64 = 0xfec0_0000;
/// KVM's pages for processors that cannot run real mode themselves.
pub(crate) const KVM_IDENTITY: u64 = 0xfffb_c000;
/// See above; three pages.
pub(crate) const KVM_TSS: u64 = 0xfffb_d000;

/// The first interrupt line of devices.
const FIRST_LINE: u32 = 5;
/// The lines of the I/O APIC.
const LINES: u32 = 24;

/// ACPI's sleep control: a guest powers off here.
pub(crate) const PORT_SLEEP: u16 = 0x600;
/// ACPI's sleep status: nothing to see.
pub(crate) const PORT_SLEEP_STATUS: u16 = 0x601;
/// ACPI's reset register.
pub(crate) const PORT_RESET: u16 = 0x602;
/// The keyboard controller's command port: the older way to reset.
pub(crate) const PORT_KEYBOARD: u16 = 0x64;
/// The first serial port, eight registers.
pub(crate) const PORT_SERIAL: u16 = 0x3f8;
/// Its interrupt line.
pub(crate) const SERIAL_LINE: u32 = 4;

/// Where the registers of the device in this place are.
pub(crate) fn device_address(slot: usize) -> u64 {
    DEVICES + slot as u64 * DEVICE_SIZE
}

/// Its interrupt line. Beyond nineteen devices, lines are shared: their drivers look who called.
pub(crate) fn device_line(slot: usize) -> u32 {
    FIRST_LINE + slot as u32 % (LINES - FIRST_LINE)
}

/// RAM as `(address, size)`, lowest first.
pub(crate) fn ram(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= GAP {
        return vec![(0, bytes)];
    }
    vec![(0, GAP), (ABOVE_GAP, bytes - GAP)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_DEVICES;

    #[test]
    fn ram_leaves_the_devices_alone() {
        assert_eq!(ram(1 << 30), [(0, 1 << 30)]);
        assert_eq!(ram(4 << 30), [(0, 3 << 30), (4 << 30, 1 << 30)]);
        assert!(device_address(MAX_DEVICES) <= IO_APIC);
        assert!(device_address(0) >= GAP);
    }

    #[test]
    fn lines_stay_within_the_io_apic_and_clear_of_legacy() {
        assert!((0..MAX_DEVICES).all(|slot| (5..24).contains(&device_line(slot))));
    }
}
