//! `tag` and `rmi`.

use cata_spec::{Digest, Reference};

use super::Store;
use super::index::{Entry, set_name, take_name};
use crate::error::{Error, StoreError};
use crate::request::{RemoveOptions, Removed};

/// A container that is made of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its short id.
    pub container: String,
    /// Whether it runs: then not even `--force` takes the image's last name.
    pub running: bool,
}

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

    /// Takes a name from an image, or all names if `text` is an id, and deletes the image with its last one.
    /// `users` says which containers are made of an image.
    ///
    /// # Errors
    /// No such image; in use; an id with several names and no force.
    pub fn remove(
        &self,
        text: &str,
        options: RemoveOptions,
        users: &dyn Fn(&Digest) -> Vec<User>,
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
        let users = if last {
            std::iter::once(id).chain(entry.noted_others()).flat_map(|id| users(&id)).collect()
        } else {
            Vec::new()
        };
        let blocking = users.iter().find(|user| user.running || !options.force);
        if let Some(user) = blocking {
            let container = user.container.clone();
            return Err(StoreError::InUse { image: text.to_owned(), container }.into());
        }
        // Forced while a stopped container uses it: it lives on without a name.
        let kept = !last || !users.is_empty();
        let digest = entry.descriptor.digest;
        self.update_index(|manifests| {
            for name in &gone {
                take_name(manifests, &name.to_string());
            }
            // A name given meanwhile by somebody else keeps the image.
            let unnamed =
                |old: &cata_spec::image::Descriptor| Entry { descriptor: old.clone() }.name().is_none();
            if !kept {
                manifests.retain(|old| old.digest != digest || !unnamed(old));
            }
            Ok(())
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
