//! PURE: what a container sees beyond its root file system.

use std::path::{Component, Path, PathBuf};

use cata_spec::Name;

use crate::error::Error;
use crate::record::{MountKind, MountPoint};
use crate::request::{MountRequest, MountSource};

/// Lays the request's mounts over those `lent` by other containers, these over the image's volumes, names anonymous volumes, sorts parents before children.
///
/// `new_name` makes names for anonymous volumes. `volume_data` tells where a volume's files are.
///
/// # Errors
/// [`Error::Invalid`] for a relative or repeated target, or one that is the root.
pub fn plan(
    requests: &[MountRequest],
    lent: Vec<MountPoint>,
    image_volumes: &[String],
    mut new_name: impl FnMut() -> Name,
    volume_data: impl Fn(&Name) -> PathBuf,
) -> Result<Vec<MountPoint>, Error> {
    let mut points: Vec<MountPoint> = Vec::with_capacity(requests.len() + image_volumes.len());
    for request in requests {
        let target = clean_target(&request.target)?;
        if points.iter().any(|point| point.target == target) {
            return Err(Error::Invalid(format!("Duplicate mount point: {target}")));
        }
        points.push(point(request, target, &mut new_name, &volume_data)?);
    }
    // Of two containers' mounts at one place the later one's stays, as with Docker.
    for one in lent.into_iter().rev() {
        if points.iter().all(|point| point.target != one.target) {
            points.push(one);
        }
    }
    for volume in image_volumes {
        let target = clean_target(volume)?;
        if points.iter().any(|point| point.target == target) {
            continue;
        }
        let name = new_name();
        points.push(MountPoint {
            source: volume_data(&name),
            kind: MountKind::Volume { name, anonymous: true, copy: true },
            target,
            read_only: false,
            options: Vec::new(),
            recursive: true,
        });
    }
    points.sort_by_key(|point| Path::new(&point.target).components().count());
    Ok(points)
}

fn point(
    request: &MountRequest,
    target: String,
    new_name: &mut impl FnMut() -> Name,
    volume_data: &impl Fn(&Name) -> PathBuf,
) -> Result<MountPoint, Error> {
    let (kind, source, options, recursive) = match &request.source {
        MountSource::Bind { path, create, propagation, recursive } => {
            if !path.is_absolute() {
                return Err(Error::Invalid(format!(
                    "invalid mount: source `{}` must be an absolute path",
                    path.display()
                )));
            }
            let options = vec![propagation.clone().unwrap_or_else(|| "rprivate".to_owned())];
            (MountKind::Bind { create: *create }, path.clone(), options, *recursive)
        }
        MountSource::Volume { name, subpath, no_copy } => {
            let anonymous = name.is_none();
            let name = name.clone().unwrap_or_else(&mut *new_name);
            let mut source = volume_data(&name);
            if let Some(subpath) = subpath {
                source.push(clean_subpath(subpath)?);
            }
            let copy = !no_copy && subpath.is_none();
            (MountKind::Volume { name, anonymous, copy }, source, Vec::new(), true)
        }
        MountSource::Tmpfs { size, mode, options } => {
            let mut all: Vec<String> = ["nosuid", "nodev"].map(str::to_owned).to_vec();
            if !options.iter().any(|o| o == "exec") {
                all.push("noexec".to_owned());
            }
            if let Some(size) = size {
                all.push(format!("size={size}"));
            }
            if let Some(mode) = mode {
                all.push(format!("mode={mode:o}"));
            }
            all.extend(options.iter().cloned());
            (MountKind::Tmpfs, PathBuf::new(), all, false)
        }
    };
    Ok(MountPoint { kind, source, target, read_only: request.read_only, options, recursive })
}

/// What a container with `mounts` lends to others: its volumes and binds as they are, filled already.
pub fn lent(mounts: Vec<MountPoint>, read_only: bool) -> impl Iterator<Item = MountPoint> {
    mounts.into_iter().filter_map(move |mount| {
        let kind = match mount.kind {
            MountKind::Volume { name, anonymous, .. } => MountKind::Volume { name, anonymous, copy: false },
            MountKind::Bind { .. } => MountKind::Bind { create: false },
            MountKind::Tmpfs => return None,
        };
        Some(MountPoint { kind, read_only: mount.read_only || read_only, ..mount })
    })
}

/// An absolute path without `.`, `..` and doubled slashes.
fn clean_target(target: &str) -> Result<String, Error> {
    let invalid = |why: &str| Err(Error::Invalid(format!("invalid mount target `{target}`: {why}")));
    if !target.starts_with('/') {
        return invalid("must be an absolute path");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part if part.contains('\0') => return invalid("contains a zero byte"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return invalid("destination can't be '/'");
    }
    Ok(format!("/{}", parts.join("/")))
}

fn clean_subpath(subpath: &str) -> Result<&Path, Error> {
    let path = Path::new(subpath);
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(path)
    } else {
        Err(Error::Invalid(format!("volume-subpath `{subpath}` must be a relative path without `..`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(requests: &[MountRequest], volumes: &[&str]) -> Result<Vec<MountPoint>, Error> {
        let volumes: Vec<String> = volumes.iter().map(|&v| v.to_owned()).collect();
        let mut count = 0;
        let new_name = || {
            count += 1;
            Name::parse(&format!("anon{count}")).unwrap()
        };
        plan(requests, Vec::new(), &volumes, new_name, |name| PathBuf::from(format!("/v/{name}/_data")))
    }

    fn volume(name: Option<&str>, target: &str) -> MountRequest {
        MountRequest {
            source: MountSource::Volume {
                name: name.map(|n| Name::parse(n).unwrap()),
                subpath: None,
                no_copy: false,
            },
            target: target.to_owned(),
            read_only: false,
        }
    }

    #[test]
    fn a_named_volume_replaces_the_images_anonymous_one() {
        let points = run(&[volume(Some("pgdata"), "/var/lib/pg/")], &["/var/lib/pg", "/other"]).unwrap();
        let seen: Vec<_> = points.iter().map(|p| (p.target.as_str(), p.source.to_str().unwrap())).collect();
        assert_eq!(seen, [("/other", "/v/anon1/_data"), ("/var/lib/pg", "/v/pgdata/_data")]);
    }

    #[test]
    fn parents_come_before_children() {
        let points = run(&[volume(None, "/a/b/c"), volume(None, "/a")], &[]).unwrap();
        assert_eq!(points[0].target, "/a");
    }

    #[test]
    fn bad_targets_are_named() {
        for bad in ["relative", "/", "/a/..", ""] {
            let text = run(&[volume(None, bad)], &[]).unwrap_err().to_string();
            assert!(text.contains(&format!("`{bad}`")), "{text}");
        }
        let twice = [volume(None, "/a"), volume(Some("vv"), "/a/.")];
        assert_eq!(run(&twice, &[]).unwrap_err().to_string(), "Duplicate mount point: /a");
    }
}
