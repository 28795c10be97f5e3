//! A kernel for somebody to run: opened files, never paths.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cata_kernel::cpio;
use cata_kernel::image::Arch;
use rustix::fs::{FlockOperation, flock};

use super::Record;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A kernel that can be started.
#[derive(Debug)]
pub struct OpenKernel {
    /// What it is.
    pub record: Record,
    /// ELF, or arm64's `Image`. As long as any copy of this descriptor is open, the kernel is in use and
    /// cannot be removed: a machine keeps it to its end.
    pub kernel: File,
    /// Archives to be loaded one behind the other: the drivers, then the guest's first process.
    pub initramfs: Vec<File>,
}

impl Engine {
    /// Opens the kernel called `name`, or the one to be used when none is named.
    ///
    /// # Errors
    /// [`Error::NoKernel`], [`Error::NoDefaultKernel`], one for another processor, no `cata-guest`.
    pub fn kernel_open(&self, name: Option<&str>, arch: Arch) -> Result<OpenKernel> {
        let record = match name {
            Some(name) => super::find(&self.paths, name, Some(arch))?,
            None => {
                let name = super::default_name(&self.paths, arch);
                let name = name.ok_or(Error::NoDefaultKernel(arch.as_str()))?;
                super::find(&self.paths, &name, Some(arch))
                    .map_err(|_| Error::NoDefaultKernel(arch.as_str()))?
            }
        };
        if record.arch()? != arch {
            return Err(Error::Invalid(format!(
                "the kernel {} is for {}, and the image for {arch}",
                record.name, record.arch
            )));
        }
        let dir = super::dir(&self.paths).join(&record.name);
        let open = |name: &str| File::open(dir.join(name)).map_err(Error::file("open", dir.join(name)));
        let kernel = open(&record.file)?;
        // Whoever removes it at this moment has the lock: then it is gone.
        flock(&kernel, FlockOperation::NonBlockingLockShared)
            .map_err(|_| Error::NoKernel(record.name.clone()))?;
        let initramfs = vec![open("initramfs")?, self.guest_archive(arch)?];
        Ok(OpenKernel { record, kernel, initramfs })
    }

    /// The drivers that only a machine with the engine in it needs, as an archive.
    pub(crate) fn kernel_open_further(&self, record: &Record) -> Result<File> {
        let path = super::dir(&self.paths).join(&record.name).join(super::FURTHER);
        File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Unsupported {
                what: format!(
                    "the kernel {} has no drivers for machines: an earlier cata took it",
                    record.name
                ),
                hint: format!("`cata kernel rm {}` and take it again", record.name),
            },
            _ => Error::file("open", path)(error),
        })
    }

    /// The guest's first process as an archive, made anew whenever the program has changed.
    fn guest_archive(&self, arch: Arch) -> Result<File> {
        let program = match arch == Arch::NATIVE {
            true => self.companion("cata-guest")?,
            false => self.companion(&format!("cata-guest-{arch}"))?,
        };
        let facts = fs::metadata(&program).map_err(Error::file("look at", &program))?;
        let stamp = (facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec());
        let key = format!("{arch}-{:x}-{:x}-{:x}-{:x}", stamp.0, stamp.1, stamp.2, stamp.3);
        let dir = super::dir(&self.paths).join("guest");
        let place = dir.join(&key);
        match File::open(&place) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("open", place)(error)),
        }
        fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        let bytes = fs::read(&program).map_err(Error::file("read", &program))?;
        check_static(&program, &bytes)?;
        let mut archive = cpio::Archive::new();
        let added = archive.file("init", 0o755, &bytes).and_then(|()| {
            archive.device("dev/console", 0o600, (5, 1))?;
            archive.device("dev/null", 0o666, (1, 3))
        });
        added.map_err(|error| Error::Invalid(error.to_string()))?;
        let partial = dir.join(format!("partial-{}", std::process::id()));
        fs::write(&partial, archive.finish()).map_err(Error::file("write", &partial))?;
        fs::rename(&partial, &place).map_err(Error::file("create", &place))?;
        forget_others(&dir, &key, arch);
        File::open(&place).map_err(Error::file("open", place))
    }
}

/// A program for a virtual machine finds no libraries there: its kernel would only say that there is no init.
pub(crate) fn check_static(program: &Path, bytes: &[u8]) -> Result<()> {
    if cata_kernel::elf::Elf::parse(bytes).is_some_and(|elf| elf.section(".interp").is_none()) {
        return Ok(());
    }
    let hint = match program.file_name().is_some_and(|name| name == "busybox") {
        true => "install Debian's package busybox-static",
        false => "build it with `cargo xtask build`, which links it statically",
    };
    Err(Error::Unsupported {
        what: format!("{} needs libraries, and a virtual machine has none", program.display()),
        hint: hint.to_owned(),
    })
}

/// Archives of earlier programs; who has one open keeps it.
fn forget_others(dir: &Path, key: &str, arch: Arch) {
    let kind = format!("{arch}-");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&kind) && name != key {
            let _ = fs::remove_file(entry.path());
        }
    }
}
