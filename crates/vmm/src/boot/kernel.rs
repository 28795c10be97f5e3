//! Kernel, initial file system, command line and the map of memory, put where the kernel expects them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bzimage::BzImage;
use vm_memory::GuestAddress;

use super::acpi;
use crate::config::MachineConfig;
use crate::error::MachineError;
use crate::layout;
use crate::memory::Ram;

/// Where the first processor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// PVH: 32 bits, no paging.
    Pvh(u64),
    /// Linux's own 64-bit protocol.
    Linux64(u64),
}

/// What a kernel needs beside itself and its initial file system before its first process runs.
const ROOM: u64 = 4 << 20;
/// Where a stock kernel is loaded.
const BELOW: u64 = 16 << 20;
/// Parameters for what this hardware does not have and a kernel would look for.
const OWN_PARAMETERS: &str = "pci=off reboot=acpi";
/// Without the serial port its driver need not look for four of them.
const NO_SERIAL: &str = " 8250.nr_uarts=0";
/// Where the kernel writes its log; without being told it would write to a screen that is not there.
const CONSOLE: &str = " console=hvc0";

/// A piece of the address space: start, size, kind.
type Piece = (u64, u64, u32);

const USABLE: u32 = 1;
const ACPI: u32 = 3;

/// A loaded kernel: where to begin, and which memory (address, size) it lies in as it will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) entry: Entry,
    pub(crate) image: (u64, u64),
}

/// Loads everything; returns where to begin.
pub(crate) fn load(ram: &Ram, config: &MachineConfig) -> Result<Start, MachineError> {
    let mut kernel = File::from(config.kernel.try_clone().map_err(|e| MachineError::Kernel(e.to_string()))?);
    let mut magic = [0; 4];
    kernel.read_exact_at(&mut magic, 0).map_err(|e| MachineError::Kernel(e.to_string()))?;
    let have = config.memory_bytes >> 20;
    let archives = archives(&config.initramfs)?;
    let size = kernel.metadata().map_err(|e| MachineError::Kernel(e.to_string()))?.len();
    let too_small = |end: u64| {
        // What lies below the kernel is free for use.
        let need = (end + archives).max(end.saturating_sub(BELOW) + 2 * archives + ROOM).div_ceil(1 << 20);
        (need > have).then_some(MachineError::TooSmall { have, need })
    };
    let loaded = if magic == *b"\x7fELF" { elf::load(ram, &kernel) } else { load_bzimage(ram, &mut kernel) };
    let (loaded, end) = match loaded {
        Ok(loaded) => loaded,
        Err(reason) => return Err(too_small(size).unwrap_or(MachineError::Kernel(reason))),
    };
    if let Some(error) = too_small(end) {
        return Err(error);
    }
    let initramfs = load_archives(ram, &config.initramfs, archives, config.memory_bytes)?;
    let mut cmdline = OWN_PARAMETERS.to_owned();
    if config.serial.is_none() {
        cmdline.push_str(NO_SERIAL);
    }
    if config.console.is_some() {
        cmdline.push_str(CONSOLE);
    }
    let cmdline = format!("{cmdline} {}\0", config.cmdline);
    let map = memory_map(config.memory_bytes);
    let written =
        ram.write(layout::CMDLINE, cmdline.as_bytes()) && acpi::write(ram, config.vcpus, config.devices());
    debug_assert!(written, "what is below 1 MiB always fits");
    match loaded {
        Loaded::Pvh(entry) => {
            write_start_info(ram, initramfs, &map);
            let start = BELOW.min(end);
            Ok(Start { entry: Entry::Pvh(entry), image: (start, end - start) })
        }
        Loaded::Linux64 { entry, header } => {
            write_zero_page(ram, &header, initramfs, &map);
            // It moves before it runs.
            Ok(Start { entry: Entry::Linux64(entry), image: (0, 0) })
        }
    }
}

/// A kernel in memory: where it begins, and what it says of itself.
enum Loaded {
    Pvh(u64),
    Linux64 { entry: u64, header: Vec<u8> },
}

/// Loads a bzImage; returns as well where what it needs at first ends.
fn load_bzimage(ram: &Ram, kernel: &mut File) -> Result<(Loaded, u64), String> {
    let loaded = BzImage::load(ram.map(), None, kernel, Some(GuestAddress(layout::HIGH_RAM)))
        .map_err(|e| e.to_string())?;
    let header = loaded.setup_header.ok_or("it has no header")?;
    // It decompresses itself behind itself.
    let end = loaded.kernel_end.max(header.pref_address.saturating_add(u64::from(header.init_size)));
    let header = read_header(kernel)?;
    Ok((Loaded::Linux64 { entry: loaded.kernel_load.0 + 0x200, header }, end))
}

mod elf {
    //! An ELF image with a PVH entry.

    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
    use vm_memory::ByteValued;

    use super::Loaded;
    use crate::layout;
    use crate::memory::Ram;

    /// `XEN_ELFNOTE_PHYS32_ENTRY`.
    const ENTRY_NOTE: u32 = 18;
    /// No kernel has more notes.
    const MOST_NOTES: u64 = 1 << 16;

    /// Loads the segments; returns the entry, and where the last one ends.
    pub(super) fn load(ram: &Ram, file: &File) -> Result<(Loaded, u64), String> {
        let mut header = Elf64_Ehdr::default();
        file.read_exact_at(header.as_mut_slice(), 0).map_err(|e| e.to_string())?;
        if header.e_ident[4..6] != [2, 1] || usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
            return Err("it is no 64-bit little-endian image".into());
        }
        let (mut entry, mut end) = (None, 0);
        for index in 0..u64::from(header.e_phnum) {
            let mut segment = Elf64_Phdr::default();
            let place = header
                .e_phoff
                .checked_add(index * size_of::<Elf64_Phdr>() as u64)
                .ok_or("its headers are nowhere")?;
            file.read_exact_at(segment.as_mut_slice(), place).map_err(|e| e.to_string())?;
            if segment.p_type == PT_NOTE {
                entry = entry.or(entry_note(file, &segment)?);
            }
            if segment.p_type == PT_LOAD {
                end = end.max(load_segment(ram, file, &segment)?);
            }
        }
        let entry = entry.ok_or("it has no PVH entry")?;
        Ok((Loaded::Pvh(entry), end))
    }

    fn load_segment(ram: &Ram, file: &File, segment: &Elf64_Phdr) -> Result<u64, String> {
        let address = segment.p_paddr;
        if address < layout::HIGH_RAM
            || segment.p_filesz > segment.p_memsz
            || !ram.contains(address, segment.p_memsz)
        {
            return Err("a segment of it lies outside of memory".into());
        }
        if segment.p_offset.checked_add(segment.p_filesz).is_none() {
            return Err("a segment of it lies outside of the file".into());
        }
        ram.load(file.as_fd(), segment.p_offset, address, segment.p_filesz).map_err(|e| e.to_string())?;
        Ok(address + segment.p_memsz)
    }

    /// The entry, if it is among these notes.
    fn entry_note(file: &File, segment: &Elf64_Phdr) -> Result<Option<u64>, String> {
        let mut notes = vec![0; segment.p_filesz.min(MOST_NOTES) as usize];
        file.read_exact_at(&mut notes, segment.p_offset).map_err(|e| e.to_string())?;
        let mut rest = notes.as_slice();
        while let Some((head, body)) = rest.split_first_chunk::<12>() {
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (name, value) = (word(0) as usize, word(4) as usize);
            let (name_room, value_room) = (name.next_multiple_of(4), value.next_multiple_of(4));
            let Some(after) = name_room.checked_add(value_room).and_then(|size| body.get(size..)) else {
                break;
            };
            let ours = word(8) == ENTRY_NOTE && name == 4 && value >= 4 && body.starts_with(b"Xen\0");
            if let Some(bytes) = body[name_room..].first_chunk::<4>().filter(|_| ours) {
                return Ok(Some(u64::from(u32::from_le_bytes(*bytes))));
            }
            rest = after;
        }
        Ok(None)
    }
}

fn memory_map(bytes: u64) -> Vec<Piece> {
    let mut map =
        vec![(0, layout::LOW_RAM_END, USABLE), (layout::RSDP, layout::ACPI_END - layout::RSDP, ACPI)];
    for (address, size) in layout::ram(bytes) {
        let start = address.max(layout::HIGH_RAM);
        map.push((start, address + size - start, USABLE));
    }
    map
}

/// How long all archives are, each beginning at a multiple of four.
fn archives(files: &[OwnedFd]) -> Result<u64, MachineError> {
    let mut total = 0_u64;
    for file in files {
        let size = rustix::fs::fstat(file).map_err(|e| MachineError::Initramfs(e.into()))?.st_size as u64;
        total = total.next_multiple_of(4) + size;
    }
    Ok(total)
}

/// Reads archives to the end of low memory; returns where they are.
fn load_archives(ram: &Ram, files: &[OwnedFd], total: u64, memory: u64) -> Result<(u64, u64), MachineError> {
    let start = (memory.min(layout::GAP) - total) & !0xfff;
    let mut at = start;
    for file in files {
        at = at.next_multiple_of(4);
        let size = rustix::fs::fstat(file).map_err(|e| MachineError::Initramfs(e.into()))?.st_size as u64;
        ram.load(file.as_fd(), 0, at, size).map_err(MachineError::Initramfs)?;
        at += size;
    }
    Ok((start, total))
}

/// PVH's start information, module list and memory map.
fn write_start_info(ram: &Ram, (start, size): (u64, u64), map: &[Piece]) {
    let modules = layout::START_INFO + 56;
    let mut info = Vec::with_capacity(88);
    for word in [0x336e_c578_u32, 1, 0, u32::from(size > 0)] {
        info.extend(word.to_le_bytes());
    }
    for word in [modules, layout::CMDLINE, layout::RSDP, layout::MEMORY_MAP, map.len() as u64] {
        info.extend(word.to_le_bytes());
    }
    for word in [start, size, 0, 0] {
        info.extend(word.to_le_bytes());
    }
    let mut entries = Vec::new();
    for (address, size, kind) in map {
        entries.extend(address.to_le_bytes());
        entries.extend(size.to_le_bytes());
        entries.extend(u64::from(*kind).to_le_bytes());
    }
    let written = ram.write(layout::START_INFO, &info) && ram.write(layout::MEMORY_MAP, &entries);
    debug_assert!(written, "what is below 1 MiB always fits");
}

/// Where the setup header begins, in the file and in the zero page.
const HEADER: usize = 0x1f1;

/// The setup header of a bzImage as it is in the file.
fn read_header(kernel: &File) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| error.to_string();
    let mut length = [0];
    kernel.read_exact_at(&mut length, 0x201).map_err(unreadable)?;
    let mut header = vec![0; (0x202 + usize::from(length[0])).clamp(0x268, 0x290) - HEADER];
    kernel.read_exact_at(&mut header, HEADER as u64).map_err(unreadable)?;
    let can_64 = header[0x236 - HEADER] & 1 != 0;
    if can_64 { Ok(header) } else { Err("it has no 64-bit entry".into()) }
}

/// Linux's boot parameters.
fn write_zero_page(ram: &Ram, header: &[u8], (start, size): (u64, u64), map: &[Piece]) {
    let mut page = vec![0; 4096];
    page[HEADER..HEADER + header.len()].copy_from_slice(header);
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x70, &layout::RSDP.to_le_bytes());
    put(0x1e8, &[map.len() as u8]);
    put(0x210, &[0xff]);
    put(0x218, &(start as u32).to_le_bytes());
    put(0x21c, &(size as u32).to_le_bytes());
    put(0x228, &(layout::CMDLINE as u32).to_le_bytes());
    for (index, (address, size, kind)) in map.iter().enumerate() {
        put(0x2d0 + index * 20, &address.to_le_bytes());
        put(0x2d8 + index * 20, &size.to_le_bytes());
        put(0x2e0 + index * 20, &kind.to_le_bytes());
    }
    let written = ram.write(layout::ZERO_PAGE, &page);
    debug_assert!(written, "what is below 1 MiB always fits");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    fn error(kernel: &[u8], memory: u64) -> MachineError {
        let ram = Ram::new(memory).unwrap();
        load(&ram, &MachineConfig::new(1, memory, file(kernel))).unwrap_err()
    }

    #[test]
    fn what_is_no_kernel_is_named_so() {
        assert!(matches!(error(b"", 64 << 20), MachineError::Kernel(_)));
        assert!(matches!(error(b"#!/bin/sh\n", 64 << 20), MachineError::Kernel(_)));
        assert!(matches!(error(&[0; 4096], 64 << 20), MachineError::Kernel(_)));
        assert!(matches!(
            error(&[b"\x7fELF".as_slice(), &[0xff; 4096]].concat(), 64 << 20),
            MachineError::Kernel(_)
        ));
    }

    #[test]
    fn archives_follow_each_other_at_multiples_of_four() {
        let ram = Ram::new(64 << 20).unwrap();
        let files = [file(b"070701abc"), file(b"second")];
        let total = archives(&files).unwrap();
        assert_eq!(total, 18);
        let (start, size) = load_archives(&ram, &files, total, 64 << 20).unwrap();
        let mut bytes = vec![0xff; size as usize];
        assert!(ram.read(start, &mut bytes));
        assert_eq!(bytes, b"070701abc\0\0\0second");
        assert_eq!(start, (64 << 20) - 4096);
    }

    /// An ELF image: header, one segment of four bytes at 2 MiB, one note with the entry.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 0x200];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[32] = 64;
        image[54] = 56;
        image[56] = 2;
        let mut segment = |at: usize, kind: u8, offset: u64, address: u64, size: u64| {
            image[at] = kind;
            for (place, value) in [(8, offset), (24, address), (32, size), (40, size)] {
                image[at + place..at + place + 8].copy_from_slice(&value.to_le_bytes());
            }
        };
        segment(64, 1, 0x100, 2 << 20, 4);
        segment(120, 4, 0x120, 0, 20);
        image[0x100..0x104].copy_from_slice(b"code");
        image[0x120] = 4;
        image[0x124] = 4;
        image[0x128] = 18;
        image[0x12c..0x12f].copy_from_slice(b"Xen");
        image[0x130..0x134].copy_from_slice(&0x20_0000_u32.to_le_bytes());
        image
    }

    #[test]
    fn elf_image_is_loaded_and_begins_at_its_note() {
        let ram = Ram::new(64 << 20).unwrap();
        let entry = load(&ram, &MachineConfig::new(1, 64 << 20, file(&image()))).unwrap().entry;
        let mut code = [0; 4];
        assert!(ram.read(2 << 20, &mut code));
        assert_eq!((entry, &code), (Entry::Pvh(0x20_0000), b"code"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

        #[test]
        fn damaged_image_is_an_error_or_a_kernel_but_no_panic(
            changes in proptest::collection::vec((0..0x140_usize, proptest::num::u8::ANY), 1..6)
        ) {
            let mut image = image();
            for (place, byte) in changes {
                image[place] = byte;
            }
            let ram = Ram::new(32 << 20).unwrap();
            let _ = load(&ram, &MachineConfig::new(1, 32 << 20, file(&image)));
        }
    }

    #[test]
    fn memory_map_leaves_holes_where_nothing_is() {
        let map = memory_map(5 << 30);
        assert_eq!(map.len(), 4);
        assert_eq!(map[2], (1 << 20, (3 << 30) - (1 << 20), USABLE));
        assert_eq!(map[3], (4 << 30, 2 << 30, USABLE));
    }
}
