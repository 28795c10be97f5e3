//! The image room as the engine uses it: which image a request means, and what it says of running it.

use std::io::{Read, Write};
use std::path::PathBuf;

use cata_image::{
    Event, HistoryLine, Image, ImportRequest, Loaded, Progress, PullRequest, Pulled, PushRequest, Pushed,
    RemoveOptions, Removed, Store, registry,
    store::{Lease, Unknown, User},
};
use cata_spec::{Digest, Platform, Reference};

use crate::container::inside::owners;
use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::plan::config::ImageDefaults;
use crate::plan::health::ImageHealth;
use crate::plan::users::Users;
use crate::request::{CreateRequest, PullPolicy};

/// The image room's error as the engine's.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(crate) fn image_error(error: cata_image::Error) -> Error {
    let kind = match error.kind() {
        cata_image::Kind::NotFound => Kind::NotFound,
        cata_image::Kind::Conflict => Kind::Conflict,
        cata_image::Kind::Invalid => Kind::InvalidArgument,
        cata_image::Kind::Unauthorized => Kind::Unauthenticated,
        cata_image::Kind::Unavailable => Kind::Unavailable,
        cata_image::Kind::NoSpace => Kind::Exhausted,
        cata_image::Kind::Corrupt | cata_image::Kind::System => Kind::Internal,
    };
    Error::Image(Foreign::new(kind, error.hint().map(str::to_owned), &error))
}

impl Engine {
    /// The image a container is to be made of, pulled when the policy says so.
    pub(crate) fn image_for(&self, request: &CreateRequest, progress: &dyn Progress) -> Result<Image> {
        let platform = request.platform.as_deref().map(parse_platform).transpose()?;
        let store = &self.images;
        if request.pull != PullPolicy::Always {
            match store.resolve_for(&request.image, platform.as_ref()) {
                Ok(image) if fits(&image, platform.as_ref()) => return Ok(image),
                Ok(image) if request.pull == PullPolicy::Never => {
                    return Err(Error::Invalid(format!(
                        "image {} was found but its platform ({}) does not match the one asked for",
                        request.image,
                        image.platform()
                    )));
                }
                Ok(_) => {}
                Err(error)
                    if error.kind() == cata_image::Kind::NotFound && request.pull == PullPolicy::Missing =>
                {
                    progress.event(Event::Absent { reference: parse_reference(&request.image)? });
                }
                Err(error) => return Err(image_error(error)),
            }
        }
        let reference = parse_reference(&request.image)?;
        let pull = PullRequest { reference, platform };
        let pulled = cata_image::pull(store, &self.registries()?, &pull, progress).map_err(image_error)?;
        self.tell_passed("pull", &pull.reference, Some(&pulled.image));
        Ok(pulled.image)
    }

    /// An image's layer directories, topmost first, unpacked again if one is missing.
    pub(crate) fn layers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        self.images.layer_paths(image).map_err(image_error)
    }

    /// As [`Engine::layers`], for a container with these users.
    pub(crate) fn layers_for(&self, image: &Image, users: Option<&Users>) -> Result<Vec<PathBuf>> {
        match users.filter(|users| users.differ_on_disk()) {
            Some(users) => self.images.twin_paths(image, &owners(users)).map_err(image_error),
            None => self.layers(image),
        }
    }

    /// The store.
    #[must_use]
    pub fn images(&self) -> &Store {
        &self.images
    }

    /// One image by name or id, without pulling.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image(&self, image: &str) -> Result<Image> {
        self.images.resolve(image).map_err(image_error)
    }

    /// As [`Engine::image`]; of an index the member for a platform.
    ///
    /// # Errors
    /// What the image room says; the image is for another platform.
    pub fn image_of(&self, image: &str, platform: Option<&str>) -> Result<Image> {
        let Some(platform) = platform else { return self.image(image) };
        let wanted = parse_platform(platform)?;
        let found = self.images.resolve_for(image, Some(&wanted)).map_err(image_error)?;
        if fits(&found, Some(&wanted)) {
            return Ok(found);
        }
        let offered = found.platform().to_string();
        let error = cata_image::StoreError::NoPlatform { image: image.to_owned(), wanted, offered };
        Err(image_error(error.into()))
    }

    /// Keeps every image in the store for as long as it is held.
    pub(crate) fn image_lease(&self) -> Result<Lease> {
        self.images.lease().map_err(|error| image_error(error.into()))
    }

    /// Every image, newest first.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_list(&self) -> Result<Vec<Image>> {
        let mut damaged = |name: &str, error: &cata_image::StoreError| {
            self.note_left_out(&format!("image {name}"), error, &format!("cata rmi {name}"));
        };
        self.images.list_telling(&mut damaged).map_err(image_error)
    }

    /// How an image was made, newest step first.
    ///
    /// # Errors
    /// No such image.
    pub fn image_history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        self.image_history_for(image, None)
    }

    /// As [`Engine::image_history`]; of an index the member for a platform.
    ///
    /// # Errors
    /// No such image, or not for this platform.
    pub fn image_history_for(&self, image: &str, platform: Option<&str>) -> Result<Vec<HistoryLine>> {
        Ok(self.images.history(&self.image_of(image, platform)?))
    }

    /// Every tag that a repository has in its registry.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_tags(&self, repository: &str) -> Result<Vec<String>> {
        cata_image::tags(&self.registries()?, &parse_reference(repository)?).map_err(image_error)
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// No such image; a target that is no name.
    pub fn image_tag(&self, source: &str, target: &str) -> Result<()> {
        let target = parse_reference(target)?;
        self.images.tag(source, &target).map_err(image_error)?;
        self.tell_named("tag", &target);
        Ok(())
    }

    /// Takes a name from an image, and with its last name the image, unless a container is made of it.
    ///
    /// # Errors
    /// No such image; in use.
    pub fn image_remove(&self, image: &str, options: RemoveOptions) -> Result<Vec<Removed>> {
        let found = self.images.resolve(image).ok().map(|image| image.id.to_string());
        let users = |id: &Digest| -> std::result::Result<_, Unknown> {
            let id = id.to_string();
            let made_of_it = self.records()?.into_iter().filter(|record| record.image.id == id);
            Ok(made_of_it
                .map(|record| User {
                    container: record.id.short().to_owned(),
                    running: self.status(&record.id).is_ok_and(|(_, owner)| owner == Owner::Alive),
                })
                .collect())
        };
        let removed = self.images.remove(image, options, &users).map_err(image_error)?;
        self.forget_kernels_of_images();
        if let Some(found) = found {
            for one in &removed {
                match one {
                    Removed::Untagged(_) => self.tell_image("untag", &found, &found, None),
                    Removed::Deleted(digest) if digest.to_string() == found => {
                        self.tell_image("delete", &found, &found, None);
                    }
                    // A layer.
                    Removed::Deleted(_) => {}
                }
            }
        }
        Ok(removed)
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_pull(&self, image: &str, platform: Option<&str>, progress: &dyn Progress) -> Result<Pulled> {
        let platform = platform.map(parse_platform).transpose()?;
        let pull = PullRequest { reference: parse_reference(image)?, platform };
        let pulled =
            cata_image::pull(&self.images, &self.registries()?, &pull, progress).map_err(image_error)?;
        self.tell_passed("pull", &pull.reference, Some(&pulled.image));
        Ok(pulled)
    }

    /// As [`Engine::image_pull`], for all platforms: an index whole.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_pull_index(&self, image: &str, progress: &dyn Progress) -> Result<Pulled> {
        let reference = parse_reference(image)?;
        let pulled = cata_image::pull_index(&self.images, &self.registries()?, &reference, progress);
        let pulled = pulled.map_err(image_error)?;
        self.tell_passed("pull", &reference, Some(&pulled.image));
        Ok(pulled)
    }

    /// Pushes an image under a name it has; an index whole, or only its member for a platform.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_push(&self, image: &str, platform: Option<&str>, progress: &dyn Progress) -> Result<Pushed> {
        let platform = platform.map(parse_platform).transpose()?;
        let push = PushRequest { reference: parse_reference(image)?, platform, as_it_is: false };
        let pushed = cata_image::push(&self.images, &self.registries()?, &push, progress);
        let pushed = pushed.map_err(image_error)?;
        self.tell_passed("push", &push.reference, None);
        Ok(pushed)
    }

    /// As [`Engine::image_push`], with layers as they are: plain ones too.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_push_as_it_is(&self, image: &str, progress: &dyn Progress) -> Result<Pushed> {
        let push = PushRequest { reference: parse_reference(image)?, platform: None, as_it_is: true };
        let pushed = cata_image::push(&self.images, &self.registries()?, &push, progress);
        let pushed = pushed.map_err(image_error)?;
        self.tell_passed("push", &push.reference, None);
        Ok(pushed)
    }

    /// What a name of the image leads to.
    ///
    /// # Errors
    /// It is not in the store any more.
    pub fn image_descriptor(&self, image: &Image) -> Result<cata_spec::image::Descriptor> {
        self.images.descriptor(image).map_err(image_error)
    }

    /// Takes in an archive of images.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_load(
        &self,
        archive: &mut (dyn Read + Send),
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let loaded = cata_image::load(&self.images, archive, progress).map_err(image_error)?;
        for one in &loaded {
            let id = one.id.to_string();
            self.tell_image("load", &id, &one.names.first().map_or(id.clone(), Reference::familiar), None);
        }
        Ok(loaded)
    }

    /// Writes images into one archive; indices whole, or only their members for a platform.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_save(&self, images: &[String], platform: Option<&str>, into: &mut dyn Write) -> Result<()> {
        let platform = platform.map(parse_platform).transpose()?;
        cata_image::save_for(&self.images, images, platform.as_ref(), into).map_err(image_error)?;
        for image in images {
            if let Ok(found) = self.images.resolve(image) {
                self.tell_image("save", &found.id.to_string(), image, Some(&found));
            }
        }
        Ok(())
    }

    /// Makes an image of a root file system's archive.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_import(&self, archive: &mut (dyn Read + Send), request: &ImportRequest) -> Result<Image> {
        let image = cata_image::import(&self.images, archive, request).map_err(image_error)?;
        let id = image.id.to_string();
        let name = request.reference.as_ref().map_or(id.clone(), Reference::familiar);
        self.tell_image("import", &id, &name, Some(&image));
        Ok(image)
    }

    /// Asks a registry whether it takes a login, and keeps it: in a keyring if there is one.
    ///
    /// # Errors
    /// What the image room says.
    pub fn login(&self, host: &str, user: &str, password: &str) -> Result<registry::login::Kept> {
        registry::login::login(&self.registries()?, host, user, password).map_err(|e| image_error(e.into()))
    }

    /// Asks a registry whether it takes the login that is kept; false when none is.
    ///
    /// # Errors
    /// What the image room says.
    pub fn login_again(&self, host: &str) -> Result<bool> {
        registry::login::check_kept(&self.registries()?, host).map_err(|e| image_error(e.into()))
    }

    /// Asks a registry whether it takes the login that this engine was given for it; false when none was.
    ///
    /// # Errors
    /// What the image room says.
    pub fn login_given(&self, host: &str) -> Result<bool> {
        registry::login::check_given(&self.registries()?, host).map_err(|e| image_error(e.into()))
    }

    /// Forgets a login; false when there was none.
    ///
    /// # Errors
    /// What the image room says.
    pub fn logout(&self, host: &str) -> Result<bool> {
        registry::login::logout(&self.registries()?, host).map_err(|e| image_error(e.into()))
    }

    /// An image came or went by this name; Docker knows it by the name too, and calls it without its tag.
    fn tell_passed(&self, action: &str, reference: &Reference, image: Option<&Image>) {
        self.tell_image(action, &reference.familiar(), &reference.familiar_name(), image);
    }

    /// An image has this name now.
    pub(crate) fn tell_named(&self, action: &str, name: &Reference) {
        let name = name.familiar();
        if let Ok(image) = self.images.resolve(&name) {
            self.tell_image(action, &image.id.to_string(), &name, Some(&image));
        }
    }

    /// How registries are reached: the configuration file.
    pub(crate) fn registries(&self) -> Result<registry::Config> {
        let mut config =
            registry::Config::read(&self.paths.config).map_err(|error| image_error(error.into()))?;
        config.logins = self.logins.clone();
        Ok(config)
    }
}

pub(crate) fn parse_reference(text: &str) -> Result<Reference> {
    Reference::parse(text).map_err(|error| image_error(error.into()))
}

pub(crate) fn parse_platform(text: &str) -> Result<Platform> {
    Platform::parse(text).map_err(|error| image_error(error.into()))
}

/// Whether an image in the store is what `--platform` (or, without it, this host) asks for.
fn fits(image: &Image, platform: Option<&Platform>) -> bool {
    let Some(wanted) = platform else { return true };
    let offered = image.platform();
    offered.os == wanted.os
        && offered.architecture == wanted.architecture
        && (wanted.variant.is_none() || wanted.variant == offered.variant)
}

/// What an image says of running it.
pub(crate) fn defaults(image: &Image) -> ImageDefaults {
    let config = &image.config.config;
    let nanos = |value: i64| u64::try_from(value).unwrap_or(0);
    ImageDefaults {
        user: config.user.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        workdir: config.working_dir.clone(),
        labels: config.labels.clone(),
        exposed: config.exposed_ports.iter().cloned().collect(),
        volumes: config.volumes.iter().cloned().collect(),
        stop_signal: config.stop_signal.clone(),
        health: config.healthcheck.as_ref().map(|health| ImageHealth {
            test: health.test.clone(),
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: u32::try_from(health.retries).unwrap_or(0),
        }),
    }
}
