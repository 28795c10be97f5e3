//! The container's tree, put together in this process' own mount namespace and served by `virtiofsd`.
//!
//! ```text
//! <stage>/tree/root          the container's root: its overlay
//! <stage>/tree/mounts/<n>    shares, by number
//! <stage>/socket             where virtiofsd listens; gone as soon as it is connected to
//! ```

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use cata_guest::order::{Order, Share};
use cata_guest::protocol::{DECK_MOUNTS, DECK_ROOT};
use cata_runtime::companion;
use cata_sys::mount::{self, Depth, Filesystem, attribute};
use rustix::fs::{FileType, Mode, OFlags, open};
use rustix::io::Errno;

use crate::Refusal;
use crate::child::{self, Child, number};

/// Where Debian and others have it.
const PROGRAMS: [(&str, bool); 4] = [
    ("/usr/lib/qemu/virtiofsd", true),
    ("/usr/libexec/virtiofsd", false),
    ("/usr/lib/virtiofsd", false),
    ("/usr/bin/virtiofsd", false),
];

/// A file server that runs.
pub(crate) struct Served {
    /// Connected.
    pub(crate) socket: OwnedFd,
    pub(crate) server: Child,
}

/// Mounts everything and starts the server. `stderr` takes its complaints.
pub(crate) fn serve(order: &Order, stderr: &OwnedFd) -> Result<Served, Refusal> {
    let (program, old) = find()?;
    companion::hide_mounts().map_err(Refusal::at("hide the container's mounts from the host"))?;
    let tree = put_together(order)?;
    let at = order.stage.join("socket");
    let listener = UnixListener::bind(&at).map_err(Refusal::at("listen for the file server"))?;
    let fd = number(&listener);
    let source = tree.display();
    let arguments: Vec<String> = if old {
        let options = format!("source={source},cache=auto,xattr,announce_submounts,sandbox=chroot,flock");
        vec![format!("--fd={fd}"), "-o".to_owned(), options, "--thread-pool-size=0".to_owned()]
    } else {
        let words = ["--cache=auto", "--xattr", "--announce-submounts", "--sandbox=chroot"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.extend([format!("--fd={fd}"), format!("--shared-dir={source}")]);
        words
    };
    let started = child::start(&child::Order {
        program: &program,
        arguments: &arguments,
        descriptors: &[listener.as_fd()],
        stderr: stderr.as_fd(),
        uid: None,
    });
    let server = started.map_err(Refusal::at(format_args!("start {}", program.display())))?;
    // It is queued at once, whenever the server comes to take it.
    let socket = UnixStream::connect(&at).map_err(Refusal::at("reach the file server"))?;
    let _ = fs::remove_file(at);
    Ok(Served { socket: socket.into(), server })
}

fn find() -> Result<(PathBuf, bool), Refusal> {
    let found = PROGRAMS.iter().find(|(path, _)| Path::new(path).exists());
    found.map(|(path, old)| (PathBuf::from(path), *old)).ok_or_else(|| {
        let hint = "install Debian's package virtiofsd (Debian 12: qemu-system-common)";
        Refusal::with_hint("virtiofsd is not installed: it serves the container's files to the machine", hint)
    })
}

/// The tree to be served.
fn put_together(order: &Order) -> Result<PathBuf, Refusal> {
    let stage = &order.stage;
    fs::create_dir_all(stage).map_err(Refusal::at(format_args!("make {}", stage.display())))?;
    let tmpfs = || -> Result<OwnedFd, Errno> {
        let tmpfs = Filesystem::open("tmpfs")?;
        tmpfs.set("mode", b"711")?;
        tmpfs.set("size", b"1m")?;
        tmpfs.mount(attribute::NODEV | attribute::NOSUID)
    };
    attach(&tmpfs().map_err(Refusal::at("make a tmpfs"))?, stage)?;
    let tree = stage.join("tree");
    let (root, mounts) = (tree.join(DECK_ROOT), tree.join(DECK_MOUNTS));
    for dir in [&tree, &root, &mounts] {
        fs::create_dir(dir).map_err(Refusal::at(format_args!("make {}", dir.display())))?;
    }
    let overlay = companion::root_tree(&order.root).map_err(Refusal::new)?;
    attach(&overlay, &root)?;
    for (at, share) in order.shares.iter().enumerate() {
        place(share, &mounts.join(at.to_string()))?;
    }
    // The file server has root's rights over files, which are to be no rights over the host: what the guest opens and
    // executes it does not open and execute here.
    let nothing = attribute::NODEV | attribute::NOSUID | attribute::NOEXEC;
    open(stage, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(|whole| mount::set_attributes(whole.as_fd(), Depth::Recursive, nothing, 0, 0))
        .map_err(Refusal::at("take devices and programs from the shared files"))?;
    Ok(tree)
}

fn place(share: &Share, at: &Path) -> Result<(), Refusal> {
    let source = share.source.display();
    let depth = if share.recursive { Depth::Recursive } else { Depth::This };
    let tree = match &share.beneath {
        None => mount::clone_path(&share.source, depth),
        Some(directory) => match share.source.strip_prefix(directory) {
            Ok(rest) => mount::clone_beneath(directory, rest, depth),
            Err(_) => Err(Errno::INVAL),
        },
    };
    let tree = tree.map_err(Refusal::at(format_args!("share {source} with the machine")))?;
    mount::set_attributes(tree.as_fd(), Depth::Recursive, 0, 0, attribute::PRIVATE)
        .map_err(Refusal::at(format_args!("share {source} with the machine")))?;
    if share.read_only {
        mount::set_attributes(tree.as_fd(), Depth::Recursive, attribute::RDONLY, 0, 0)
            .map_err(Refusal::at(format_args!("share {source} read-only")))?;
    }
    let stat = rustix::fs::fstat(&tree).map_err(Refusal::at(format_args!("look at {source}")))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let made = if directory { fs::create_dir(at) } else { fs::write(at, "") };
    made.map_err(Refusal::at(format_args!("make {}", at.display())))?;
    attach(&tree, at)
}

fn attach(tree: &OwnedFd, at: &Path) -> Result<(), Refusal> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    open(at, flags, Mode::empty())
        .and_then(|target| mount::attach(tree.as_fd(), target.as_fd()))
        .map_err(Refusal::at(format_args!("mount on {}", at.display())))
}
