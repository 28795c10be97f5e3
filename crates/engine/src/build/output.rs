//! The root file system of a build, as files or as a tar; and contexts that come as archives.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::cache::{Cache, Making, Shared};
use super::request::Built;
use super::solve::{Layer, Snapshot};
use super::{BuildError, copy, overlay};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A context that was unpacked; gone when this is dropped.
#[derive(Debug)]
pub struct Unpacked {
    making: Making,
    _lease: Shared,
}

impl Unpacked {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.making.diff()
    }
}

fn failed(error: impl Into<BuildError>) -> Error {
    Error::Build(Box::new(error.into()))
}

/// Where the files of each platform go.
fn places(built: &Built, split: Option<bool>) -> impl Iterator<Item = (String, &Snapshot)> {
    let split = split.unwrap_or(built.roots.len() > 1);
    built
        .roots
        .iter()
        .map(move |(platform, root)| (if split { platform.replace('/', "_") } else { String::new() }, root))
}

impl Engine {
    /// Unpacks a context that came as an archive.
    ///
    /// # Errors
    /// It is damaged or hostile; no space.
    pub fn build_context(&self, archive: &mut (dyn Read + Send)) -> Result<Unpacked> {
        let (cache, lease) = Cache::open(self)?;
        let making = cache.begin().map_err(failed)?;
        cata_image::layer::unpack_archive(archive, &making.diff()).map_err(failed)?;
        Ok(Unpacked { making, _lease: lease })
    }

    /// A context of one file.
    pub(super) fn build_context_of(&self, name: &str, content: &[u8]) -> Result<Unpacked> {
        let (cache, lease) = Cache::open(self)?;
        let making = cache.begin().map_err(failed)?;
        let path = making.diff().join(name);
        std::fs::write(&path, content).map_err(Error::file("write", path))?;
        Ok(Unpacked { making, _lease: lease })
    }

    /// Writes a build's files into a directory of this host; those of several platforms each into one of its own,
    /// `linux_amd64`, or with `split` of a single one too.
    ///
    /// # Errors
    /// Something is in the way; no space.
    pub fn build_files(&self, built: &Built, to: &Path, split: Option<bool>) -> Result<()> {
        for (below, root) in places(built, split) {
            let to = to.join(below);
            std::fs::create_dir_all(&to).map_err(Error::file("make", &to))?;
            self.files_into(root, &to).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes a build's files as a tar.
    ///
    /// # Errors
    /// `to` cannot be written.
    pub fn build_tar(&self, built: &Built, to: &mut dyn Write, split: Option<bool>) -> Result<()> {
        let (cache, _lease) = Cache::open(self)?;
        let making = cache.begin().map_err(failed)?;
        // Layers as one: whiteouts and marks are gone then.
        for (below, root) in places(built, split) {
            let to = making.diff().join(below);
            std::fs::create_dir_all(&to).map_err(Error::file("make", &to))?;
            self.files_into(root, &to).map_err(failed)?;
        }
        let mut buffered = std::io::BufWriter::with_capacity(1 << 20, to);
        let written = cata_image::layer::diff::write_layer(&making.diff(), &mut buffered);
        written.map_err(|error| failed(cata_image::Error::from(error)))?;
        Ok(())
    }

    fn files_into(&self, root: &Snapshot, to: &Path) -> std::result::Result<(), BuildError> {
        let (cache, _lease) = Cache::open(self)?;
        let root = overlay::read(&self.snapshot_paths(&cache, root)?, &cache.empty())?;
        let none = cata_build::ignore::Ignore::default();
        let how = cata_build::context::How {
            ignore: &none,
            exclude: &none,
            parents: false,
            stage: true,
            threads: 1,
        };
        let found = cata_build::context::select_without_digests(&root, &how)?;
        let target_root =
            cata_sys::path::Root::open_trusted(to).map_err(|e| BuildError::io("open", to, e))?;
        let target = copy::Target {
            root: &target_root,
            destination: "/",
            into_directory: true,
            owner: None,
            keep_owner: true,
            chmod: None,
            parents: false,
            unpack: false,
            threads: usize::try_from(self.host.cpus).unwrap_or(1),
            known: None,
            upper: None,
        };
        copy::copy(&found, &target).map(|_| ())
    }

    fn snapshot_paths(
        &self,
        cache: &Cache,
        snapshot: &Snapshot,
    ) -> std::result::Result<Vec<PathBuf>, BuildError> {
        let mut paths = Vec::new();
        for layer in snapshot.layers.iter().rev() {
            match layer {
                Layer::Step(_, record) => {
                    paths.extend(record.layer.as_deref().map(|layer| cache.layer(layer)));
                }
                Layer::Image(image, at) => paths.extend(self.layers(image)?.into_iter().rev().nth(*at)),
            }
        }
        Ok(paths)
    }
}
