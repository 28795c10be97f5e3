//! `check`: whether every blob still is what its name says, and every unpacked layer what its blob says.
//!
//! Nothing is changed while it is looked at. What is wrong is then mended by who has the store alone: a damaged blob
//! goes (one that is not there is fetched again, a damaged one would be believed), or is made again of the layer
//! that it was unpacked to; a damaged layer is unpacked again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::BufReader;
use std::path::Path;

use cata_spec::Digest;
use cata_spec::image::{Descriptor, ManifestDocument};

use super::garbage::digests_in;
use super::{Lease, Store, hash_file, temporary_name};
use crate::error::{Error, LayerError, StoreError};
use crate::layer::compare::{Difference, first_difference};
use crate::layer::owners::Owners;
use crate::layer::unpack::{CHUNK, unpack};
use crate::request::is_attestation;

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub struct Checked {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unpacked layers that were compared with their blobs.
    pub layers: u64,
    /// Files in them.
    pub files: u64,
    /// What is wrong, each once.
    pub faults: Vec<Fault>,
}

/// Something that is wrong.
#[derive(Debug)]
pub enum Fault {
    /// A blob's content has another digest, or cannot be read.
    Blob {
        /// Its name.
        digest: Digest,
        /// How it shows.
        damage: Damage,
        /// The images that need it.
        images: Vec<String>,
    },
    /// An image needs a blob that is not there.
    Missing {
        /// Its name.
        digest: Digest,
        /// The images that need it.
        images: Vec<String>,
    },
    /// A blob is what its name says, but not what an image takes it for.
    Document {
        /// Its name.
        digest: Digest,
        /// How it shows.
        error: StoreError,
        /// The images that need it.
        images: Vec<String>,
    },
    /// An unpacked layer is not what its blob says.
    Layer {
        /// Which.
        diff_id: Digest,
        /// Its blob.
        blob: Digest,
        /// How it shows.
        damage: LayerDamage,
    },
}

/// How a blob is damaged.
#[derive(Debug)]
pub enum Damage {
    /// Its content has this digest.
    Content(Digest),
    /// It cannot be read.
    Unreadable(std::io::Error),
}

/// How an unpacked layer is damaged.
#[derive(Debug)]
pub enum LayerDamage {
    /// The first thing that is not as it should be.
    Differs(Difference),
    /// It cannot be read.
    Unreadable(LayerError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { digest, damage: Damage::Content(actual), .. } => {
                write!(f, "blob {digest}: its content has digest {actual}")
            }
            Self::Blob { digest, damage: Damage::Unreadable(error), .. } => {
                write!(f, "blob {digest} cannot be read: {error}")
            }
            Self::Missing { digest, .. } => write!(f, "blob {digest} is missing"),
            Self::Document { digest, error, .. } => {
                write!(f, "blob {digest} is no document of an image: {error}")
            }
            Self::Layer { diff_id, damage: LayerDamage::Differs(found), .. } => {
                write!(f, "layer {diff_id}: /{} {}", found.path.display(), found.what)
            }
            Self::Layer { diff_id, damage: LayerDamage::Unreadable(error), .. } => {
                write!(f, "layer {diff_id} cannot be read: {error}")
            }
        }
    }
}

impl Fault {
    /// The images that lack something by it.
    #[must_use]
    pub fn images(&self) -> &[String] {
        match self {
            Self::Blob { images, .. } | Self::Missing { images, .. } | Self::Document { images, .. } => {
                images
            }
            Self::Layer { .. } => &[],
        }
    }

    /// The unpacked layer that is damaged.
    #[must_use]
    pub fn layer(&self) -> Option<&Digest> {
        match self {
            Self::Layer { diff_id, .. } => Some(diff_id),
            _ => None,
        }
    }
}

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// The layer was unpacked again from its blob.
    Unpacked,
    /// The blob was made again of the unpacked layer.
    Captured,
    /// The damaged blob was removed: a pull fetches it again.
    Removed,
    /// Nothing here can mend it.
    Not,
}

/// The right to mend: nobody else adds to the store, or deletes from it.
#[derive(Debug)]
pub struct Alone {
    _lease: Lease,
}

/// What the images of the index need.
#[derive(Default)]
struct Needs {
    /// Blobs, and by which images.
    blobs: BTreeMap<Digest, BTreeSet<String>>,
    /// Blobs that are unpacked, by diff-id.
    layers: BTreeMap<Digest, Digest>,
    faults: Vec<Fault>,
}

impl Needs {
    /// Notes that an image needs a blob; whether it is there.
    fn need(&mut self, store: &Store, digest: &Digest, image: &str) -> bool {
        self.blobs.entry(*digest).or_default().insert(image.to_owned());
        store.has_blob(digest)
    }

    fn no_document(&mut self, digest: &Digest, error: StoreError, image: &str) {
        self.faults.push(Fault::Document { digest: *digest, error, images: vec![image.to_owned()] });
    }
}

impl Store {
    /// Looks at everything that is kept; `quick` reads no blob but documents, and no layer.
    ///
    /// # Errors
    /// The index cannot be read; no space to unpack a layer a second time.
    pub fn check(&self, quick: bool) -> Result<Checked, Error> {
        let _lease = self.lease()?;
        let mut checked = Checked::default();
        let mut needs = self.needs()?;
        let mut damaged: BTreeMap<Digest, Damage> = BTreeMap::new();
        for (digest, path) in digests_in(&self.content().join("blobs/sha256")) {
            checked.blobs += 1;
            checked.bytes += path.metadata().map_or(0, |found| found.len());
            if !quick && let Some(damage) = damage(&path, &digest) {
                damaged.insert(digest, damage);
            }
        }
        // A damaged document reads as nonsense: that is said of it once.
        needs
            .faults
            .retain(|fault| !matches!(fault, Fault::Document { digest, .. } if damaged.contains_key(digest)));
        checked.faults.append(&mut needs.faults);
        let images = |digest: &Digest| -> Vec<String> {
            needs.blobs.get(digest).into_iter().flatten().cloned().collect()
        };
        for digest in needs.blobs.keys().filter(|digest| !self.has_blob(digest)) {
            checked.faults.push(Fault::Missing { digest: *digest, images: images(digest) });
        }
        if !quick {
            for (diff_id, blob) in &needs.layers {
                if self.trusted_layer(diff_id).is_none() || !self.has_blob(blob) || damaged.contains_key(blob)
                {
                    continue;
                }
                checked.layers += 1;
                let (fault, files) = self.check_layer(diff_id, blob)?;
                checked.files += files;
                checked.faults.extend(fault);
            }
        }
        for (digest, damage) in damaged {
            let images = images(&digest);
            checked.faults.push(Fault::Blob { digest, damage, images });
        }
        Ok(checked)
    }

    /// Unpacks a sound blob once more and compares.
    fn check_layer(&self, diff_id: &Digest, blob: &Digest) -> Result<(Option<Fault>, u64), Error> {
        let (file, _) = self.open_blob(blob)?;
        let meant = unpack(self, BufReader::with_capacity(CHUNK, file))?;
        let fault = |damage| Fault::Layer { diff_id: *diff_id, blob: *blob, damage };
        Ok(match first_difference(&meant.diff(), &self.layer_path(diff_id)) {
            Ok((found, files)) => (found.map(|found| fault(LayerDamage::Differs(found))), files),
            Err(error) => (Some(fault(LayerDamage::Unreadable(error))), 0),
        })
    }

    /// Follows the index to everything that its images need.
    fn needs(&self) -> Result<Needs, StoreError> {
        let mut needs = Needs::default();
        for entry in self.entries()? {
            let image = entry.called();
            self.needs_of(&mut needs, &image, &entry.descriptor);
        }
        Ok(needs)
    }

    /// What a manifest or index needs; of an index only those members that are here at all.
    fn needs_of(&self, needs: &mut Needs, image: &str, descriptor: &Descriptor) {
        let digest = &descriptor.digest;
        if !needs.need(self, digest, image) {
            return;
        }
        let read = self.read_blob(digest).and_then(|bytes| {
            ManifestDocument::parse(&bytes, None)
                .map_err(|error| StoreError::damaged(&self.blob_path(digest), error))
        });
        match read {
            Err(error) => needs.no_document(digest, error, image),
            Ok(ManifestDocument::Index(index)) => {
                let here: Vec<_> = index.manifests.iter().filter(|one| self.has_blob(&one.digest)).collect();
                let all: Vec<_> = index.manifests.iter().collect();
                for member in if here.is_empty() { all } else { here } {
                    self.needs_of(needs, image, member);
                }
            }
            Ok(ManifestDocument::Image(manifest)) => {
                for layer in &manifest.layers {
                    needs.need(self, &layer.digest, image);
                }
                let id = manifest.config.digest;
                // What is attested has statements for layers, and a configuration that says nothing.
                if !needs.need(self, &id, image) || is_attestation(descriptor) {
                    return;
                }
                match self.config(&id) {
                    Ok(config) => {
                        let blobs = manifest.layers.iter().map(|layer| layer.digest);
                        needs.layers.extend(config.rootfs.diff_ids.into_iter().zip(blobs));
                    }
                    Err(error) => needs.no_document(&id, error, image),
                }
            }
        }
    }

    /// The right to mend; `None` while somebody adds to the store.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn alone(&self) -> Result<Option<Alone>, Error> {
        Ok(self.exclusive_lease()?.map(|lease| Alone { _lease: lease }))
    }

    /// Mends what can be mended. Of a damaged layer nobody may run: it is exchanged as a whole.
    ///
    /// # Errors
    /// No space; a file that cannot be moved.
    pub fn mend(&self, fault: &Fault, _alone: &Alone) -> Result<Mended, Error> {
        match fault {
            Fault::Document { .. } => Ok(Mended::Not),
            Fault::Missing { digest, .. } => self.capture_again(digest),
            Fault::Blob { digest, .. } => {
                let aside = self.ingest().join(temporary_name("damaged"));
                let path = self.blob_path(digest);
                std::fs::rename(&path, &aside)
                    .and_then(|()| std::fs::remove_file(&aside))
                    .map_err(|e| StoreError::io("removing", &path, e))?;
                Ok(match self.capture_again(digest)? {
                    Mended::Not => Mended::Removed,
                    captured => captured,
                })
            }
            Fault::Layer { diff_id, blob, .. } => {
                let (file, _) = self.open_blob(blob)?;
                let made = unpack(self, BufReader::with_capacity(CHUNK, file))?;
                made.replace(self, diff_id)?;
                Ok(Mended::Unpacked)
            }
        }
    }

    /// A plain blob has its layer's digest, and equal trees give equal bytes.
    fn capture_again(&self, digest: &Digest) -> Result<Mended, Error> {
        if self.trusted_layer(digest).is_none() {
            return Ok(Mended::Not);
        }
        let captured = self.capture_held(&self.layer_path(digest), &|_| false, &Owners::default())?;
        if captured.diff_id == *digest {
            return Ok(Mended::Captured);
        }
        // It was not written here. What it became has no use.
        let _ = std::fs::remove_file(self.blob_path(&captured.diff_id));
        Ok(Mended::Not)
    }
}

fn damage(path: &Path, digest: &Digest) -> Option<Damage> {
    match std::fs::File::open(path).and_then(|mut file| hash_file(&mut file)) {
        Ok(actual) if actual == *digest => None,
        Ok(actual) => Some(Damage::Content(actual)),
        // Removed meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Damage::Unreadable(error)),
    }
}
