//! What a RUN mounts: the context's and other stages' files, caches, secrets, agents.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cata_build::metadata::{Mount, MountKind};
use cata_build::stage::{CopySource, CopyStep};
use cata_sys::path::Root;
use rustix::fs::{FileType, OFlags};

use super::agent::Forward;
use super::cache::Making;
use super::solve::Solver;
use super::sources::{self, Place};
use super::{BuildError, copy};
use crate::container::names;
use crate::error::Kind;
use crate::request::{Isolation, MountRequest, MountSource};

/// Mode and owner.
#[derive(Clone, Copy)]
struct Rights {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What must live as long as the container: locks of caches, and what is removed after it.
#[derive(Default)]
pub(super) struct Kept {
    _locks: Vec<File>,
    secrets: Option<PathBuf>,
    pub(super) env: Vec<String>,
    agents: Vec<Forward>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.agents.clear();
        if let Some(secrets) = &self.secrets {
            let _ = fs::remove_dir_all(secrets);
        }
    }
}

impl Solver<'_> {
    /// One mount as the container's request has it; `None`: there is nothing to mount.
    pub(super) fn mount(
        &self,
        mount: &Mount,
        place: Option<&(Place, CopyStep)>,
        at: usize,
        making: &Making,
        kept: &mut Kept,
    ) -> Result<Vec<MountRequest>, BuildError> {
        match &mount.kind {
            MountKind::Bind { .. } => {
                let Some((place, step)) = place else { return Ok(Vec::new()) };
                let path = self.shown(place, step, mount.read_only, &making.extra(&format!("bind-{at}"))?)?;
                Ok(vec![bind(&path, &mount.target, mount.read_only)])
            }
            MountKind::Cache { id, sharing, mode, uid, gid, .. } => {
                let rights = Rights { mode: *mode, uid: *uid, gid: *gid };
                // Made aside, and renamed when it is whole: a build that is killed leaves no half of it.
                let new = making.extra(&format!("cache-{at}"))?;
                let (path, lock) = self.cache.cache_mount(&self.request.cache_id(id), *sharing, |data| {
                    self.fill_cache(data, place, rights, &new)
                })?;
                kept._locks.extend(lock);
                Ok(vec![bind(&path, &mount.target, mount.read_only)])
            }
            MountKind::Tmpfs { size } => {
                let source =
                    MountSource::Tmpfs { size: *size, mode: Some(0o1777), options: vec!["exec".to_owned()] };
                Ok(vec![MountRequest { source, target: mount.target.clone(), read_only: false }])
            }
            MountKind::Secret { id, required, mode, uid, gid, env } => {
                let Some(secret) = self.request.secrets.get(id) else {
                    return if *required {
                        Err(BuildError::new(Kind::InvalidArgument, format!("secret {id}: not found"))
                            .hint(Some(format!("--secret id={id},src=FILE, or id={id},env=NAME"))))
                    } else {
                        Ok(Vec::new())
                    };
                };
                if let Some(env) = env {
                    let value = String::from_utf8(secret.0.clone()).map_err(|_| {
                        BuildError::new(
                            Kind::InvalidArgument,
                            format!("secret {id} is no text and cannot be a variable"),
                        )
                    })?;
                    kept.env.push(format!("{env}={value}"));
                }
                if mount.target.is_empty() {
                    return Ok(Vec::new());
                }
                let path =
                    self.secret_file(id, &secret.0, Rights { mode: *mode, uid: *uid, gid: *gid }, at, kept)?;
                Ok(vec![bind(&path, &mount.target, true)])
            }
            MountKind::Ssh { id, .. } if self.request.isolation == Isolation::Vm => Err(BuildError::new(
                Kind::Unsupported,
                format!("RUN --mount=type=ssh,id={id} is not possible with --isolation vm"),
            )
            .hint(Some("a socket does not lead from the machine's kernel to the host's".to_owned()))),
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let Some(socket) = self.request.ssh.get(id) else {
                    return if *required {
                        Err(BuildError::new(Kind::InvalidArgument, format!("unset ssh forward key {id}"))
                            .hint(Some("--ssh default, with an agent running".to_owned())))
                    } else {
                        Ok(Vec::new())
                    };
                };
                let target = if mount.target.is_empty() {
                    format!("/run/buildkit/ssh_agent.{at}")
                } else {
                    mount.target.clone()
                };
                kept.env.push(format!("SSH_AUTH_SOCK={target}"));
                let path = self.secrets_directory(kept)?.join(format!("agent-{at}"));
                kept.agents.push(Forward::new(path.clone(), socket, (*uid, *gid, *mode))?);
                Ok(vec![bind(&path, &target, false)])
            }
        }
    }

    /// On a tmpfs, nobody else's, and removed after the step.
    fn secrets_directory(&self, kept: &mut Kept) -> Result<PathBuf, BuildError> {
        use std::os::unix::fs::DirBuilderExt as _;
        if let Some(dir) = &kept.secrets {
            return Ok(dir.clone());
        }
        let dir = self.engine.paths.state.join("build").join(names::random_id().short());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| BuildError::io("make", &dir, e))?;
        kept.secrets = Some(dir.clone());
        Ok(dir)
    }

    /// Readable by nobody else.
    fn secret_file(
        &self,
        id: &str,
        secret: &[u8],
        rights: Rights,
        at: usize,
        kept: &mut Kept,
    ) -> Result<PathBuf, BuildError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.secrets_directory(kept)?.join(format!("secret-{at}"));
        let io = |e: std::io::Error| {
            BuildError::io("keep the secret in", &path, e).hint(Some(format!("secret {id}")))
        };
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(io)?;
        file.write_all(secret).map_err(io)?;
        std::os::unix::fs::fchown(&file, Some(rights.uid), Some(rights.gid)).map_err(io)?;
        file.set_permissions(fs::Permissions::from_mode(rights.mode)).map_err(io)?;
        Ok(path)
    }

    fn fill_cache(
        &self,
        data: &Path,
        place: Option<&(Place, CopyStep)>,
        rights: Rights,
        new: &Path,
    ) -> Result<(), BuildError> {
        if let Some((place, step)) = place {
            self.copied(place, step, new)?;
        }
        let io = |e: std::io::Error| BuildError::io("make", new, e);
        std::os::unix::fs::chown(new, Some(rights.uid), Some(rights.gid)).map_err(io)?;
        fs::set_permissions(new, fs::Permissions::from_mode(rights.mode)).map_err(io)?;
        match fs::rename(new, data) {
            Err(e) if !data.is_dir() => Err(io(e)),
            _ => Ok(()),
        }
    }

    /// A path of this host that shows what the mount shows: the thing itself if that is the same, or a copy.
    fn shown(
        &self,
        place: &Place,
        step: &CopyStep,
        read_only: bool,
        copy_to: &Path,
    ) -> Result<PathBuf, BuildError> {
        let path = match step.sources.as_slice() {
            [CopySource::Path(path)] => path.as_str(),
            _ => "",
        };
        if read_only
            && let Place::Local(local) = place
            && local.ignore.is_empty()
        {
            let root = Root::open_trusted(&local.path).map_err(|e| BuildError::io("open", &local.path, e))?;
            let below = if path.is_empty() { "." } else { path };
            if let Ok(fd) = root.open(Path::new(below), OFlags::PATH) {
                return Ok(copy::own_path(fd.as_fd()));
            }
        }
        if read_only
            && let Place::Tree(snapshot) = place
            && let [one] = self.paths(snapshot)?.as_slice()
        {
            let root = Root::open_trusted(one).map_err(|e| BuildError::io("open", one, e))?;
            let below = if path.is_empty() { "." } else { path };
            if let Ok(fd) = root.open(Path::new(below), OFlags::PATH) {
                return Ok(copy::own_path(fd.as_fd()));
            }
        }
        self.copied(place, step, copy_to)
    }

    /// A copy of what a place shows, in `to`; the path of it.
    fn copied(&self, place: &Place, step: &CopyStep, to: &Path) -> Result<PathBuf, BuildError> {
        let threads = usize::try_from(self.engine.host.cpus).unwrap_or(1);
        let found = sources::find(place, step, self.known(), |snapshot| self.paths(snapshot), threads)?;
        let root = Root::open_trusted(to).map_err(|errno| BuildError::io("open", to, errno))?;
        let target = copy::Target {
            root: &root,
            destination: "/",
            into_directory: true,
            owner: None,
            keep_owner: matches!(place, Place::Tree(_)),
            chmod: None,
            parents: false,
            unpack: false,
            threads,
            known: None,
            upper: None,
        };
        copy::copy(&found.selection, &target)?;
        let single = found.selection.roots.first().filter(|root| {
            root.entries
                .first()
                .is_some_and(|e| FileType::from_raw_mode(e.stat.st_mode) != FileType::Directory)
        });
        Ok(match single {
            Some(root) => to.join(String::from_utf8_lossy(&root.name).as_ref()),
            None => to.to_owned(),
        })
    }
}

pub(super) fn bind(path: &Path, target: &str, read_only: bool) -> MountRequest {
    let source =
        MountSource::Bind { path: path.to_owned(), create: false, propagation: None, recursive: false };
    MountRequest { source, target: target.to_owned(), read_only }
}
