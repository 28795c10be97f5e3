//! `pull --all-platforms`: an index as the registry has it, with all its members and what is attested of them.

use cata_spec::Reference;
use cata_spec::image::Descriptor;

use crate::commit::add_index_bytes;
use crate::error::Error;
use crate::progress::{Event, Progress};
use crate::pull::{check, fetch_layers, layers, locate, patiently, pull};
use crate::registry::client::Client;
use crate::registry::config::Config;
use crate::registry::manifest::{self, Top};
use crate::request::{PullRequest, Pulled, is_attestation};
use crate::store::{Store, sync_dir};
use crate::whole::Whole;

/// Brings an index into the store whole, byte for byte: pushed under another name it is the same index. An image that
/// stands alone is whole already.
///
/// # Errors
/// As [`pull`].
pub fn pull_index(
    store: &Store,
    config: &Config,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Pulled, Error> {
    store.clear_leftovers()?;
    let lease = store.lease()?;
    let (client, top) = locate(config, reference, |client| manifest::fetch_top(client, reference))?;
    let Top::Index { digest, bytes, index } = top else {
        drop(lease);
        let request = PullRequest { reference: reference.clone(), platform: None };
        return pull(store, config, &request, progress);
    };
    progress.event(Event::Resolved {
        reference: reference.clone(),
        digest,
        registry: client.host().to_owned(),
    });
    let before = store.resolve_digest(&digest).ok().filter(|image| Whole::of(store, image).is_ok());
    let names: Vec<Reference> = if reference.tag().is_some() && reference.digest().is_none() {
        vec![reference.clone()]
    } else {
        Vec::new()
    };
    let named = before.as_ref().is_some_and(|image| names.iter().all(|name| image.names.contains(name)));
    if let Some(image) = before.clone().filter(|_| named) {
        return Ok(Pulled { image, digest, changed: false });
    }
    for member in &index.manifests {
        let pulling = Member { store, config, client: &client, reference, progress };
        pulling.bring(member)?;
    }
    sync_dir(&store.content().join("blobs/sha256"))?;
    let mut new = add_index_bytes(store, &index, &bytes)?;
    new.repo_digest = Some(reference.with_digest(digest));
    store.add_image(&new, &names)?;
    Ok(Pulled { image: store.resolve_digest(&digest)?, digest, changed: before.is_none() })
}

/// What members are brought with.
struct Member<'m> {
    store: &'m Store,
    config: &'m Config,
    client: &'m Client,
    reference: &'m Reference,
    progress: &'m dyn Progress,
}

impl Member<'_> {
    fn bring(&self, member: &Descriptor) -> Result<(), Error> {
        let Self { store, config, client, reference, progress } = self;
        let of_member = reference.with_digest(member.digest);
        let found = patiently(config, || manifest::fetch_member(client, &of_member, member))?;
        let document = |descriptor: &Descriptor| match store.read_blob(&descriptor.digest) {
            Ok(bytes) => Ok(bytes),
            Err(_) => patiently(config, || manifest::fetch_config(client, reference, descriptor)),
        };
        let configuration = document(&found.manifest.config)?;
        if is_attestation(member) {
            for statement in &found.manifest.layers {
                store.add_blob(&document(statement)?)?;
            }
        } else {
            let request = PullRequest { reference: (*reference).clone(), platform: None };
            let of_image = check(&configuration, &found, &request)?;
            fetch_layers(store, config, client, &layers(&found, &of_image), *progress)?;
            store.seal_layers(&of_image.rootfs.diff_ids)?;
        }
        store.add_blob(&configuration)?;
        store.add_blob(&found.bytes)?;
        Ok(())
    }
}
