//! `push`: blobs that the registry lacks, several at once, then the manifest.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cata_spec::{Digest, Reference};

use crate::error::{Access, Error, RegistryError, StoreError};
use crate::progress::{Event, Progress};
use crate::registry::client::Client;
use crate::registry::config::Config;
use crate::registry::upload::{self, Sent};
use crate::request::{Image, PushRequest, Pushed};
use crate::store::Store;
use crate::whole::Whole;

/// Blobs on their way at once.
const PARALLEL: usize = 4;

/// Brings an image of the store to the registry that its name says.
///
/// # Errors
/// No such image; refused, unreachable.
pub fn push(
    store: &Store,
    config: &Config,
    request: &PushRequest,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let reference = &request.reference;
    store.clear_leftovers()?;
    let _lease = store.lease()?;
    let resolved = store.resolve_for(&reference.to_string(), request.platform.as_ref());
    let mut image = resolved.map_err(|error| match error {
        Error::Store(StoreError::NoSuchImage(_)) => StoreError::NoSuchImage(reference.familiar()).into(),
        other => other,
    })?;
    if let Some(wanted) = &request.platform {
        let there = image.platform();
        if wanted.distance(&there).is_none() {
            let (reference, wanted, offered) = (reference.familiar(), wanted.clone(), there.to_string());
            return Err(RegistryError::NoPlatform { reference, wanted, offered }.into());
        }
        image.index = None;
    }
    if !request.as_it_is {
        image = crate::recompress::for_push(store, image)?;
    }
    send(store, config, &image, reference, progress)
}

/// Brings an image of the store, or the index that it is a member of, to a registry under a name that it need not
/// have here.
///
/// # Errors
/// Refused, unreachable.
pub fn push_as(
    store: &Store,
    config: &Config,
    image: Image,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let _lease = store.lease()?;
    let image = crate::recompress::for_push(store, image)?;
    send(store, config, &image, reference, progress)
}

fn send(
    store: &Store,
    config: &Config,
    image: &Image,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    // Mirrors are for reading; the last endpoint is the registry itself.
    let endpoint = config
        .endpoints(reference.registry())
        .pop()
        .ok_or_else(|| RegistryError::ManifestNotFound(reference.familiar()))?;
    let client = Client::new(config, endpoint, reference.repository(), Access::Push);
    let whole = Whole::of(store, image)?;
    for layer in &whole.layers {
        progress.event(Event::Layer { digest: layer.digest, total: layer.size });
    }
    let mut blobs: Vec<Digest> =
        whole.layers.iter().chain(&whole.documents).map(|descriptor| descriptor.digest).collect();
    let mut seen = BTreeSet::new();
    blobs.retain(|digest| seen.insert(*digest));
    let others = mountable(store, &whole, reference.registry(), reference.repository())?;
    send_all(&client, store, config, &blobs, &others, progress)?;
    for manifest in &whole.manifests {
        let bytes = store.read_blob(&manifest.digest)?;
        upload::manifest(&client, &manifest.digest.to_string(), &manifest.media_type, &bytes)?;
    }
    let top = &whole.top;
    let bytes = store.read_blob(&top.digest)?;
    upload::manifest(&client, &reference.manifest_selector(), &top.media_type, &bytes)?;
    store.note_repo_digest(&top.digest, &reference.with_digest(top.digest))?;
    Ok(Pushed { digest: top.digest, size: top.size })
}

/// Repositories of the same registry that are known to have layers of this image.
fn mountable(store: &Store, whole: &Whole, registry: &str, repository: &str) -> Result<Vec<String>, Error> {
    let layers: BTreeSet<Digest> = whole.layers.iter().map(|layer| layer.digest).collect();
    let mut others = BTreeSet::new();
    for known in store.list()? {
        if known.manifest.layers.iter().any(|layer| layers.contains(&layer.digest)) {
            // Only what was pulled from or pushed to a registry is there for certain.
            others.extend(
                known
                    .repo_digests
                    .iter()
                    .filter(|name| name.registry() == registry && name.repository() != repository)
                    .map(|name| name.repository().to_owned()),
            );
        }
    }
    Ok(others.into_iter().take(3).collect())
}

fn send_all(
    client: &Client,
    store: &Store,
    config: &Config,
    blobs: &[Digest],
    others: &[String],
    progress: &dyn Progress,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..blobs.len().min(PARALLEL) {
            scope.spawn(|| {
                while let Some(digest) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed().is_some() {
                        return;
                    }
                    let digest = *digest;
                    match upload::blob(client, store, &digest, others, config.retry_pause, progress) {
                        Ok(Sent::Existed) => progress.event(Event::Exists { digest }),
                        Ok(Sent::Mounted(from)) => progress.event(Event::Mounted { digest, from }),
                        Ok(Sent::Uploaded) => progress.event(Event::Done { digest }),
                        Err(error) => {
                            failed().get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
