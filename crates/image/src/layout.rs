//! One image as an OCI image layout in a directory: what caches of builds are kept in, and what other tools read.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cata_spec::Digest;
use cata_spec::image::Index;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, StoreError};
use crate::progress::Progress;
use crate::request::{Image, Loaded};
use crate::save::index;
use crate::store::Store;
use crate::whole::Whole;

/// Writes an image into a directory; blobs that are there stay. The index is written last: until then what was
/// there before is what is there.
///
/// # Errors
/// A blob is missing; something cannot be written.
pub fn write_layout(store: &Store, image: &Image, dir: &Path) -> Result<(), Error> {
    let _lease = store.lease()?;
    let image = crate::recompress::for_push(store, image.clone())?;
    let blobs = dir.join("blobs/sha256");
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| StoreError::io(action, &path, error)
    };
    std::fs::create_dir_all(&blobs).map_err(io("making", &blobs))?;
    let whole = Whole::of(store, &image)?;
    for descriptor in whole.blobs() {
        let path = blobs.join(descriptor.digest.hex());
        if !path.exists() {
            let (mut blob, _) = store.open_blob(&descriptor.digest)?;
            put(&path, |file| io::copy(&mut blob, file).map(|_| ())).map_err(io("writing", &path))?;
        }
    }
    let path = dir.join("oci-layout");
    put(&path, |file| io::Write::write_all(file, br#"{"imageLayoutVersion":"1.0.0"}"#))
        .map_err(io("writing", &path))?;
    let path = dir.join("index.json");
    let index = index(store, &[(image, Vec::new())])?;
    let text = serde_json::to_vec(&index).map_err(|e| StoreError::damaged(&path, e))?;
    Ok(put(&path, |file| io::Write::write_all(file, &text)).map_err(io("writing", &path))?)
}

/// Under another name first.
fn put(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_extension("new");
    let written =
        File::create(&new).and_then(|mut file| write(&mut file)).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Which image of a layout is meant: by its digest, or by the name that its index gives it; without either the only one, or
/// `latest`.
///
/// # Errors
/// There is no layout, or no such image in it.
pub fn layout_digest(dir: &Path, which: Option<&str>) -> Result<Digest, Error> {
    let path = dir.join("index.json");
    let text = std::fs::read(&path).map_err(|error| StoreError::io("reading", &path, error))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| StoreError::damaged(&path, error))?;
    let named = |wanted: &str| {
        index.manifests.iter().find(|descriptor| {
            let names = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
            descriptor.digest.to_string() == wanted
                || names
                    .iter()
                    .filter_map(|name| descriptor.annotations.get(*name))
                    .any(|name| name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted))
        })
    };
    let found = match (which, index.manifests.as_slice()) {
        (Some(which), _) => named(which),
        (None, [only]) => Some(only),
        (None, _) => named("latest"),
    };
    let wanted = || format!("{}:{}", dir.display(), which.unwrap_or("latest"));
    Ok(found.ok_or_else(|| StoreError::NoSuchImage(wanted()))?.digest)
}

/// Takes the images of a layout in a directory into the store, without names.
///
/// # Errors
/// As [`crate::load`].
pub fn read_layout(store: &Store, dir: &Path, progress: &dyn Progress) -> Result<Vec<Loaded>, Error> {
    let failed = |error: io::Error| StoreError::io("opening", dir, error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open: OwnedFd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let (mut reader, mut writer) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || crate::tree::write_contents(open, &Default::default(), &mut writer));
        let loaded = crate::load::nameless(store, &mut reader, progress);
        // What the reader did not want any more is no fault of the directory's.
        drop(reader);
        let sent = sent.join().unwrap_or(Ok(0));
        let loaded = loaded?;
        sent.map(|_| loaded)
    })
}
