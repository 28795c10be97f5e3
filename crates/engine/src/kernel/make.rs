//! Kernels come: from the distribution's package, or from a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use cata_kernel::drivers::{self, Fit};
use cata_kernel::image::{self, Arch, Kernel};
use cata_kernel::modules::{Module, Tree};
use cata_kernel::{cpio, package};
use cata_sandbox::stamp::Stamp;
use cata_spec::Digest;
use rustix::fs::{FlockOperation, RenameFlags, flock};

use super::{DriverFact, Record, Source, VERSION};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::{self, Durability};

/// `kernel install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallRequest {
    /// A package of the distribution; `None`: the usual one.
    pub package: Option<String>,
    /// For which processor.
    pub arch: Arch,
    /// Its name here; `None`: its release.
    pub name: Option<String>,
}

/// `kernel import`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// A kernel, or a package with one.
    pub file: PathBuf,
    /// `…/lib/modules/<release>`, where its drivers are modules.
    pub modules: Option<PathBuf>,
    /// Its name here; `None`: its release.
    pub name: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The kernel.
    pub record: Record,
    /// Whether it is used from now on when none is named.
    pub default: bool,
    /// Whether the very same was there already.
    pub unchanged: bool,
}

impl Engine {
    /// Takes the distribution's kernel: downloads its package, and installs nothing on this machine.
    ///
    /// # Errors
    /// No such package, no apt, a kernel that no guest can use, no space.
    pub fn kernel_install(&self, request: &InstallRequest) -> Result<Made> {
        if let Some(name) = &request.name {
            super::check_wanted(name)?;
        }
        let making = Making::start(self)?;
        let package = request.package.as_deref().unwrap_or_else(|| package::default(request.arch));
        let files = making.scratch()?;
        let unpacked = package::fetch(package, request.arch, &files)?;
        self.take_package(making, &unpacked, request.name.as_deref())
    }

    /// Takes a kernel out of a file.
    ///
    /// # Errors
    /// Not a kernel, one that no guest can use, no space.
    pub fn kernel_import(&self, request: &ImportRequest) -> Result<Made> {
        if let Some(name) = &request.name {
            super::check_wanted(name)?;
        }
        let file = fs::read(&request.file).map_err(Error::file("read", &request.file))?;
        let making = Making::start(self)?;
        if package::is_package(&file) {
            let unpacked = package::unpack(&request.file, &making.scratch()?)?;
            let what = request.file.display().to_string();
            let unpacked = unpacked.ok_or(cata_kernel::Error::EmptyPackage(what))?;
            return self.take_package(making, &unpacked, request.name.as_deref());
        }
        let kernel = image::open(file, &request.file.to_string_lossy())?;
        let tree = request.modules.as_deref().map(open_tree).transpose()?;
        if let (Some(tree), Some(release)) = (&tree, &kernel.version)
            && tree.version() != release
        {
            return Err(Error::Invalid(format!(
                "the modules are those of {}, the kernel is {release}: it would not load them",
                tree.version()
            )));
        }
        let path = std::path::absolute(&request.file).unwrap_or_else(|_| request.file.clone());
        self.take(making, &kernel, tree.as_ref(), (Source::File { path }, request.name.as_deref()))
    }

    fn take_package(&self, making: Making, unpacked: &package::Unpacked, name: Option<&str>) -> Result<Made> {
        let what = unpacked.image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = fs::read(&unpacked.image).map_err(Error::file("read", &unpacked.image))?;
        let mut kernel = image::open(file, &what)?;
        let tree = unpacked.modules.as_deref().map(Tree::open).transpose()?;
        if let Some(tree) = &tree {
            kernel.version = Some(tree.version().to_owned());
        }
        let (name_of, version) = (unpacked.package.clone(), unpacked.package_version.clone());
        self.take(making, &kernel, tree.as_ref(), (Source::Package { name: name_of, version }, name))
    }

    fn take(
        &self,
        making: Making,
        kernel: &Kernel,
        tree: Option<&Tree>,
        (source, name): (Source, Option<&str>),
    ) -> Result<Made> {
        let name = name.map_or_else(|| release(kernel), str::to_owned);
        super::check_name(&name)?;
        let digest = digest(&kernel.bytes);
        // The same kernel again changes nothing.
        if let Ok(there) = super::find(&self.paths, &name, None)
            && there.name == name
            && (&there.digest, &there.source) == (&digest, &source)
            // One that an earlier version took is taken again.
            && super::dir(&self.paths).join(&there.name).join(super::FURTHER).exists()
        {
            return Ok(Made { default: self.make_default_if_none(&there)?, record: there, unchanged: true });
        }
        let fit = drivers::fit(kernel, tree)?;
        let record = self.keep(making, kernel, &fit, (source, name))?;
        Ok(Made { default: self.make_default_if_none(&record)?, record, unchanged: false })
    }

    /// Writes it all.
    pub(super) fn keep(
        &self,
        making: Making,
        kernel: &Kernel,
        fit: &Fit,
        (source, name): (Source, String),
    ) -> Result<Record> {
        let initramfs = archive(&fit.modules, "")?;
        // Loaded behind the others, whose names are numbers.
        let further = archive(&fit.further, "m")?;
        let record = Record {
            version: VERSION,
            name,
            arch: kernel.arch.to_string(),
            release: release(kernel),
            source,
            created: Stamp::now(),
            file: if kernel.arch == Arch::Amd64 { "vmlinux" } else { "Image" }.to_owned(),
            digest: digest(&kernel.bytes),
            size: (kernel.bytes.len() + initramfs.len() + further.len()) as u64,
            modules: fit.modules.iter().map(|module| module.name.clone()).collect(),
            drivers: facts(fit),
        };
        making.finish(self, &record, &kernel.bytes, [&initramfs, &further])?;
        Ok(record)
    }

    /// The first of its kind is the one that is used. Tells whether it is this one.
    fn make_default_if_none(&self, record: &Record) -> Result<bool> {
        let arch = record.arch()?;
        let there = super::default_name(&self.paths, arch);
        match there.filter(|name| super::find(&self.paths, name, None).is_ok_and(|found| &found.name == name))
        {
            Some(name) => Ok(name == record.name),
            None => self.kernel_use(&record.name).map(|_| true),
        }
    }
}

fn open_tree(dir: &Path) -> Result<Tree> {
    if !dir.is_dir() {
        return Err(Error::Invalid(format!("{} is not a directory of modules", dir.display())));
    }
    let dir = fs::canonicalize(dir).map_err(Error::file("open", dir))?;
    Ok(Tree::open(&dir)?)
}

fn facts(fit: &Fit) -> Vec<DriverFact> {
    fit.offers.iter().map(|(name, offer)| DriverFact::new(name, *offer)).collect()
}

/// The drivers, named in the order in which the guest loads them.
fn archive(modules: &[Module], prefix: &str) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new();
    let invalid = |error: cpio::CpioError| Error::Invalid(error.to_string());
    archive.directory("modules").map_err(invalid)?;
    for (number, module) in modules.iter().enumerate() {
        let path = format!("modules/{prefix}{number:02}-{}.ko", module.name);
        archive.file(&path, 0o644, &module.bytes).map_err(invalid)?;
    }
    Ok(archive.finish())
}

fn release(kernel: &Kernel) -> String {
    kernel.version.clone().unwrap_or_else(|| "unknown".to_owned())
}

fn digest(bytes: &[u8]) -> Digest {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest::from_bytes(sum)
}

/// A kernel in the making: a directory that goes away unless it is finished.
pub(super) struct Making {
    dir: PathBuf,
    _lock: File,
}

impl Making {
    pub(super) fn start(engine: &Engine) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let making = super::dir(&engine.paths).join("making");
        fs::create_dir_all(&making).map_err(Error::file("create", &making))?;
        sweep(&making);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = making.join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&dir).map_err(Error::file("create", &dir))?;
        let lock = File::open(&dir).map_err(Error::file("open", &dir))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(Error::file("lock", &dir))?;
        Ok(Self { dir, _lock: lock })
    }

    /// A directory for what is not kept.
    fn scratch(&self) -> Result<PathBuf> {
        let scratch = self.dir.join("scratch");
        fs::create_dir(&scratch).map_err(Error::file("create", &scratch))?;
        Ok(scratch)
    }

    /// Writes all files and makes the kernel exist; one of the same name is replaced.
    fn finish(self, engine: &Engine, record: &Record, kernel: &[u8], archives: [&[u8]; 2]) -> Result<()> {
        let whole = self.dir.join("whole");
        fs::create_dir(&whole).map_err(Error::file("create", &whole))?;
        write(&whole.join(&record.file), kernel)?;
        let [initramfs, further] = archives;
        write(&whole.join("initramfs"), initramfs)?;
        write(&whole.join(super::FURTHER), further)?;
        ledger::write(&whole.join("kernel.json"), record, Durability::Durable)?;
        let place = super::dir(&engine.paths).join(&record.name);
        let flags = if place.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, &whole, cwd, &place, flags).map_err(Error::file("create", &place))?;
        let parent = File::open(super::dir(&engine.paths)).and_then(|dir| dir.sync_all());
        parent.map_err(Error::file("sync", &place))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::file("write", path))
}

/// Removes what makers left who were killed.
fn sweep(making: &Path) {
    for entry in fs::read_dir(making).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // A maker has its lock a moment after the directory exists.
        let maker = name.to_string_lossy().split('-').next().map(str::to_owned);
        if maker.is_some_and(|pid| Path::new("/proc").join(pid).exists()) {
            continue;
        }
        if path.is_symlink() {
            let _ = fs::remove_file(path);
        } else if let Ok(dir) = File::open(&path)
            && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_names_modules_in_the_order_they_are_loaded() {
        let module = |name: &str| Module { name: name.to_owned(), bytes: b"elf".to_vec() };
        let archive = archive(&[module("virtio"), module("net")], "m").unwrap();
        let text = String::from_utf8_lossy(&archive);
        let place = |name: &str| text.find(name).unwrap();
        assert!(place("modules/m00-virtio.ko") < place("modules/m01-net.ko"));
    }

    #[test]
    fn digest_is_sha256() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b"").to_string(), empty);
    }
}
