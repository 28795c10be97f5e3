//! Kernels for microVMs: `<root>/kernels/<name>/`, and `<root>/kernels/default` which names one of them.
//!
//! | file | what |
//! |---|---|
//! | `kernel.json` | the [`Record`] |
//! | `vmlinux` or `Image` | what the monitor enters; whoever runs it holds a shared lock on it |
//! | `initramfs` | the drivers, in the order they are loaded |
//!
//! A kernel is made in `making/<process>-<number>/`, which its maker holds a lock on, and a rename makes it
//! exist. The guest's first process is an archive of its own, `guest/<key>`, made of the program beside ours:
//! kernels outlive upgrades of the engine.

mod carried;
mod make;
mod open;
mod verbs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cata_kernel::image::Arch;
use cata_kernel::modules::Offer;
use cata_sandbox::stamp::Stamp;
use cata_spec::Digest;
use serde::{Deserialize, Serialize};

pub(crate) use carried::{WORD as OF_IMAGE, stop_signal};
pub use make::{ImportRequest, InstallRequest, Made};
pub use open::OpenKernel;
pub(crate) use open::check_static;

use crate::error::{Error, Result};
use crate::ledger;
use crate::paths::Paths;

/// The version written.
const VERSION: u32 = 1;

/// Names that are no kernel's.
const RESERVED: [&str; 6] = ["default", "default-amd64", "default-arm64", "making", "guest", carried::WORD];

/// What is known of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    version: u32,
    /// Its name.
    pub name: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// Where it came from.
    pub source: Source,
    /// When it was made.
    pub created: Stamp,
    /// `vmlinux` or `Image`.
    pub file: String,
    /// Of that file.
    pub digest: Digest,
    /// Bytes of both files.
    pub size: u64,
    /// Loaded by the guest, in this order.
    pub modules: Vec<String>,
    /// Which drivers are there, and how.
    pub drivers: Vec<DriverFact>,
}

/// Where a kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A package of the distribution.
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A file.
    File {
        /// Where it was.
        path: PathBuf,
    },
    /// An image that carries it.
    Image {
        /// The image's id.
        id: String,
        /// As it was called then.
        reference: String,
        /// Where it is in it.
        path: PathBuf,
    },
}

/// One driver of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFact {
    /// The module's name.
    pub name: String,
    /// `built in`, `module`, `missing`.
    pub offer: String,
}

/// What is said of a driver that is not there.
pub(crate) const MISSING: &str = "missing";

impl DriverFact {
    fn new(name: &str, offer: Offer) -> Self {
        let offer = match offer {
            Offer::Builtin => "built in",
            Offer::Module => "module",
            Offer::None => MISSING,
        };
        Self { name: name.to_owned(), offer: offer.to_owned() }
    }
}

impl Record {
    /// Its processor.
    ///
    /// # Errors
    /// A record of a later version.
    pub fn arch(&self) -> Result<Arch> {
        Arch::parse(&self.arch).ok_or_else(|| {
            Error::Invalid(format!("the kernel {} is for {}, which is not known", self.name, self.arch))
        })
    }
}

/// In a kernel's directory: the archive of drivers that only machines need.
const FURTHER: &str = "machine";

/// `<root>/kernels/`.
fn dir(paths: &Paths) -> PathBuf {
    paths.root.join("kernels")
}

/// The link that names the kernel used when none is named.
fn default_link(paths: &Paths, arch: Arch) -> PathBuf {
    match arch == Arch::NATIVE {
        true => dir(paths).join("default"),
        false => dir(paths).join(format!("default-{arch}")),
    }
}

/// The kernel used when none is named.
fn default_name(paths: &Paths, arch: Arch) -> Option<String> {
    let target = fs::read_link(default_link(paths, arch)).ok()?;
    target.to_str().map(str::to_owned)
}

/// A name as a directory can have it.
fn check_name(name: &str) -> Result<()> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let sound = name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(letter)
        && !RESERVED.contains(&name);
    match sound {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "invalid kernel name {name:?}: letters, digits and _.+- are possible, and {} are reserved",
            RESERVED.join(", ")
        ))),
    }
}

/// A name that somebody gives.
fn check_wanted(name: &str) -> Result<()> {
    if name.starts_with(carried::PREFIX) {
        let what = format!("invalid kernel name {name:?}: {}… are those that images carry", carried::PREFIX);
        return Err(Error::Invalid(what));
    }
    check_name(name)
}

/// Every kernel, by name.
fn list(paths: &Paths) -> Result<Vec<Record>> {
    let dir = dir(paths);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", dir)(error)),
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", &dir))?;
        // Links are defaults, and would be counted twice.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && check_name(&entry.file_name().to_string_lossy()).is_ok() {
            list.extend(read(&entry.path())?);
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn read(dir: &Path) -> Result<Option<Record>> {
    ledger::read(&dir.join("kernel.json"))
}

/// The kernel that `name` means: its whole name, or the beginning of only one. One that goes on with another
/// word than the one that was begun comes first: `6.1` is 6.1.0, not 6.12.
fn find(paths: &Paths, name: &str, arch: Option<Arch>) -> Result<Record> {
    choose(list(paths)?, name, arch)
}

fn choose(mut list: Vec<Record>, name: &str, arch: Option<Arch>) -> Result<Record> {
    if let Some(at) = list.iter().position(|record| record.name == name) {
        return Ok(list.swap_remove(at));
    }
    list.retain(|record| !name.is_empty() && record.name.starts_with(name));
    let ends_word = |record: &Record| {
        let next = record.name[name.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric())
    };
    if list.iter().any(ends_word) {
        list.retain(ends_word);
    }
    // An image's processor is known; it need not be told again.
    if let Some(arch) = arch
        && list.iter().any(|record| record.arch == arch.as_str())
    {
        list.retain(|record| record.arch == arch.as_str());
    }
    match (list.pop(), list.pop()) {
        (Some(record), None) => Ok(record),
        (Some(one), Some(other)) => Err(Error::Invalid(format!(
            "kernel {name} is ambiguous: {} and {} begin with it",
            other.name, one.name
        ))),
        (None, _) => Err(Error::NoKernel(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_directory_of_a_kernel_are_refused() {
        for name in
            ["", ".", "..", "a/b", "-x", ".x", "default", "making", "guest", "a b", "ä", &"x".repeat(129)]
        {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("6.12.9+deb12-cloud-amd64").unwrap();
    }

    fn record(name: &str, arch: &str) -> Record {
        Record {
            version: VERSION,
            name: name.to_owned(),
            arch: arch.to_owned(),
            release: name.to_owned(),
            source: Source::File { path: PathBuf::from("/boot/vmlinuz") },
            created: Stamp(0),
            file: "vmlinux".to_owned(),
            digest: Digest::from_bytes([0; 32]),
            size: 0,
            modules: Vec::new(),
            drivers: Vec::new(),
        }
    }

    #[test]
    fn choose_takes_whole_names_then_whole_words_then_the_only_one() {
        let all =
            || vec![record("6.1.0-9", "amd64"), record("6.12.9-a", "amd64"), record("6.12.9-b", "arm64")];
        let chosen = |name: &str, arch| choose(all(), name, arch).map_err(|error| error.to_string());
        assert_eq!(chosen("6.1", None).unwrap().name, "6.1.0-9");
        assert_eq!(chosen("6.12.9-b", None).unwrap().name, "6.12.9-b");
        assert_eq!(chosen("6.12.9-b", Some(Arch::Amd64)).unwrap().name, "6.12.9-b");
        assert_eq!(chosen("6.12", Some(Arch::Arm64)).unwrap().name, "6.12.9-b");
        let ambiguous = "kernel 6.12 is ambiguous: 6.12.9-a and 6.12.9-b begin with it";
        assert_eq!(chosen("6.12", None).unwrap_err(), ambiguous);
        assert_eq!(chosen("7", None).unwrap_err(), "no such kernel: 7");
        assert_eq!(chosen("", None).unwrap_err(), "no such kernel: ");
    }
}
