//! What the host can do, looked at once when the engine opens.

use std::fs;

/// Facts of the host that plans depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Processors this process may run on, whatever its cgroup's quota: what `--cpus` is held against.
    pub cpus: u32,
    /// Effective user id of the engine.
    pub uid: u32,
    /// Root of a user namespace only.
    pub rootless: bool,
}

impl Host {
    /// Looks.
    #[must_use]
    pub fn detect() -> Self {
        let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1));
        let rootless = !cata_sys::namespace::is_first_of_users();
        Self { cpus, uid: rustix::process::geteuid().as_raw(), rootless }
    }

    /// A host for unit tests.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self { cpus: 2, uid: 0, rootless: false }
    }
}

/// Facts shown by `info`, read when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// `uname -n`.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// `12`.
    pub os_version: String,
}

impl Facts {
    /// Reads uname, `/proc/meminfo` and `/etc/os-release`.
    #[must_use]
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            kernel: text(uname.release()),
            machine: text(uname.machine()),
            name: text(uname.nodename()),
            memory: memory_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            operating_system: os_release(&release, "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            os_version: os_release(&release, "VERSION_ID").unwrap_or_default(),
        }
    }
}

/// What the kernel starts programs of other formats with: the files of `binfmt_misc`, none where it is not
/// mounted.
#[must_use]
pub fn formats() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name() != "register");
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn os_release(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix('=')?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_os_release_are_read() {
        assert_eq!(memory_total("MemTotal:       24684096 kB\nMemFree: 1 kB\n"), 24_684_096 * 1024);
        assert_eq!(memory_total(""), 0);
        let release = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=12\n";
        assert_eq!(os_release(release, "PRETTY_NAME").as_deref(), Some("Debian GNU/Linux 12"));
        assert_eq!(os_release(release, "VERSION_ID").as_deref(), Some("12"));
    }
}
