//! The distribution's kernel package: downloaded by apt, unpacked, never installed.
//!
//! The machine's own index is asked first. Where it is missing, old or for other architectures only, an index
//! is fetched into a private directory with the machine's own sources and keys; the machine's configuration
//! and state stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::error::{Error, Result};
use crate::image::Arch;

/// The package with the kernel that is used when nothing is said.
#[must_use]
pub fn default(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "linux-image-6.12-cloud-amd64",
        Arch::Arm64 => "linux-image-6.12-cloud-arm64",
    }
}

/// A package's files, below a directory that belongs to the caller.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The package that held the kernel: of a meta package, the one it depends on.
    pub package: String,
    /// Its version.
    pub package_version: String,
    /// `boot/vmlinuz-…`.
    pub image: PathBuf,
    /// `lib/modules/<version>`.
    pub modules: Option<PathBuf>,
}

/// Downloads `package` for `arch` and unpacks it below `dir`, which must exist and be empty.
///
/// # Errors
/// No apt, no such package, no kernel in it, or no space.
pub fn fetch(package: &str, arch: Arch, dir: &Path) -> Result<Unpacked> {
    check_name(package, arch)?;
    let apt = Apt { dir: dir.join("apt"), arch };
    let mut wanted = package.to_owned();
    // A meta package names the real one; two steps are one more than there are.
    for _ in 0..3 {
        let deb = apt.download(&wanted)?;
        match unpack(&deb, &dir.join("files"))? {
            Some(unpacked) => {
                let _ = fs::remove_dir_all(&apt.dir);
                return Ok(unpacked);
            }
            None => match next(&field(&deb, "Depends")?) {
                Some(next) => wanted = next,
                None => break,
            },
        }
    }
    Err(Error::EmptyPackage(package.to_owned()))
}

/// Unpacks a package file below `into`; `None`: there is no kernel in it.
///
/// # Errors
/// Not a package, or no space.
pub fn unpack(deb: &Path, into: &Path) -> Result<Option<Unpacked>> {
    extract(deb, into)?;
    let Some(image) = kernel_in(&into.join("boot")) else { return Ok(None) };
    let modules = ["lib/modules", "usr/lib/modules"].iter().find_map(|place| only_dir(&into.join(place)));
    let (package, package_version) = (field(deb, "Package")?, field(deb, "Version")?);
    Ok(Some(Unpacked { package, package_version, image, modules }))
}

/// Downloads `package` for `arch` into `dir`, which must exist; the file, and what it depends on, by name.
///
/// # Errors
/// As [`fetch`].
pub fn download(package: &str, arch: Arch, dir: &Path) -> Result<(PathBuf, Vec<String>)> {
    check_name(package, arch)?;
    let deb = Apt { dir: dir.to_owned(), arch }.download(package)?;
    let depends = names(&field(&deb, "Depends")?).map(str::to_owned).collect();
    Ok((deb, depends))
}

/// Unpacks a package's files below `into`.
///
/// # Errors
/// Not a package, or no space.
pub fn extract(deb: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(Error::file("create", into))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(into), "dpkg-deb").map(|_| ())
}

/// Whether a file is a Debian package.
#[must_use]
pub fn is_package(start: &[u8]) -> bool {
    start.starts_with(b"!<arch>\ndebian")
}

fn check_name(package: &str, arch: Arch) -> Result<()> {
    // What apt would take for an option, a file or a pattern is no name.
    let first = package.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let rest =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "+-.".contains(letter);
    if first && package.chars().all(rest) {
        return Ok(());
    }
    let why = "that is no package's name".to_owned();
    Err(Error::NoPackage { package: package.to_owned(), arch: arch.to_string(), why })
}

/// The packages of a `Depends:` field.
fn names(depends: &str) -> impl Iterator<Item = &str> {
    let words = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next());
    words.map(|word| word.split(':').next().unwrap_or(word))
}

/// The first kernel among them.
fn next(depends: &str) -> Option<String> {
    names(depends).find(|word| word.starts_with("linux-image-")).map(str::to_owned)
}

fn kernel_in(boot: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(boot)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_kernel_name(path))
        .collect();
    found.sort();
    found.pop()
}

fn is_kernel_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["vmlinuz", "vmlinux", "Image"].iter().any(|start| name.starts_with(start)) && path.is_file()
}

fn only_dir(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find(|path| path.is_dir())
}

fn field(deb: &Path, name: &'static str) -> Result<String> {
    let output = run(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name), "dpkg-deb")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Downloads for one architecture, in a directory of its own.
struct Apt {
    dir: PathBuf,
    arch: Arch,
}

impl Apt {
    fn download(&self, package: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.dir).map_err(Error::file("create", &self.dir))?;
        if !self.has_index() {
            if self.arch == Arch::NATIVE && self.get(package, false).is_ok() {
                return self.downloaded(package);
            }
            self.update()?;
        }
        match self.get(package, true) {
            Ok(()) => self.downloaded(package),
            Err(Error::Program { why, .. }) => {
                Err(Error::NoPackage { package: package.to_owned(), arch: self.arch.to_string(), why })
            }
            Err(error) => Err(error),
        }
    }

    fn has_index(&self) -> bool {
        self.dir.join("lists").is_dir()
    }

    /// Fetches an index of its own.
    fn update(&self) -> Result<()> {
        let lists = self.dir.join("lists/partial");
        fs::create_dir_all(&lists).map_err(Error::file("create", lists))?;
        // Sources that cannot be reached are told by the download that lacks them.
        let updated = run(self.command(true).arg("update"), "apt-get");
        match updated {
            Err(Error::Program { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn get(&self, package: &str, own_index: bool) -> Result<()> {
        run(self.command(own_index).arg("download").arg(package), "apt-get").map(|_| ())
    }

    fn command(&self, own_index: bool) -> Command {
        let mut command = Command::new("apt-get");
        command.current_dir(&self.dir).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        // The directory is ours: apt's own user could not write into it, and need not.
        command.args(["--quiet=2", "-oAPT::Sandbox::User=root"]);
        if own_index {
            let dir = self.dir.display();
            command.arg(format!("-oAPT::Architecture={}", self.arch));
            command.arg(format!("-oAPT::Architectures={}", self.arch));
            command.arg(format!("-oDir::State::lists={dir}/lists"));
            command.arg(format!("-oDir::Cache={dir}/cache"));
            command.args(["-oDir::State::status=/dev/null", "-oAcquire::Languages=none"]);
            command.args(["-oAcquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false"]);
        }
        command
    }

    fn downloaded(&self, package: &str) -> Result<PathBuf> {
        let start = format!("{package}_");
        let entries = fs::read_dir(&self.dir).map_err(Error::file("list", &self.dir))?;
        let mut names = entries.flatten().map(|entry| entry.path());
        let found = names.find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start) && name.ends_with(".deb")
        });
        found.ok_or_else(|| Error::Program {
            program: "apt-get",
            why: format!("it downloaded no {start}*.deb"),
        })
    }
}

/// Runs a program of the distribution; what it said is in the error.
fn run(command: &mut Command, program: &'static str) -> Result<Output> {
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoProgram(program),
        _ => Error::Program { program, why: error.to_string() },
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // The last lines hold the reason; what comes before is about the way there.
    let why = lines[lines.len().saturating_sub(3)..].join("; ");
    Err(Error::Program { program, why: if why.is_empty() { output.status.to_string() } else { why } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_takes_the_kernel_of_a_depends_field() {
        let depends = "initramfs-tools (>= 1), linux-image-6.12.9+deb12-cloud-amd64 (= 6.12.9-1~deb12u1)";
        assert_eq!(next(depends).as_deref(), Some("linux-image-6.12.9+deb12-cloud-amd64"));
        assert_eq!(next("libc6, x | y"), None);
        assert_eq!(next(""), None);
    }

    #[test]
    fn names_that_apt_would_take_for_something_else_are_refused() {
        for name in ["", "-oX=y", "./a.deb", "linux image", "linux-image*", "a/b", "Linux", "a:arm64", "a=1"]
        {
            assert!(check_name(name, Arch::Amd64).is_err(), "{name}");
        }
        check_name("linux-image-6.12.9+deb12-cloud-amd64", Arch::Amd64).unwrap();
    }
}
