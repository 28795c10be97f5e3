//! System call filters: which one a container has, compiled once and kept in `<state>/filters/`.
//!
//! A file's name is the digest of all that a filter is made from, this program among it: another build of it may
//! know other system calls.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use cata_runtime::seccomp::{self, Arch, Program};
use cata_spec::runtime::LinuxSeccomp;
use ring::digest::{Context, SHA256};

use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::plan::{capabilities, platform};
use crate::record::Record;
use crate::request::{Isolation, SeccompRequest};

/// The profile of a container as a document, or none.
pub(crate) fn profile(record: &Record) -> Result<Option<LinuxSeccomp>> {
    let request = &record.request;
    if request.privileged {
        return Ok(None);
    }
    match &request.security.seccomp {
        SeccompRequest::Unconfined => Ok(None),
        SeccompRequest::Default => Ok(Some(seccomp::docker_default(&rights(record)?, arch(record)?))),
        SeccompRequest::Profile(text) => {
            let arch = arch(record)?;
            let profile = seccomp::profile::parse(text).map_err(seccomp_error)?;
            profile.resolve(&rights(record)?, kernel_version(), arch).map(Some).map_err(seccomp_error)
        }
    }
}

impl Engine {
    /// The filter of a container, ready to load, and what its specification says of it: nothing of the default
    /// profile, which would be made for nothing.
    pub(crate) fn filter(&self, record: &Record) -> Result<(Option<Program>, Option<LinuxSeccomp>)> {
        let request = &record.request;
        let text = match &request.security.seccomp {
            _ if request.privileged => return Ok((None, None)),
            SeccompRequest::Unconfined => return Ok((None, None)),
            SeccompRequest::Default => None,
            SeccompRequest::Profile(text) => Some(text.as_str()),
        };
        let document = if text.is_some() { profile(record)? } else { None };
        let directory = self.paths.state.join("filters");
        let key = key(text, &rights(record)?);
        if let Some(known) = key.as_deref().and_then(|key| look_up(&directory.join(key))) {
            return Ok((Some(known), document));
        }
        let made = if document.is_some() { document.clone() } else { profile(record)? };
        let Some(made) = made else { return Ok((None, None)) };
        let program = seccomp::compile(&made).map_err(seccomp_error)?.program;
        if let Some(key) = key {
            // Only speed depends on it.
            let _ = keep(&directory, &key, &program);
        }
        Ok((Some(program), document))
    }
}

fn rights(record: &Record) -> Result<Vec<String>> {
    let request = &record.request;
    let set = capabilities::effective(false, &request.cap_add, &request.cap_drop)?;
    let mut names: Vec<String> = capabilities::names(&set).into_iter().map(|name| name.to_string()).collect();
    names.sort_unstable();
    Ok(names)
}

/// `None`: this program cannot tell which one it is.
fn key(profile: Option<&str>, rights: &[String]) -> Option<String> {
    let own = fs::metadata("/proc/self/exe").ok()?;
    let own = [own.dev(), own.ino(), own.size(), own.mtime().unsigned_abs(), own.mtime_nsec().unsigned_abs()];
    let (major, minor) = kernel_version();
    let mut digest = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&part.len().to_ne_bytes());
        digest.update(part);
    };
    own.iter().for_each(|number| add(&number.to_ne_bytes()));
    add(&[major.to_ne_bytes(), minor.to_ne_bytes()].concat());
    add(profile.map_or("default", |_| "profile").as_bytes());
    add(profile.unwrap_or_default().as_bytes());
    rights.iter().for_each(|name| add(name.as_bytes()));
    Some(digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn look_up(path: &Path) -> Option<Program> {
    Program::from_text(fs::read_to_string(path).ok()?.trim_end())
}

fn keep(directory: &Path, key: &str, program: &Program) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
    let new = directory.join(format!(".{key}.{}", std::process::id()));
    fs::write(&new, program.to_text())?;
    fs::rename(&new, directory.join(key))
}

/// Whose system calls a filter is about: in a machine, those of the guest's processor.
pub(crate) fn arch(record: &Record) -> Result<Arch> {
    match record.request.isolation {
        Isolation::Process => Arch::native().map_err(seccomp_error),
        Isolation::Vm => Ok(match platform::machine(&record.image.platform)? {
            cata_kernel::image::Arch::Amd64 => Arch::X86_64,
            cata_kernel::image::Arch::Arm64 => Arch::Aarch64,
        }),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(crate) fn seccomp_error(error: seccomp::SeccompError) -> Error {
    Error::Runtime(Foreign::new(Kind::InvalidArgument, error.hint().map(str::to_owned), &error))
}

/// Major and minor of the running kernel.
fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_profiles_and_rights_apart() {
        let rights = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let base = key(None, &rights(&["CAP_KILL"])).unwrap();
        assert_eq!(Some(&base), key(None, &rights(&["CAP_KILL"])).as_ref());
        for other in [key(None, &[]), key(Some(""), &rights(&["CAP_KILL"])), key(Some("CAP_KILL"), &[])] {
            assert_ne!(other.unwrap(), base);
        }
        assert_ne!(key(Some("a"), &rights(&["bc"])), key(Some("ab"), &rights(&["c"])));
    }

    #[test]
    fn what_was_kept_is_found_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let arch = Arch::native().unwrap();
        let program = seccomp::compile(&seccomp::docker_default(&["CAP_KILL"], arch)).unwrap().program;
        assert_eq!(look_up(&dir.path().join("k")), None);
        keep(dir.path(), "k", &program).unwrap();
        assert_eq!(look_up(&dir.path().join("k")), Some(program));
        fs::write(dir.path().join("k"), "12").unwrap();
        assert_eq!(look_up(&dir.path().join("k")), None);
    }
}
