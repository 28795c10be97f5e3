//! What is attested of an image that was built: `--provenance`, `--sbom`.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use cata_build::attest::{self, Details, Facts, Material, StepFacts};
use cata_build::sbom;
use cata_spec::Digest;
use cata_spec::image::Descriptor;
use cata_sys::path::Root;
use rustix::fs::{FileType, OFlags};

use super::request::{ImageOptions, ProvenanceMode};
use super::solve::{Solved, Solver};
use super::{BuildError, overlay};
use crate::error::Kind;

/// No honest database of packages is longer.
const DATABASE_MAX: u64 = 64 << 20;

/// Writes the statements of one image; `None`: nothing is asked for.
pub(super) fn attest(
    solver: &Solver<'_>,
    solved: &Solved,
    image: &Descriptor,
) -> Result<Option<Descriptor>, BuildError> {
    let output = &solver.request.output;
    if !output.is_attested() {
        return Ok(None);
    }
    let platform = solver.target_platform();
    let names: Vec<String> =
        solver.request.tags.iter().map(|tag| attest::image_url(&tag.to_string(), platform)).collect();
    let mut statements = Vec::new();
    let write = |predicate: &serde_json::Value, kind| {
        let statement = attest::statement(kind, &names, &image.digest, predicate);
        serde_json::to_vec_pretty(&statement).map_err(|e| BuildError::new(Kind::Internal, e.to_string()))
    };
    if output.sbom {
        let predicate = contents(solver, solved, &image.digest)?;
        statements.push((attest::SPDX, write(&predicate, attest::SPDX)?));
    }
    if let Some(mode) = output.provenance {
        let predicate = attest::provenance(&facts(solver, output, mode));
        statements.push((attest::PROVENANCE, write(&predicate, attest::PROVENANCE)?));
    }
    Ok(Some(cata_image::commit_attestation(&solver.engine.images, image, &statements)?))
}

fn facts(solver: &Solver<'_>, output: &ImageOptions, mode: ProvenanceMode) -> Facts {
    let request = solver.request;
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let details = || Details {
        target: request.target.clone(),
        args: pairs(&request.args),
        labels: pairs(&request.labels),
        secrets: request.secrets.keys().cloned().collect(),
        agents: request.ssh.keys().cloned().collect(),
        text: request.dockerfile.text.clone(),
        steps: solver
            .used()
            .into_iter()
            .map(|(key, record)| StepFacts {
                key: key.to_string(),
                title: record.title,
                layer: record.captured.map(|layer| layer.diff_id.to_string()),
            })
            .collect(),
    };
    Facts {
        builder: output.builder_id.clone(),
        materials: solver.materials(),
        source: request.source.as_ref().map(|source| Material::remote(source, "")),
        dockerfile: attest::without_login(&request.dockerfile.name),
        platform: cata_spec::Platform::host().to_string(),
        started: solver.started().to_owned(),
        finished: super::finish::now(request.epoch),
        details: (mode == ProvenanceMode::Max).then(details),
    }
}

/// What the image's package databases list.
fn contents(solver: &Solver<'_>, solved: &Solved, digest: &Digest) -> Result<serde_json::Value, BuildError> {
    let root = overlay::read(&solver.paths(&solved.snapshot)?, &solver.cache.empty())?;
    let mut packages = Vec::new();
    for (place, system) in sbom::PLACES {
        for text in texts(&root, Path::new(place))? {
            packages.extend(sbom::packages(system, &text));
        }
    }
    let mut release = (String::new(), String::new());
    for place in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = texts(&root, Path::new(place))?.first()
            && release.0.is_empty()
        {
            release = sbom::distribution(text);
        }
    }
    let name = solver.request.tags.first().map(cata_spec::Reference::familiar).unwrap_or_default();
    let name = if name.is_empty() { digest.to_string() } else { name };
    let created = super::finish::now(solver.request.epoch);
    Ok(sbom::document((&name, digest), &created, (&release.0, &release.1), &packages))
}

/// A file's text, or those of the files in a directory; nothing if there is none.
fn texts(root: &Root, path: &Path) -> Result<Vec<String>, BuildError> {
    // What is no file may block who opens it.
    let Ok(found) = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(Vec::new()) };
    let io = |e: std::io::Error| BuildError::io("read", path, e);
    let stat = rustix::fs::fstat(found.as_fd()).map_err(|errno| io(errno.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let mut bytes = Vec::new();
            std::fs::File::from(found).take(DATABASE_MAX).read_to_end(&mut bytes).map_err(io)?;
            Ok(vec![String::from_utf8_lossy(&bytes).into_owned()])
        }
        FileType::Directory => {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(found.as_fd()).map_err(|errno| io(errno.into()))? {
                let entry = entry.map_err(|errno| io(errno.into()))?;
                let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
                if entry.file_type() == FileType::RegularFile {
                    names.push(name);
                }
            }
            names.sort();
            let mut all = Vec::new();
            for name in names {
                all.extend(texts(root, &path.join(name))?);
            }
            Ok(all)
        }
        _ => Ok(Vec::new()),
    }
}
