//! `system check`: whether what is kept is whole, and what of it can be mended.
//!
//! What a killed command left is no damage: every command removes it when it opens the engine. This looks for
//! what disks, power cuts and hands did: content that is not what its name says, trees that are not what they were
//! unpacked from, records that cannot be read, parts that are gone. Nothing is mended by losing something that exists
//! only here: then it is said what would be lost, and by which command.

use std::path::Path;

use cata_image::store::check::{Fault, Mended};
use cata_spec::Digest;

use crate::build::cache::Cache;
use crate::container::live::Owner;
use crate::container::names;
use crate::engine::Engine;
use crate::error::Result;
use crate::image::image_error;
use crate::record::{MountKind, Record};

/// How to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckRequest {
    /// Only whether everything is there: the content of blobs and layers is not read.
    pub quick: bool,
    /// Mend what can be mended without a loss.
    pub repair: bool,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Blobs of images.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unpacked layers compared with their blobs.
    pub layers: u64,
    /// Files in these.
    pub files: u64,
    /// Containers whose record can be read.
    pub containers: u64,
    /// Volumes whose record can be read.
    pub volumes: u64,
    /// Networks whose record can be read.
    pub networks: u64,
    /// What is wrong, or was.
    pub findings: Vec<Finding>,
}

/// Something that is wrong, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, in words.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was: how that was done.
    Repaired(&'static str),
    /// It is still wrong: the way out.
    Left(String),
}

impl Finding {
    fn left(what: String, hint: impl Into<String>) -> Self {
        Self { what, outcome: Outcome::Left(hint.into()) }
    }
}

impl Engine {
    /// Looks at everything that is kept.
    ///
    /// # Errors
    /// The image index or a directory cannot be read; no space to unpack a layer a second time.
    pub fn system_check(&self, request: CheckRequest) -> Result<CheckReport> {
        let checked = self.images.check(request.quick).map_err(image_error)?;
        let mut report = CheckReport {
            blobs: checked.blobs,
            bytes: checked.bytes,
            layers: checked.layers,
            files: checked.files,
            ..CheckReport::default()
        };
        let records = self.readable_records()?;
        report.containers = records.len() as u64;
        report.volumes = self.volume_list()?.len() as u64;
        let networks: Vec<String> =
            self.network_list()?.into_iter().map(|network| network.name.to_string()).collect();
        report.networks = networks.len() as u64;
        self.check_images(&checked.faults, &records, request, &mut report)?;
        for record in &records {
            self.check_container(record, &networks, request, &mut report)?;
        }
        // Records that cannot be read. Their makers' words are lost; what they were records of may be worth a look.
        report.findings.extend(self.take_damage().into_iter().map(|damage| {
            let hint = format!("look at what is in it first: `{}` removes it", damage.remedy);
            Finding::left(damage.what, hint)
        }));
        Ok(report)
    }

    fn check_images(
        &self,
        faults: &[Fault],
        records: &[Record],
        request: CheckRequest,
        report: &mut CheckReport,
    ) -> Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        if !request.repair {
            report.findings.extend(faults.iter().map(|fault| Finding::left(said(fault), again(fault, true))));
            return Ok(());
        }
        // Builds have layers mounted that no container has.
        let builds = Cache::open_alone(self)?;
        let alone = self.images.alone().map_err(image_error)?;
        let (Some(_), Some(alone)) = (builds, alone) else {
            let busy = "a build or a download is at work here: run it again when that has ended";
            report.findings.extend(faults.iter().map(|fault| Finding::left(said(fault), busy)));
            return Ok(());
        };
        for fault in faults {
            let user = match fault.layer() {
                Some(layer) => self.runs_on(layer, records)?,
                None => None,
            };
            let outcome = match user {
                Some(name) => Outcome::Left(format!("container {name} runs on it: stop it first")),
                None => match self.images.mend(fault, &alone).map_err(image_error)? {
                    Mended::Unpacked => Outcome::Repaired("unpacked again from its blob"),
                    Mended::Captured => Outcome::Repaired("written again from the unpacked layer"),
                    Mended::Removed if fault.images().is_empty() => {
                        Outcome::Repaired("removed: no image needs it")
                    }
                    Mended::Removed | Mended::Not => Outcome::Left(again(fault, false)),
                },
            };
            report.findings.push(Finding { what: said(fault), outcome });
        }
        Ok(())
    }

    /// The name of a container that has a layer mounted now.
    fn runs_on(&self, layer: &Digest, records: &[Record]) -> Result<Option<String>> {
        // Itself, or a twin in it.
        let is_it = |path: &Path| path.components().any(|part| *part.as_os_str() == *layer.hex());
        for record in records {
            if record.image.layers.iter().any(|path| is_it(path))
                && self.status(&record.id)?.1 == Owner::Alive
            {
                return Ok(Some(record.name.to_string()));
            }
        }
        Ok(None)
    }

    fn check_container(
        &self,
        record: &Record,
        networks: &[String],
        request: CheckRequest,
        report: &mut CheckReport,
    ) -> Result<()> {
        let name = &record.name;
        let mut find = |what: &str, outcome: Outcome| {
            report.findings.push(Finding { what: format!("container {name}: {what}"), outcome });
        };
        if names::owner(&self.paths, name)?.as_ref() != Some(&record.id) {
            let outcome = if !request.repair {
                Outcome::Left("`cata system check --repair` gives it back".to_owned())
            } else if names::take(&self.paths, name, &record.id).is_ok() {
                Outcome::Repaired("it has its name again")
            } else {
                Outcome::Left(format!("another one has it now: `cata rename {} NAME`", record.id.short()))
            };
            find("its name does not lead to it", outcome);
        }
        let remove = || Outcome::Left(format!("what it wrote there is lost: `cata rm {name}`"));
        let dir = self.dir(&record.id);
        if [dir.upper(), dir.work()].iter().any(|part| !part.is_dir()) {
            find("its writable layer is missing", remove());
        }
        // Unpacked again at its next start, if there is something to unpack.
        let missing = record.image.layers.iter().find(|layer| !layer.exists());
        if let Some(layer) = missing
            && self.image(&record.image.id).is_err()
        {
            let hint = format!("`cata pull {}`, or `cata rm {name}`", record.image.reference);
            find(&format!("{} is missing, and its image", layer.display()), Outcome::Left(hint));
        }
        for mount in &record.mounts {
            if matches!(mount.kind, MountKind::Volume { .. }) && !mount.source.exists() {
                let hint = format!("`cata volume create`, or `cata rm {name}`");
                find(
                    &format!("its volume's files ({}) are missing", mount.source.display()),
                    Outcome::Left(hint),
                );
            }
        }
        for endpoint in record.endpoints().iter().filter(|one| !networks.contains(&one.network.to_string())) {
            let hint = format!("`cata network create {}`", endpoint.network);
            find(&format!("its network {} is missing", endpoint.network), Outcome::Left(hint));
        }
        Ok(())
    }
}

/// PURE: a fault, and whose it is.
fn said(fault: &Fault) -> String {
    match fault.images() {
        [] => fault.to_string(),
        images => format!("{fault} (image {})", images.join(", ")),
    }
}

/// PURE: what to do about a fault of an image.
fn again(fault: &Fault, may_repair: bool) -> String {
    match fault.images() {
        [] => "`cata system check --repair` mends it".to_owned(),
        images => {
            let first = if may_repair { "`cata system check --repair`, then " } else { "" };
            let pull: Vec<String> = images.iter().map(|image| format!("`cata pull {image}`")).collect();
            format!("{first}{}, or build it again", pull.join(", "))
        }
    }
}
