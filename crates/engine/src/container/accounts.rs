//! `/etc/passwd` and `/etc/group` of an image: how many ids it knows, and with a line for whom a container keeps.
//!
//! The image is not changed for it: as `/etc/hostname`, a file in the container's directory is mounted over its own.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cata_sys::path::Root;
use rustix::fs::OFlags;

use super::create::give_root;
use crate::error::{Error, Result};
use crate::paths::ContainerDir;
use crate::plan::accounts::{self, Kept};
use crate::plan::users::Own;
use crate::record::Record;
use crate::request::UserNamespace;
use crate::rootless;
use crate::volume::fill;

/// Larger than any honest file of users.
const FILE_MAX: u64 = 4 << 20;

/// What an image says of its users; `None`: it has no such file.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    passwd: Option<String>,
    group: Option<String>,
}

impl Accounts {
    /// Of the image whose layers these are.
    pub(super) fn of(layers: &[PathBuf]) -> Result<Self> {
        let Some(root) = fill::together(layers)? else { return Ok(Self::default()) };
        let root = Root::new(root);
        let read = |path: &str| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::File::from(root.open(Path::new(path), flags).ok()?);
            if !file.metadata().ok()?.is_file() {
                return None;
            }
            let mut text = Vec::new();
            file.take(FILE_MAX).read_to_end(&mut text).ok()?;
            String::from_utf8(text).ok()
        };
        Ok(Self { passwd: read("/etc/passwd"), group: read("/etc/group") })
    }

    /// How many ids its users and groups need.
    pub(super) fn ids(&self) -> u32 {
        let of = |text: &Option<String>| text.as_deref().map_or(0, accounts::ids);
        of(&self.passwd).max(of(&self.group))
    }
}

/// Writes the files of a container that keeps its caller's ids, where he has no line in the image's.
pub(super) fn write(record: &Record, dir: &ContainerDir, own: Own) -> Result<()> {
    let UserNamespace::KeepId { uid, gid } = record.request.userns else { return Ok(()) };
    let image = Accounts::of(&record.image.layers)?;
    let (name, home) = rootless::account("/etc/passwd", own.uid).unwrap_or_default();
    let (group, _) = rootless::account("/etc/group", own.gid).unwrap_or_default();
    let mounted =
        record.mounts.iter().any(|mount| !home.is_empty() && Path::new(&home).starts_with(&mount.target));
    let workdir = if record.config.workdir.is_empty() { "/" } else { &record.config.workdir };
    let kept = Kept {
        name: &name,
        group: &group,
        uid: uid.unwrap_or(own.uid),
        gid: gid.unwrap_or(own.gid),
        home: if mounted { &home } else { workdir },
    };
    let files = [
        (dir.passwd(), image.passwd.as_deref().and_then(|text| accounts::with_user(text, &kept))),
        (dir.group(), image.group.as_deref().and_then(|text| accounts::with_group(text, &kept))),
    ];
    for (path, text) in files {
        let Some(text) = text else { continue };
        // Whatever the caller's umask: everybody in the container reads it.
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(Error::file("write", &path))?;
        give_root(record, &path)?;
    }
    Ok(())
}

/// What [`write`] has written of it, and where it belongs.
pub(super) fn files(dir: &ContainerDir) -> Vec<(&'static str, PathBuf)> {
    let all = [("/etc/passwd", dir.passwd()), ("/etc/group", dir.group())];
    all.into_iter().filter(|(_, path)| path.exists()).collect()
}
