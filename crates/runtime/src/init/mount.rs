//! The container's mounts: each made as a detached tree, then attached to a target found beneath the root.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::mount::{Depth, Filesystem, attribute};
use cata_sys::path::Make;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::tree::Tree;
use crate::error::Stage;
use crate::handshake::{Channel, Failure};
use crate::plan::{Mount, MountKind, Plan, Propagation};

/// Detached copies of the host's trees, one for each mount that is a bind.
pub(super) fn sources(
    mounts: &[Mount],
    mut prepared: Vec<Option<OwnedFd>>,
) -> Result<Vec<Option<OwnedFd>>, Failure> {
    prepared.resize_with(mounts.len(), || None);
    mounts
        .iter()
        .zip(prepared)
        .map(|(mount, prepared)| {
            let MountKind::Bind(bind) = &mount.kind else { return Ok(None) };
            if prepared.is_some() {
                return Ok(prepared);
            }
            let depth = if bind.recursive { Depth::Recursive } else { Depth::This };
            let tree = match &bind.namespace {
                Some(namespace) => clone_elsewhere(namespace, &bind.source, depth),
                None => bind.tree(),
            };
            tree.map(Some).map_err(Failure::at(Stage::MountSource, bind.source.display()))
        })
        .collect()
}

/// A tree of another mount namespace. The kernel copies mounts only for who is where they are: go there, and
/// come back.
fn clone_elsewhere(namespace: &Path, source: &Path, depth: Depth) -> Result<OwnedFd, Errno> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let enter = |namespace: &OwnedFd| {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
    };
    let own = open(Path::new("/proc/self/ns/mnt"))?;
    enter(&open(namespace)?)?;
    let tree = cata_sys::mount::clone_path(source, depth);
    enter(&own)?;
    tree
}

/// All of them, in order.
pub(super) fn all(
    root: &mut Tree,
    plan: &Plan,
    sources: Vec<Option<OwnedFd>>,
    channel: &Channel,
) -> Result<(), Failure> {
    let label = label(plan, channel)?;
    for (mount, source) in plan.mounts.iter().zip(sources) {
        match (&mount.kind, source) {
            (MountKind::Bind(_), Some(tree)) => {
                bind(root, mount, tree.as_fd())?;
                root.covered(&mount.target);
            }
            (MountKind::Filesystem { fstype, source, options }, _) => {
                let tree = filesystem(mount, fstype, source, &labelled(fstype, options, label))?;
                if mount.copy_up {
                    let (beneath, rest) = root.place(&mount.target);
                    super::copy::up(beneath, rest, tree.as_fd())?;
                }
                attach(root, mount, tree.as_fd(), Make::Directory)?;
                root.mounted(&mount.target, tree);
            }
            (MountKind::Cgroup, _) => cgroup(root, mount, plan, channel)?,
            (MountKind::Remount, _) => remount(root, mount)?,
            (MountKind::Bind(_), None) => {
                return Err(Failure::at(Stage::MountSource, mount.target.display())(Errno::INVAL));
            }
        }
    }
    Ok(())
}

/// The SELinux context of file systems; a kernel without SELinux has none to give, and nothing to keep apart by it.
fn label<'a>(plan: &'a Plan, channel: &Channel) -> Result<Option<&'a str>, Failure> {
    let Some(label) = &plan.mount_label else { return Ok(None) };
    if super::label::has_selinux() {
        return Ok(Some(label));
    }
    super::withhold(channel, format!("mount label {label}: this kernel runs without SELinux"))?;
    Ok(None)
}

/// With the context that all files of a file system have. Those of the kernel's own have theirs from its policy.
fn labelled<'a>(
    fstype: &str,
    options: &'a [(String, Option<String>)],
    label: Option<&str>,
) -> Cow<'a, [(String, Option<String>)]> {
    match label {
        Some(label) if !matches!(fstype, "proc" | "sysfs" | "mqueue") => {
            let context = ("context".to_owned(), Some(label.to_owned()));
            Cow::Owned(options.iter().cloned().chain([context]).collect())
        }
        _ => Cow::Borrowed(options),
    }
}

fn bind(root: &Tree, mount: &Mount, tree: BorrowedFd<'_>) -> Result<(), Failure> {
    // The kernel lists mounts in the order in which they were copied: this one's turn is now. Before Linux 6.15
    // nothing detached can be copied, and nothing depends on it.
    let again = cata_sys::mount::clone_fd(tree, Depth::Recursive);
    let tree = again.as_ref().map_or(tree, AsFd::as_fd);
    let subject = mount.target.display();
    let attributes = Failure::at(Stage::MountAttributes, &subject);
    if mount.set | mount.clear != 0 {
        cata_sys::mount::set_attributes(tree, Depth::This, mount.set, mount.clear, 0).map_err(attributes)?;
    }
    recursive_attributes(mount, tree)?;
    let propagation = mount.propagation.unwrap_or_default();
    cata_sys::mount::set_attributes(tree, Depth::Recursive, 0, 0, propagation.flag())
        .map_err(Failure::at(Stage::MountAttributes, &subject))?;
    let source = rustix::fs::fstat(tree).map_err(Failure::at(Stage::MountSource, &subject))?;
    let directory = FileType::from_raw_mode(source.st_mode) == FileType::Directory;
    attach(root, mount, tree, if directory { Make::Directory } else { Make::File })
}

/// Changes what is mounted at the target, or above it.
fn remount(root: &Tree, mount: &Mount) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::MountAttributes, mount.target.display());
    let (root, rest) = root.place(&mount.target);
    let place = root.open(rest, OFlags::PATH).map_err(failed())?;
    if mount.set | mount.clear != 0 {
        cata_sys::mount::set_attributes(place.as_fd(), Depth::This, mount.set, mount.clear, 0)
            .map_err(failed())?;
    }
    recursive_attributes(mount, place.as_fd())?;
    match mount.propagation {
        Some(propagation) => {
            cata_sys::mount::set_attributes(place.as_fd(), Depth::This, 0, 0, propagation.flag())
                .map_err(failed())
        }
        None => Ok(()),
    }
}

fn recursive_attributes(mount: &Mount, tree: BorrowedFd<'_>) -> Result<(), Failure> {
    if mount.set_recursive | mount.clear_recursive == 0 {
        return Ok(());
    }
    cata_sys::mount::set_attributes(tree, Depth::Recursive, mount.set_recursive, mount.clear_recursive, 0)
        .map_err(Failure::at(Stage::MountAttributes, mount.target.display()))
}

fn filesystem(
    mount: &Mount,
    fstype: &str,
    source: &str,
    options: &[(String, Option<String>)],
) -> Result<OwnedFd, Failure> {
    let subject = format!("{} ({fstype})", mount.target.display());
    let filesystem = Filesystem::open(fstype).map_err(Failure::at(Stage::Mount, &subject))?;
    let complain = |errno: Errno| Failure::System {
        stage: Stage::Mount,
        subject: subject.clone(),
        detail: filesystem.complaint(),
        errno: errno.raw_os_error(),
    };
    filesystem.set("source", source.as_bytes()).map_err(complain)?;
    for (key, value) in options {
        match value {
            Some(value) => filesystem.set(key, value.as_bytes()),
            // devpts is always a new instance, and its newer parser does not know the word.
            None if key == "newinstance" => Ok(()),
            None => filesystem.flag(key),
        }
        .map_err(complain)?;
    }
    let tree = filesystem.mount(mount.set | mount.set_recursive).map_err(complain)?;
    if let Some(propagation) = mount.propagation.filter(|p| *p != Propagation::Private) {
        cata_sys::mount::set_attributes(tree.as_fd(), Depth::This, 0, 0, propagation.flag())
            .map_err(Failure::at(Stage::MountAttributes, &subject))?;
    }
    Ok(tree)
}

/// Attaches at a target beneath the root, made when missing.
fn attach(root: &Tree, mount: &Mount, tree: BorrowedFd<'_>, make: Make) -> Result<(), Failure> {
    let path = mount.target.as_path();
    let subject = path.display();
    let mode = if make == Make::Directory { 0o755 } else { 0o644 };
    let kernels = match &mount.kind {
        MountKind::Filesystem { fstype, .. } if fstype == "proc" || fstype == "sysfs" => Some(fstype),
        _ => None,
    };
    let failed = |errno: Errno| {
        // runc's words, which others look for.
        let words = |fstype| format!("{fstype} must be mounted on ordinary directory, not on a link");
        let detail = kernels.filter(|_| errno == Errno::LOOP).map(words);
        Failure::System {
            stage: Stage::MountTarget,
            subject: subject.to_string(),
            detail,
            errno: errno.raw_os_error(),
        }
    };
    let target = root.target(path, make, mode).map_err(failed)?;
    if kernels.is_some() {
        // An image with a link for `/proc` would move what is masked below it (CVE-2019-19921).
        let (root, rest) = root.place(path);
        root.open_without_links(rest, OFlags::PATH).map_err(failed)?;
    }
    cata_sys::mount::attach(tree, target.as_fd()).map_err(Failure::at(Stage::Mount, &subject))
}

/// The container's own directories, as binds: the whole trees stay out of sight. Version 2 alone is one
/// mount; otherwise each hierarchy has a directory in a small tmpfs.
fn cgroup(root: &Tree, mount: &Mount, plan: &Plan, channel: &Channel) -> Result<(), Failure> {
    let directories = plan.cgroup.as_ref().map(|c| c.directories.as_slice()).unwrap_or_default();
    if let [only] = directories
        && only.unified
    {
        let tree = own_directory(mount, &only.full())?;
        return attach(root, mount, tree.as_fd(), Make::Directory);
    }
    if directories.is_empty() {
        super::withhold(
            channel,
            format!("{}: the container has no cgroup of its own", mount.target.display()),
        )?;
    }
    let options = [("mode".to_owned(), Some("755".to_owned()))];
    let tmpfs = Mount { set: mount.set & !attribute::RDONLY, ..mount.clone() };
    let base = filesystem(&tmpfs, "tmpfs", "cgroup", &options)?;
    attach(root, mount, base.as_fd(), Make::Directory)?;
    for directory in directories {
        let Some(name) = directory.mount.file_name() else { continue };
        let inside = mount.target.join(name);
        let tree = own_directory(mount, &directory.full())?;
        let place = root
            .target(&inside, Make::Directory, 0o755)
            .map_err(Failure::at(Stage::MountTarget, inside.display()))?;
        cata_sys::mount::attach(tree.as_fd(), place.as_fd())
            .map_err(Failure::at(Stage::Mount, inside.display()))?;
        // `cpu` for `cpu,cpuacct`.
        for alias in name.to_string_lossy().split(',').filter(|alias| **alias != *name) {
            let link = mount.target.join(alias);
            let (root, rest) = root.place(&link);
            root.make_link(rest, Path::new(name)).map_err(Failure::at(Stage::Link, link.display()))?;
        }
    }
    let readonly = mount.set & attribute::RDONLY;
    cata_sys::mount::set_attributes(base.as_fd(), Depth::This, readonly, 0, 0)
        .map_err(Failure::at(Stage::MountAttributes, mount.target.display()))
}

fn own_directory(mount: &Mount, source: &Path) -> Result<OwnedFd, Failure> {
    let tree = cata_sys::mount::clone_path(source, Depth::This)
        .map_err(Failure::at(Stage::MountSource, source.display()))?;
    cata_sys::mount::set_attributes(tree.as_fd(), Depth::This, mount.set, mount.clear, attribute::PRIVATE)
        .map_err(Failure::at(Stage::MountAttributes, mount.target.display()))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::labelled;

    #[test]
    fn labels_are_for_file_systems_of_the_containers_own() {
        let options = [("size".to_owned(), Some("1k".to_owned()))];
        for fstype in ["proc", "sysfs", "mqueue"] {
            assert_eq!(labelled(fstype, &options, Some("a:b:c:d")).len(), 1);
        }
        let with = labelled("tmpfs", &options, Some("a:b:c:d"));
        assert_eq!(with[1], ("context".to_owned(), Some("a:b:c:d".to_owned())));
        assert_eq!(labelled("tmpfs", &options, None).as_ref(), options);
    }
}
