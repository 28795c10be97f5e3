//! `commit`: an image of what a container has made of its own.

use std::time::{Duration, SystemTime};

use cata_image::{CommitRequest, Image};
use cata_spec::Reference;
use cata_spec::image::{ContainerConfig, Healthcheck, History, ImageConfig};

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::image::{image_error, parse_reference};
use crate::record::Record;

/// How `commit` goes about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitOptions {
    /// The image's name; dangling without.
    pub name: Option<String>,
    /// `--author`.
    pub author: Option<String>,
    /// `--message`.
    pub message: Option<String>,
    /// `--change`, in Dockerfile syntax, in order.
    pub changes: Vec<String>,
    /// `--no-pause`: let it write on meanwhile.
    pub no_pause: bool,
}

impl Engine {
    /// Makes an image of a container: its image's layers, and one of what it has changed. Volumes are no part
    /// of it. A container that runs is frozen for as long as its files are read.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; its image is gone; a change that makes no sense; no space.
    pub fn container_commit(&self, container: &str, options: &CommitOptions) -> Result<Image> {
        let names: Vec<Reference> =
            options.name.as_deref().map(parse_reference).transpose()?.into_iter().collect();
        let record = self.find(container)?;
        self.commit_record(&record, names, options).map_err(|error| {
            match self.paths.container(&record.id).exists() {
                true => error,
                // Removed while its files were read.
                false => Error::NoContainer(container.to_owned()),
            }
        })
    }

    fn commit_record(
        &self,
        record: &Record,
        names: Vec<Reference>,
        options: &CommitOptions,
    ) -> Result<Image> {
        let _images = self.image_lease()?;
        let base = self.image(&record.image.id).map_err(|error| match error.kind() {
            Kind::NotFound => Error::Invalid(format!(
                "container {} has lost its image {}: `cata export` still gives its files",
                record.name, record.image.reference
            )),
            _ => error,
        })?;
        let mut run = run_config(record);
        for change in &options.changes {
            cata_image::apply_change(change, &mut run).map_err(|error| image_error(error.into()))?;
        }
        let frozen = if options.no_pause { None } else { Frozen::freeze(self, record)? };
        let differences = self.differences(record)?;
        let upper = self.dir(&record.id).upper();
        let captured = if upper.exists() {
            let left_out = |path: &std::path::Path| differences.left_out.contains(path);
            let owners = self.owners_on_disk(record);
            Some(self.images.capture_without(&upper, &left_out, &owners).map_err(image_error)?)
        } else {
            None
        };
        drop(frozen);
        let captured = captured.filter(|captured| captured.written.entries > 0);
        let created = cata_image::timestamp(SystemTime::now());
        let mut config = ImageConfig {
            created: Some(created.clone()),
            author: options.author.clone().or_else(|| base.config.author.clone()),
            comment: options.message.clone(),
            config: run,
            ..base.config.clone()
        };
        let mut layers = base.manifest.layers.clone();
        config.history.push(History {
            created: Some(created),
            created_by: Some(record.config.argv.join(" ")),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: captured.is_none(),
        });
        if let Some(captured) = &captured {
            self.images.unpack_captured(captured).map_err(image_error)?;
            config.rootfs.diff_ids.push(captured.diff_id);
            layers.push(captured.descriptor.clone());
        }
        let request = CommitRequest { config, layers, names, annotations: Default::default(), docker: false };
        let tags: Vec<String> = request.names.iter().map(Reference::familiar).collect();
        let image = cata_image::commit(&self.images, &request).map_err(image_error)?;
        let id = image.id.to_string();
        self.tell_container(record, "commit", &[("imageID", &id), ("imageRef", &tags.join(" "))]);
        tags.iter().for_each(|tag| self.tell_image("tag", &id, tag, Some(&image)));
        Ok(image)
    }
}

/// PURE: how the image is run: as the container is.
fn run_config(record: &Record) -> ContainerConfig {
    let config = &record.config;
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    ContainerConfig {
        user: config.user.clone(),
        env: config.env.clone(),
        entrypoint: listed(&config.entrypoint),
        cmd: listed(&config.cmd),
        working_dir: config.workdir.clone(),
        labels: config.labels.clone(),
        exposed_ports: config.exposed.iter().cloned().collect(),
        volumes: config.volumes.iter().cloned().collect(),
        stop_signal: Some(config.stop_signal_name.clone()).filter(|name| !name.is_empty()),
        healthcheck: config.health.as_ref().map(|health| Healthcheck {
            test: [&["CMD".to_owned()], health.argv.as_slice()].concat(),
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: i64::from(health.retries),
        }),
        ..ContainerConfig::default()
    }
}

/// Frozen while it lives.
struct Frozen<'e> {
    engine: &'e Engine,
    id: String,
}

impl<'e> Frozen<'e> {
    /// Freezes a container that runs; `None` when there is nothing to thaw afterwards.
    fn freeze(engine: &'e Engine, record: &Record) -> Result<Option<Self>> {
        let (status, owner) = engine.status(&record.id)?;
        if owner != Owner::Alive || status.status != cata_sandbox::status::StatusKind::Running {
            return Ok(None);
        }
        match engine.pause(record.id.as_str()) {
            Ok(()) => Ok(Some(Self { engine, id: record.id.to_string() })),
            // Ended or frozen by somebody else meanwhile.
            Err(Error::State { .. }) => Ok(None),
            Err(Error::Unsupported { hint, .. }) if engine.host.rootless => Err(Error::Unsupported {
                what: format!("{} runs, and cannot be frozen while its files are read", record.name),
                hint: format!(
                    "--no-pause lets it run on, or stop it first; to freeze it takes a cgroup: {hint}"
                ),
            }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Killed meanwhile, or thawed by somebody: there is nothing left to do.
        let _ = self.engine.unpause(&self.id);
    }
}
