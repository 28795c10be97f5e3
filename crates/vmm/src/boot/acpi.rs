//! ACPI tables of the reduced hardware: processors, the I/O APIC, the devices and how to power off. Stock
//! kernels know neither the older MP tables nor devices on their command line.

use acpi_tables::Aml;
use acpi_tables::aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;

use crate::layout;
use crate::memory::Ram;

const OEM: [u8; 6] = *b"CATA  ";
const TABLE: [u8; 8] = *b"CATAVMM ";

/// Writes all tables behind the root pointer; false if there are too many devices to fit.
pub(super) fn write(ram: &Ram, vcpus: u8, devices: usize) -> bool {
    let mut at = (layout::RSDP + Rsdp::len() as u64).next_multiple_of(16);
    let mut place = |table: &[u8]| {
        let here = at;
        at = (at + table.len() as u64).next_multiple_of(16);
        (at <= layout::ACPI_END && ram.write(here, table)).then_some(here)
    };
    let tables = || -> Option<u64> {
        let dsdt = place(dsdt(devices).as_slice())?;
        let fadt = place(fadt(dsdt).as_slice())?;
        let madt = place(madt(vcpus).as_slice())?;
        let mut xsdt = Sdt::new(*b"XSDT", 36, 1, OEM, TABLE, 1);
        xsdt.append_slice(&fadt.to_le_bytes());
        xsdt.append_slice(&madt.to_le_bytes());
        place(xsdt.as_slice())
    };
    let mut tables = tables;
    let Some(xsdt) = tables() else { return false };
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    ram.write(layout::RSDP, &root)
}

/// The devices, each known by the name that virtio's drivers look for, and the sleep state that is power-off.
fn dsdt(devices: usize) -> Sdt {
    let mut code = Vec::new();
    for slot in 0..devices {
        let address = layout::device_address(slot) as u32;
        aml::Device::new(
            format!("\\_SB_.V{slot:03}").as_str().into(),
            vec![
                &aml::Name::new("_HID".into(), &"LNRO0005"),
                &aml::Name::new("_UID".into(), &(slot as u32)),
                &aml::Name::new("_CCA".into(), &aml::ONE),
                &aml::Name::new(
                    "_CRS".into(),
                    &aml::ResourceTemplate::new(vec![
                        &aml::Memory32Fixed::new(true, address, layout::DEVICE_SIZE as u32),
                        &aml::Interrupt::new(true, true, false, true, layout::device_line(slot)),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(&mut code);
    }
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![&5_u8])).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, 1);
    table.append_slice(&code);
    table
}

/// Fixed hardware: there is none but three ports.
fn fadt(dsdt: u64) -> Sdt {
    let mut table = Sdt::new(*b"FACP", 276, 6, OEM, TABLE, 1);
    // No VGA, no MSI, no clock of CMOS; by absence: no keyboard controller, no legacy devices.
    table.write_u16(109, 0b10_1100);
    let (reset_register, hardware_reduced) = (1 << 10, 1 << 20);
    table.write_u32(112, reset_register | hardware_reduced);
    table.write_bytes(116, &port(layout::PORT_RESET));
    table.write_u8(128, 1);
    table.write_u8(131, 5);
    table.write_u64(140, dsdt);
    table.write_bytes(244, &port(layout::PORT_SLEEP));
    table.write_bytes(256, &port(layout::PORT_SLEEP_STATUS));
    table.write_bytes(268, b"CATAMARA");
    table
}

/// A generic address: one byte at a port.
fn port(number: u16) -> [u8; 12] {
    let [low, high] = number.to_le_bytes();
    [1, 8, 0, 1, low, high, 0, 0, 0, 0, 0, 0]
}

/// Processors and interrupt controllers.
fn madt(vcpus: u8) -> Sdt {
    let mut table = Sdt::new(*b"APIC", 44, 5, OEM, TABLE, 1);
    table.write_u32(36, 0xfee0_0000);
    for id in 0..vcpus {
        table.append_slice(&[0, 8, id, id, 1, 0, 0, 0]);
    }
    let [a, b, c, d] = (layout::IO_APIC as u32).to_le_bytes();
    table.append_slice(&[1, 12, 0, 0, a, b, c, d, 0, 0, 0, 0]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MAX_DEVICES, MAX_VCPUS};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_of_the_largest_machine_is_found_and_sums_to_zero() {
        let ram = Ram::new(32 << 20).unwrap();
        assert!(write(&ram, MAX_VCPUS, MAX_DEVICES));
        let read = |address, length| {
            let mut bytes = vec![0; length];
            assert!(ram.read(address, &mut bytes));
            bytes
        };
        let root = read(layout::RSDP, 36);
        assert_eq!((&root[..8], sum(&root[..20]), sum(&root)), (&b"RSD PTR "[..], 0, 0));
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        let table = |address| {
            let length = number(&read(address + 4, 4)) as usize;
            let bytes = read(address, length);
            assert_eq!(sum(&bytes), 0);
            bytes
        };
        let root = table(number(&root[24..32]));
        let fixed = table(number(&root[36..44]));
        let controllers = table(number(&root[44..52]));
        let devices = table(number(&fixed[140..148]));
        assert_eq!(
            (&fixed[..4], &controllers[..4], &devices[..4]),
            (&b"FACP"[..], &b"APIC"[..], &b"DSDT"[..])
        );
        assert_eq!(controllers.len(), 44 + 8 * usize::from(MAX_VCPUS) + 12);
    }
}
