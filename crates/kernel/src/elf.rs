//! The little of ELF that kernels and modules need: sections by name, and notes. 64-bit, little endian.

/// A 64-bit little-endian ELF file, read without trust.
#[derive(Debug, Clone, Copy)]
pub struct Elf<'a> {
    data: &'a [u8],
}

/// `e_machine` of x86-64.
pub const X86_64: u16 = 62;
/// `e_machine` of arm64.
pub const AARCH64: u16 = 183;
/// A segment that holds notes.
const PT_NOTE: u32 = 4;
/// The note that names the 32-bit entry: PVH.
const PHYS32_ENTRY: u32 = 18;

impl<'a> Elf<'a> {
    /// Looks at the header only.
    #[must_use]
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        // 64-bit, little endian.
        let ours = data.get(..6)? == [0x7f, b'E', b'L', b'F', 2, 1] && data.len() >= 64;
        ours.then_some(Self { data })
    }

    /// `e_machine`.
    #[must_use]
    pub fn machine(&self) -> u16 {
        self.u16(18).unwrap_or(0)
    }

    /// The bytes of the section with this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let (table, size) = (self.u64(0x28)?, u64::from(self.u16(0x3a)?));
        let (count, names) = (self.u16(0x3c)?, self.u16(0x3e)?);
        let names = self.section_at(table, size, names)?;
        (0..count).find_map(|index| {
            let header = table.checked_add(size.checked_mul(u64::from(index))?)?;
            let start = usize::try_from(self.u32(header)?).ok()?;
            let rest = names.get(start..)?;
            let end = rest.iter().position(|byte| *byte == 0)?;
            (&rest[..end] == name.as_bytes()).then(|| self.section_at(table, size, index)).flatten()
        })
    }

    fn section_at(&self, table: u64, size: u64, index: u16) -> Option<&'a [u8]> {
        let header = table.checked_add(size.checked_mul(u64::from(index))?)?;
        self.slice(self.u64(header.checked_add(0x18)?)?, self.u64(header.checked_add(0x20)?)?)
    }

    /// Whether there is a PVH entry: a `Xen` note of the right kind.
    #[must_use]
    pub fn has_pvh(&self) -> bool {
        let header = || Some((self.u64(0x20)?, u64::from(self.u16(0x36)?), self.u16(0x38)?));
        let Some((table, size, count)) = header() else { return false };
        (0..count).any(|index| {
            let notes = || {
                let at = table.checked_add(size.checked_mul(u64::from(index))?)?;
                if self.u32(at)? != PT_NOTE {
                    return None;
                }
                self.slice(self.u64(at.checked_add(8)?)?, self.u64(at.checked_add(32)?)?)
            };
            notes().is_some_and(has_pvh_note)
        })
    }

    fn slice(&self, start: u64, length: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(start).ok()?;
        self.data.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }

    fn u16(&self, at: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.slice(at, 2)?.try_into().ok()?))
    }

    fn u32(&self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.slice(at, 4)?.try_into().ok()?))
    }

    fn u64(&self, at: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.slice(at, 8)?.try_into().ok()?))
    }
}

fn has_pvh_note(mut notes: &[u8]) -> bool {
    fn one(notes: &[u8]) -> Option<(bool, &[u8])> {
        let word = |at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (name_size, desc_size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let name = notes.get(12..12_usize.checked_add(name_size)?)?;
        let padded = |size: usize| size.checked_add(3).map(|size| size & !3);
        let next = 12_usize.checked_add(padded(name_size)?)?.checked_add(padded(desc_size)?)?;
        Some((name == b"Xen\0" && kind == PHYS32_ENTRY, notes.get(next..).unwrap_or_default()))
    }
    while let Some((found, rest)) = one(notes) {
        if found {
            return true;
        }
        notes = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut data in proptest::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
            if header && data.len() > 6 {
                data[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
            }
            if let Some(elf) = Elf::parse(&data) {
                let _ = (elf.section(".modinfo"), elf.has_pvh(), elf.machine());
            }
        }
    }

    #[test]
    fn a_pvh_note_is_found_behind_others() {
        let note = |name: &[u8], kind: u32, desc: &[u8]| {
            let mut note = Vec::new();
            note.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
            note.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
            note.extend(kind.to_le_bytes());
            for part in [name, desc] {
                note.extend(part);
                note.resize(note.len().next_multiple_of(4), 0);
            }
            note
        };
        let mut notes = note(b"GNU\0", 3, b"12345");
        assert!(!has_pvh_note(&notes));
        notes.extend(note(b"Xen\0", 18, &[0; 8]));
        assert!(has_pvh_note(&notes));
    }
}
