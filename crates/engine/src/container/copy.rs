//! `cp`: trees of files into and out of a container, as tar streams.

use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cata_image::tree::{self, Owners, Unpack, Unpacked};
use cata_sys::path::Root;
use rustix::fs::{FileType, OFlags};

use crate::container::inside::{Place, look};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::image_error;
use crate::paths::ContainerDir;
use crate::record::Record;

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As `stat` gives it.
    pub mode: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Where a link leads.
    pub link_target: Option<String>,
}

impl PathStat {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

impl Engine {
    /// What is at `path` in a container; `None` when nothing is. A link at the end is looked at, not followed,
    /// unless `follow`.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; a file system that cannot be mounted.
    pub fn path_stat(&self, container: &str, path: &str, follow: bool) -> Result<Option<PathStat>> {
        let record = self.find(container)?;
        self.with_root(&record, |root| {
            let found = look(root, Path::new(path), follow).map_err(Error::file("look at", path))?;
            Ok(found.map(|place| described(&place)))
        })
    }

    /// Writes what is at `path` as a tar in which it is called `called`, with everything in it; returns the
    /// bytes of its files.
    ///
    /// # Errors
    /// [`Error::NoPath`]; what cannot be read or written.
    pub fn copy_out(
        &self,
        container: &str,
        path: &str,
        follow: bool,
        called: &str,
        to: &mut (dyn Write + Send),
    ) -> Result<u64> {
        let record = self.find(container)?;
        self.with_root_of(&record, |root, owners| {
            let found = look(root, Path::new(path), follow).map_err(Error::file("look at", path))?;
            let place = found.ok_or_else(|| no_path(path, &record))?;
            tree::write(place.parent.as_fd(), place.name.as_bytes(), called.as_bytes(), owners, to)
                .map_err(image_error)
        })
        .inspect(|_| self.tell_container(&record, "archive-path", &[]))
    }

    /// Unpacks a tar into the directory at `path`. With `keep_owner` files belong to whom the tar says, else to
    /// root.
    ///
    /// # Errors
    /// [`Error::NoPath`]; a damaged stream; something that is in the way.
    pub fn copy_in(
        &self,
        container: &str,
        path: &str,
        keep_owner: bool,
        from: &mut (dyn Read + Send),
    ) -> Result<Unpacked> {
        let record = self.find(container)?;
        self.with_root_of(&record, |root, owners| {
            let found = look(root, Path::new(path), true).map_err(Error::file("look at", path))?;
            let place = found.ok_or_else(|| no_path(path, &record))?;
            if !place.is_dir() {
                return Err(Error::Invalid(format!("not a directory: {path} in container {}", record.name)));
            }
            unpack(from, root, owners, &place.path, (!keep_owner).then_some((0, 0)))
        })
        .inspect(|_| self.tell_container(&record, "extract-to-dir", &[]))
    }

    /// What a request has of texts, into the container that is being made in `dir`: whoever is killed meanwhile
    /// leaves no container without them.
    pub(crate) fn write_files(&self, record: &Record, dir: &ContainerDir) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        for file in &record.request.files {
            let failed = Error::file("write", &file.target);
            let mut header = tar::Header::new_gnu();
            header.set_size(file.content.len() as u64);
            header.set_mode(file.mode);
            header.set_uid(file.uid.into());
            header.set_gid(file.gid.into());
            let target = Path::new("/").join(&file.target);
            let target = target.strip_prefix("/").unwrap_or(&target);
            archive.append_data(&mut header, target, file.content.as_bytes()).map_err(failed)?;
        }
        let bytes = archive.into_inner().map_err(Error::file("write", dir.upper()))?;
        self.with_resting_root(record, dir, false, |root, owners| {
            unpack(&mut bytes.as_slice(), root, owners, Path::new("/"), None)
        })?;
        Ok(())
    }
}

fn unpack(
    from: &mut (dyn Read + Send),
    root: &Root,
    owners: &Owners,
    base: &Path,
    owner: Option<(u32, u32)>,
) -> Result<Unpacked> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let place = root.open(Path::new("/"), flags).map_err(Error::file("open", "/"))?;
    let base = base.as_os_str().as_bytes().to_vec();
    tree::unpack(from, Unpack { place, is_root: true, base, owner, owners: owners.clone() })
        .map_err(image_error)
}

fn no_path(path: &str, record: &Record) -> Error {
    Error::NoPath { path: path.to_owned(), container: record.name.to_string() }
}

fn described(place: &Place) -> PathStat {
    let link = rustix::fs::readlinkat(&place.parent, &place.name, Vec::new());
    PathStat {
        name: place.name.to_string_lossy().into_owned(),
        size: u64::try_from(place.stat.st_size).unwrap_or(0),
        mode: place.stat.st_mode,
        mtime: place.stat.st_mtime,
        link_target: link.ok().map(|target| target.to_string_lossy().into_owned()),
    }
}
