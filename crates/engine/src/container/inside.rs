//! A container's file system from outside, as its processes see it: the root of a running one, or one put
//! together for as long as it is looked at.
//!
//! Whatever the container has made of its files, paths are resolved beneath the root's descriptor only.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use cata_image::tree::{OwnerRange, Owners};
use cata_runtime::plan::{IdMapping, Root as PlannedRoot};
use cata_sandbox::launch::Isolation;
use cata_sys::mount::{self, Depth, attribute};
use cata_sys::path::{Make, Root};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::paths::ContainerDir;
use crate::plan::users::Users;
use crate::record::{MountKind, Record};
use crate::volume;

/// Links followed to the end of a path, as in the kernel.
const LINKS_MAX: usize = 40;

/// One thing in a container: the directory it is in, its name there, what it is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
    pub(crate) stat: Stat,
    /// Where it is after links were followed.
    pub(crate) path: PathBuf,
}

impl Engine {
    /// Does something with a container's root. A container that does not run cannot be started meanwhile.
    pub(crate) fn with_root<T: Send>(
        &self,
        record: &Record,
        act: impl FnOnce(&Root) -> Result<T> + Send,
    ) -> Result<T> {
        self.with_root_of(record, |root, _| act(root))
    }

    /// As [`Engine::with_root`], told whose the files are: to a container that runs with users of its own they
    /// belong to those.
    pub(crate) fn with_root_of<T: Send>(
        &self,
        record: &Record,
        act: impl FnOnce(&Root, &Owners) -> Result<T> + Send,
    ) -> Result<T> {
        if let Some(root) = self.live_root(record)? {
            return as_its_root(record, &root, act);
        }
        let _lock = self.lock(&record.id)?;
        if let Some(root) = self.live_root(record)? {
            return as_its_root(record, &root, act);
        }
        self.with_resting_root(record, &self.dir(&record.id), record.request.read_only, act)
    }

    /// The root of a container that does not run, or is just being made in `dir`.
    pub(crate) fn with_resting_root<T: Send>(
        &self,
        record: &Record,
        dir: &ContainerDir,
        read_only: bool,
        act: impl FnOnce(&Root, &Owners) -> Result<T> + Send,
    ) -> Result<T> {
        // A mount namespace of its own, which ends with the thread: nothing to take down, whoever dies.
        on_a_thread(|| match record.users.as_ref().filter(|users| users.on_disk) {
            Some(users) => {
                become_root(record, users)?;
                act(&self.assemble(record, dir, read_only)?, &owners(users))
            }
            None => act(&self.assemble(record, dir, read_only)?, &Owners::default()),
        })
    }

    /// The root of a running container, volumes and all.
    fn live_root(&self, record: &Record) -> Result<Option<Root>> {
        let (status, owner) = self.status(&record.id)?;
        // A machine's tree is put together anew, of what its file server shows.
        if owner != Owner::Alive || status.pid == 0 || record.request.isolation == Isolation::Vm {
            return Ok(None);
        }
        let path = PathBuf::from(format!("/proc/{}/root", status.pid));
        let root = match Root::open_trusted(&path) {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(None),
            // Its user namespace is not this command's: it was started by an earlier version, or by another user.
            Err(Errno::ACCESS) if self.host.rootless => {
                return Err(Error::Unsupported {
                    what: "the files of a running container cannot be reached without privileges".to_owned(),
                    hint: "use exec, or stop it first".to_owned(),
                });
            }
            Err(errno) => return Err(Error::file("open", path)(errno)),
        };
        // The number may have become another's: it has not if the container still says it is its own.
        let (again, owner) = self.status(&record.id)?;
        Ok((owner == Owner::Alive && again.pid == status.pid).then_some(root))
    }

    /// The root file system and the volumes of a container that does not run, in the calling thread's own new
    /// mount namespace.
    fn assemble(&self, record: &Record, dir: &ContainerDir, read_only: bool) -> Result<Root> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno: Errno| {
                let text = std::io::Error::from(errno);
                Error::Runtime(Foreign::new(
                    Kind::Internal,
                    None,
                    &std::io::Error::other(format!("{what}: {text}")),
                ))
            }
        };
        cata_sys::namespace::unshare(UnshareFlags::NEWNS).map_err(failed("make a mount namespace"))?;
        let slash = Path::new("/");
        mount::set_propagation(slash, attribute::PRIVATE, Depth::Recursive).map_err(failed("mount"))?;
        let tree = match self.machine_root(record)? {
            Some(tree) => tree,
            None => cata_runtime::companion::root_tree(&PlannedRoot::Overlay {
                lower: record.image.layers.clone(),
                upper: Some(dir.upper()),
                work: Some(dir.work()),
                options: Vec::new(),
                as_on_disk: true,
            })
            .map_err(|text| {
                Error::Runtime(Foreign::new(Kind::Internal, None, &std::io::Error::other(text)))
            })?,
        };
        let host = Root::open_trusted(slash).map_err(failed("open /"))?;
        mount::attach(fd(&tree), fd(&host)).map_err(failed("mount the root file system"))?;
        let root = Root::new(tree);
        for point in record.mounts.iter().filter(|point| !matches!(point.kind, MountKind::Tmpfs)) {
            let source = match &point.kind {
                MountKind::Volume { name, .. } => {
                    let files = volume::files(&self.paths, name);
                    let rest = point.source.strip_prefix(&files).unwrap_or(Path::new("."));
                    mount::clone_beneath(&files, rest, Depth::Recursive)
                }
                _ => mount::clone_path(&point.source, Depth::Recursive),
            };
            let source = source.map_err(Error::file("mount", &point.source))?;
            let stat = rustix::fs::fstat(&source).map_err(Error::file("look at", &point.source))?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let kind = if directory { Make::Directory } else { Make::File };
            let target = root.make(Path::new(&point.target), kind, 0o755).map_err(failed(&point.target))?;
            mount::attach(fd(&source), fd(&target)).map_err(failed(&point.target))?;
            if point.read_only {
                mount::set_attributes(fd(&source), Depth::Recursive, attribute::RDONLY, 0, 0)
                    .map_err(failed(&point.target))?;
            }
        }
        if read_only {
            mount::set_attributes(fd(&root), Depth::This, attribute::RDONLY, 0, 0)
                .map_err(failed("read-only"))?;
        }
        Ok(root)
    }
}

/// What is made in a container with users of its own is made by its root, on a thread that is thrown away.
fn as_its_root<T: Send>(
    record: &Record,
    root: &Root,
    act: impl FnOnce(&Root, &Owners) -> Result<T> + Send,
) -> Result<T> {
    let Some(users) = &record.users else { return act(root, &Owners::default()) };
    on_a_thread(|| {
        become_root(record, users)?;
        act(root, &owners(users))
    })
}

/// The calling thread.
fn become_root(record: &Record, users: &Users) -> Result<()> {
    let (uid, gid) = users.root().unwrap_or_default();
    cata_sys::capability::act_as(uid, gid).map_err(Error::file("become root of", record.id.as_str()))
}

/// Whose files of a running container are.
pub(crate) fn owners(users: &Users) -> Owners {
    let range = |m: &IdMapping| OwnerRange { inside: m.container, outside: m.host, count: m.size };
    Owners { uids: users.uids.iter().map(range).collect(), gids: users.gids.iter().map(range).collect() }
}

pub(crate) fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(act).join().unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        })
    })
}

fn fd(of: &impl std::os::fd::AsFd) -> std::os::fd::BorrowedFd<'_> {
    of.as_fd()
}

/// What is at `path`; `None` when nothing is. With `follow`, or when the path ends as a directory's does, a
/// link at its end is followed.
pub(crate) fn look(root: &Root, path: &Path, follow: bool) -> std::result::Result<Option<Place>, Errno> {
    let text = path.as_os_str().as_encoded_bytes();
    let follow = follow || text.ends_with(b"/") || text.ends_with(b"/.");
    let mut path = Path::new("/").join(path);
    for _ in 0..LINKS_MAX {
        let (parent, name) = match path.components().next_back() {
            Some(Component::Normal(name)) => {
                (path.parent().unwrap_or(Path::new("/")).to_owned(), name.to_owned())
            }
            _ => (path.clone(), OsString::from(".")),
        };
        let parent_fd = match root.open(&parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened?,
        };
        let stat = match rustix::fs::statat(&parent_fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat?,
        };
        if !(follow && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
            return Ok(Some(Place { parent: parent_fd, name, stat, path }));
        }
        let target = rustix::fs::readlinkat(&parent_fd, &name, Vec::new())?;
        path = parent.join(OsString::from_vec(target.into_bytes()));
    }
    Err(Errno::LOOP)
}

impl Place {
    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}
