//! `tag` and `rmi`.

use cata_spec::image::{Descriptor, media_type};
use cata_spec::{Digest, Reference};

use super::Store;
use super::index::{Entry, set_name, take_name};
use crate::error::{Error, StoreError};
use crate::request::{Image, RemoveOptions, Removed};

/// A container that is made of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its short id.
    pub container: String,
    /// Whether it runs: then not even `--force` takes the image's last name.
    pub running: bool,
}

/// Why it cannot be told who uses an image.
pub type Unknown = Box<dyn std::error::Error + Send + Sync>;

impl Store {
    /// Gives the image `source` the further name `target`, taking it from whoever has it.
    ///
    /// # Errors
    /// No such image; `target` has a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), Error> {
        if target.digest().is_some() || target.tag().is_none() {
            return Err(StoreError::TagWithDigest(target.familiar()).into());
        }
        let found = self.find(&self.entries()?, source)?.clone();
        Ok(self.update_index(|manifests| {
            // Looked up again under the lock: it may have gone meanwhile.
            if !manifests.iter().any(|old| old.digest == found.descriptor.digest) {
                return Err(StoreError::NoSuchImage(source.to_owned()));
            }
            set_name(manifests, &target.to_string(), &found.descriptor);
            Ok(())
        })?)
    }

    /// Lists an image again, without a name, if its last one was taken while a container of it came into being. For
    /// who has held the lease since the image was resolved, once the container can be seen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep(&self, image: &Image) -> Result<(), StoreError> {
        // Against `remove` of another process: what it decides, it decides and does under this lock.
        self.update_index(|manifests| {
            if manifests.iter().all(|old| old.digest != image.digest()) {
                manifests.push(self.unnamed(image)?);
            }
            Ok(())
        })
    }

    /// The index's line of an image that has no name.
    fn unnamed(&self, image: &Image) -> Result<Descriptor, StoreError> {
        if let Some(index) = &image.index {
            return Ok(index.clone());
        }
        let path = self.blob_path(&image.manifest_digest);
        let size = path.metadata().map_err(|e| StoreError::io("looking at", &path, e))?.len();
        let kind = image.manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        Ok(Descriptor::new(kind, image.manifest_digest, size))
    }

    /// Takes a name from an image, or all names if `text` is an id, and deletes the image with its last one.
    /// `users` says which containers are made of an image; it is asked under the index's lock, which
    /// [`Store::keep`] takes too: a container that comes into being meanwhile is seen here, or sees this.
    ///
    /// # Errors
    /// No such image; in use, or whether it is cannot be told; an id with several names and no force.
    pub fn remove(
        &self,
        text: &str,
        options: RemoveOptions,
        users: &dyn Fn(&Digest) -> Result<Vec<User>, Unknown>,
    ) -> Result<Vec<Removed>, Error> {
        let entries = self.entries()?;
        let entry = self.find(&entries, text)?.clone();
        let id = self.entry_id(&entry)?;
        let names = names_of(&entries, &entry);
        let typed = Reference::parse(text).ok().filter(|name| names.contains(name));
        let gone: Vec<Reference> = match typed {
            Some(name) => vec![name],
            None => {
                let mut repositories: Vec<String> = names.iter().map(Reference::name).collect();
                repositories.dedup();
                if repositories.len() > 1 && !options.force {
                    return Err(StoreError::ManyNames(id.short(), repositories.len()).into());
                }
                names.clone()
            }
        };
        let last = gone.len() == names.len();
        let digest = entry.descriptor.digest;
        let kept = self.update_index(|manifests| {
            let mut made_of_it = Vec::new();
            if last {
                for id in std::iter::once(id).chain(entry.noted_others()) {
                    let known = users(&id);
                    made_of_it.extend(known.map_err(|source| StoreError::Users(text.to_owned(), source))?);
                }
            }
            if let Some(user) = made_of_it.iter().find(|user| user.running || !options.force) {
                let container = user.container.clone();
                return Err(StoreError::InUse { image: text.to_owned(), container });
            }
            // Forced while a stopped container uses it: it lives on without a name.
            let kept = !last || !made_of_it.is_empty();
            for name in &gone {
                take_name(manifests, &name.to_string());
            }
            // A name given meanwhile by somebody else keeps the image.
            let unnamed = |old: &Descriptor| Entry { descriptor: old.clone() }.name().is_none();
            if !kept {
                manifests.retain(|old| old.digest != digest || !unnamed(old));
            }
            Ok(kept)
        })?;
        let mut removed: Vec<Removed> = gone.into_iter().map(Removed::Untagged).collect();
        if !kept {
            removed.push(Removed::Deleted(id));
            if let Some(collected) = self.collect_garbage()? {
                removed.extend(collected.layers.into_iter().map(Removed::Deleted));
            }
        }
        Ok(removed)
    }
}

fn names_of(entries: &[Entry], of: &Entry) -> Vec<Reference> {
    let mut names: Vec<Reference> = entries
        .iter()
        .filter(|entry| entry.descriptor.digest == of.descriptor.digest)
        .filter_map(|entry| Reference::parse_untagged(entry.name()?).ok())
        .collect();
    names.sort();
    names
}
