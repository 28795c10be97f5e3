//! What a hypervisor's process holds: its own, and the guest's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};

/// Mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Held {
    /// Its share of all that is not the guest's memory.
    pub(super) own: f64,
    /// The guest's memory that exists.
    pub(super) guest: f64,
}

/// Of this process, whose guest has so many mebibytes.
pub(super) fn of(pid: u32, guest_mib: u64) -> Result<Held> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut held = split(&text, guest_mib * 1024);
    // Of memory that has a file, pages exist that no process has mapped.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let named = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
        if named
            && let Ok(meta) = fs::metadata(entry.path())
            && meta.size() >= guest_mib << 20
        {
            held.guest = meta.blocks() as f64 / 2048.0;
            break;
        }
    }
    Ok(held)
}

/// A mapping as large as the guest is the guest's.
fn split(smaps: &str, guest_kib: u64) -> Held {
    let (mut own, mut guest, mut large) = (0, 0, false);
    for line in smaps.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let Some(Ok(kib)) = value.trim().strip_suffix(" kB").map(str::parse::<u64>) else { continue };
        match name {
            "Size" => large = kib >= guest_kib,
            "Pss" if large => guest += kib,
            "Pss" => own += kib,
            _ => {}
        }
    }
    Held { own: own as f64 / 1024.0, guest: guest as f64 / 1024.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_takes_the_large_mapping_for_the_guest() {
        let text = "00400000-00500000 r-xp 0 00:00 0 /usr/bin/x: y\nSize:   1024 kB\nPss:  512 kB\n\
            7f00-7f10 rw-s 0 00:01 5 /memfd:guest\nSize: 2097152 kB\nPss: 3072 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(split(text, 1 << 20), Held { own: 0.5, guest: 3.0 });
    }
}
