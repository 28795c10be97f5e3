//! `pull`: a manifest, then its layers, several at once, each downloaded, verified and unpacked in one pass.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cata_spec::image::{Descriptor, ImageConfig};
use cata_spec::{Digest, Platform, Reference};

use crate::error::{Access, Error, LayerError, RegistryError, StoreError};
use crate::layer::compression::{check_media_type, is_foreign};
use crate::layer::unpack::{chunks, unpack};
use crate::layer::unpack_blob;
use crate::progress::{Event, Progress};
use crate::registry::client::Client;
use crate::registry::config::Config;
use crate::registry::download::{Download, Outcome, Partial};
use crate::registry::manifest::{self, Found};
use crate::request::{Image, PullRequest, Pulled};
use crate::store::{NewImage, Store, sync_dir};

/// Layers on their way at once.
const PARALLEL: usize = 4;
/// Attempts at a document that the registry is too busy for.
const ATTEMPTS: u32 = 4;

/// Brings an image into the store.
///
/// # Errors
/// Not found, refused, unreachable; content that is not what it should be; no space. Nothing half-made is
/// left, except partial downloads, which the next pull goes on with.
pub fn pull(
    store: &Store,
    config: &Config,
    request: &PullRequest,
    progress: &dyn Progress,
) -> Result<Pulled, Error> {
    store.clear_leftovers()?;
    let _lease = store.lease()?;
    let before = store.resolve_for(&request.reference.to_string(), request.platform.as_ref()).ok();
    if let Some(image) = &before
        && let Some(digest) = still_current(store, config, request, image)
    {
        return Ok(Pulled { image: image.clone(), digest, changed: false });
    }
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let reference = &request.reference;
    let (client, found) = locate(config, reference, |client| manifest::fetch(client, reference, &platform))?;
    let (reference, digest) = (request.reference.clone(), found.top);
    progress.event(Event::Resolved { reference, digest, registry: client.host().to_owned() });
    let id = found.manifest.config.digest;
    let document = match store.read_blob(&id) {
        Ok(bytes) => bytes,
        Err(_) => {
            patiently(config, || manifest::fetch_config(&client, &request.reference, &found.manifest.config))?
        }
    };
    let image_config = check(&document, &found, request)?;
    let work = layers(&found, &image_config);
    fetch_layers(store, config, &client, &work, progress)?;
    store.add_blob(&document)?;
    store.add_blob(&found.bytes)?;
    let diff_ids = &image_config.rootfs.diff_ids;
    store.seal_layers(diff_ids)?;
    sync_dir(&store.content().join("blobs/sha256"))?;
    let names: Vec<Reference> = request
        .reference
        .tag()
        .is_some_and(|_| request.reference.digest().is_none())
        .then(|| request.reference.clone())
        .into_iter()
        .collect();
    let new = NewImage {
        media_type: found.media_type.clone(),
        manifest_digest: found.digest,
        manifest_size: found.bytes.len() as u64,
        id,
        others: Vec::new(),
        size: diff_ids.iter().filter_map(|diff_id| store.layer_size(diff_id)).sum(),
        platform: Some(image_config.platform()),
        repo_digest: Some(request.reference.with_digest(found.top)),
    };
    store.add_image(&new, &names)?;
    let image = store.resolve_digest(&found.digest)?;
    let changed = before.is_none_or(|old| old.manifest_digest != found.digest);
    Ok(Pulled { image, digest: found.top, changed })
}

/// The digest that the registry, or the first of its mirrors, knows a name by; `None` when it does not know it.
///
/// # Errors
/// Refused, unreachable.
pub fn digest_of(config: &Config, reference: &Reference) -> Result<Option<Digest>, Error> {
    let mut failure: Option<RegistryError> = None;
    for endpoint in config.endpoints(reference.registry()) {
        let client = Client::new(config, endpoint, reference.repository(), Access::Pull);
        match manifest::head(&client, reference) {
            Ok(Some(digest)) => return Ok(Some(digest)),
            Ok(None) | Err(RegistryError::ManifestNotFound(_)) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), |error| Err(error.into()))
}

/// Asks with HEAD, which registries do not count, whether the image that bears the name is still the one.
fn still_current(store: &Store, config: &Config, request: &PullRequest, image: &Image) -> Option<Digest> {
    let wanted = request.platform.clone().unwrap_or_else(Platform::host);
    wanted.distance(&image.platform())?;
    let whole = image.diff_ids().iter().all(|id| store.trusted_layer(id).is_some())
        && image.manifest.layers.iter().all(|layer| store.has_blob(&layer.digest));
    if !whole {
        return None;
    }
    let endpoint = config.endpoints(request.reference.registry()).into_iter().next()?;
    let client = Client::new(config, endpoint, request.reference.repository(), Access::Pull);
    let digest = manifest::head(&client, &request.reference).ok()??;
    let pinned = request.reference.with_digest(digest);
    image.repo_digests.contains(&pinned).then_some(digest)
}

/// Asks the mirrors, then the registry itself.
pub(crate) fn locate<T>(
    config: &Config,
    reference: &Reference,
    ask: impl Fn(&Client) -> Result<T, RegistryError>,
) -> Result<(Client, T), Error> {
    let mut failure: Option<RegistryError> = None;
    for endpoint in config.endpoints(reference.registry()) {
        let client = Client::new(config, endpoint, reference.repository(), Access::Pull);
        match patiently(config, || ask(&client)) {
            Ok(found) => return Ok((client, found)),
            // An answer says more than silence, whoever gave it.
            Err(RegistryError::Unreachable { .. }) if failure.is_some() => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| RegistryError::ManifestNotFound(reference.familiar())).into())
}

/// Tries again when the registry itself says that it may help; a registry that is down is told at once.
pub(crate) fn patiently<T>(
    config: &Config,
    mut ask: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut pause = config.retry_pause;
    for _ in 1..ATTEMPTS {
        match ask() {
            Err(RegistryError::Status { status: 408 | 429 | 500 | 502..=504, .. }) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
    ask()
}

/// Reads the configuration and checks that manifest, configuration and wish agree.
pub(crate) fn check(document: &[u8], found: &Found, request: &PullRequest) -> Result<ImageConfig, Error> {
    let reference = request.reference.familiar();
    let unusable = |source: cata_spec::image::ManifestError| RegistryError::Manifest {
        reference: reference.clone(),
        source,
    };
    let config: ImageConfig = serde_json::from_slice(document).map_err(|e| unusable(e.into()))?;
    for layer in &found.manifest.layers {
        if is_foreign(&layer.media_type) {
            return Err(RegistryError::ForeignLayer(layer.digest).into());
        }
        check_media_type(&layer.media_type)?;
    }
    let (layers, diff_ids) = (found.manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        let said = format!("{layers} layers, but {diff_ids} diff ids in the configuration");
        return Err(unusable(cata_spec::image::ManifestError::MediaType(said)).into());
    }
    if let Some(wanted) = &request.platform
        && wanted.distance(&config.platform()).is_none()
    {
        let (wanted, offered) = (wanted.clone(), config.platform().normalised().to_string());
        return Err(RegistryError::NoPlatform { reference, wanted, offered }.into());
    }
    Ok(config)
}

/// What has to be there: each blob once, the largest first, for that one takes longest.
pub(crate) fn layers<'f>(found: &'f Found, config: &ImageConfig) -> Vec<(&'f Descriptor, Digest)> {
    let mut seen = BTreeSet::new();
    let mut work: Vec<(&Descriptor, Digest)> = found
        .manifest
        .layers
        .iter()
        .zip(config.rootfs.diff_ids.iter().copied())
        .filter(|(layer, _)| seen.insert(layer.digest))
        .collect();
    work.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
    work
}

pub(crate) fn fetch_layers(
    store: &Store,
    config: &Config,
    client: &Client,
    work: &[(&Descriptor, Digest)],
    progress: &dyn Progress,
) -> Result<(), Error> {
    for (layer, _) in work {
        progress.event(Event::Layer { digest: layer.digest, total: layer.size });
    }
    let (next, cancelled) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..work.len().min(PARALLEL) {
            scope.spawn(|| {
                while let Some((layer, diff_id)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one =
                        Fetch { store, config, client, layer, diff_id, progress, cancelled: &cancelled };
                    if let Err(error) = one.run() {
                        cancelled.store(true, Ordering::Relaxed);
                        let mut slot = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        slot.get_or_insert(error);
                    }
                    if cancelled.load(Ordering::Relaxed) {
                        return;
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

/// One layer on its way.
struct Fetch<'f> {
    store: &'f Store,
    config: &'f Config,
    client: &'f Client,
    layer: &'f Descriptor,
    diff_id: &'f Digest,
    progress: &'f dyn Progress,
    cancelled: &'f AtomicBool,
}

impl Fetch<'_> {
    fn run(&self) -> Result<(), Error> {
        let digest = self.layer.digest;
        loop {
            if self.store.has_blob(&digest) {
                return self.unpack_known();
            }
            let Some(mut partial) = Partial::open(self.store, &digest)? else { continue };
            let (outcome, unpacked) = self.download(&mut partial);
            match outcome? {
                Outcome::StaleStart => {}
                Outcome::Complete => {
                    if let Some(unpacked) = unpacked {
                        unpacked?.publish(self.store, self.diff_id)?;
                    }
                    self.progress.event(Event::Done { digest });
                    return Ok(());
                }
                Outcome::Abandoned => {
                    return match unpacked {
                        Some(Err(error)) if !self.cancelled.load(Ordering::Relaxed) => Err(error),
                        // Another layer failed; its error is the one to show.
                        _ => Ok(()),
                    };
                }
            }
        }
    }

    fn unpack_known(&self) -> Result<(), Error> {
        let digest = self.layer.digest;
        if self.store.trusted_layer(self.diff_id).is_some() {
            self.progress.event(Event::Exists { digest });
            return Ok(());
        }
        self.progress.event(Event::Extracting { digest });
        let (blob, _) = self.store.open_blob(&digest)?;
        unpack_blob(self.store, blob, &digest, self.diff_id)?;
        self.progress.event(Event::Done { digest });
        Ok(())
    }

    /// Downloads in this thread while others unpack what arrives. The blob becomes visible when it is
    /// verified, whatever becomes of the unpacking.
    #[allow(clippy::type_complexity, reason = "two results that are judged together, once")]
    fn download(
        &self,
        partial: &mut Partial,
    ) -> (Result<Outcome, Error>, Option<Result<crate::layer::unpack::Unpacked, Error>>) {
        let unpacking = self.store.trusted_layer(self.diff_id).is_none();
        let hopeless = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (sender, reader) = chunks();
            let unpacker = unpacking.then(|| {
                scope.spawn(|| {
                    let result = unpack(self.store, reader);
                    // A full disk ends the download too; damage is for the digest to tell.
                    let host = |error: &Error| {
                        matches!(
                            error,
                            Error::Store(_) | Error::Layer(LayerError::NoSpace(_) | LayerError::Entry { .. })
                        )
                    };
                    if result.as_ref().is_err_and(host) {
                        hopeless.store(true, Ordering::Relaxed);
                    }
                    result
                })
            });
            let mut sink = |chunk| unpacking && sender.send(chunk).is_ok();
            let mut download = Download {
                client: self.client,
                blob: self.layer,
                progress: self.progress,
                retry_pause: self.config.retry_pause,
                sink: &mut sink,
                abandoned: &|| hopeless.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed),
            };
            let mut outcome = download.run(partial);
            drop(sender);
            if let Ok(Outcome::Complete) = outcome {
                self.progress.event(Event::Extracting { digest: self.layer.digest });
                if let Err(error) = partial.publish(self.store) {
                    outcome = Err(error.into());
                }
            }
            let unpacked = unpacker.map(|thread| {
                thread.join().unwrap_or_else(|_| {
                    let path = self.store.layer_path(self.diff_id);
                    Err(StoreError::damaged(&path, "the unpacking thread died").into())
                })
            });
            (outcome, unpacked)
        })
    }
}
