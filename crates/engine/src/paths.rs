//! Where everything lives: the two roots and the names beneath them.

use std::path::{Path, PathBuf};

use cata_spec::{ContainerId, Name};

/// The durable root, the live-state root and the configuration file of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Durable: images, layers, records, volumes. Default `/var/lib/catamaran`.
    pub root: PathBuf,
    /// Live, on tmpfs, gone after a reboot. Default `/run/catamaran`.
    pub state: PathBuf,
    /// `config.toml`. Default `/etc/catamaran/config.toml`; may be absent.
    pub config: PathBuf,
    /// The supervisor's program; `None`: beside the running executable.
    pub supervisor: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/var/lib/catamaran"),
            state: PathBuf::from("/run/catamaran"),
            config: PathBuf::from("/etc/catamaran/config.toml"),
            supervisor: None,
        }
    }
}

impl Paths {
    /// `<root>/containers/`.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// `<root>/containers/<id>/`.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// `<root>/creating/`: containers that are being made. Their maker holds a lock on them; a rename into
    /// `containers/` finishes them.
    #[must_use]
    pub fn creating(&self) -> PathBuf {
        self.root.join("creating")
    }

    /// `<root>/names/`.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// `<root>/names/<name>`: a symbolic link whose text is the container's id.
    #[must_use]
    pub fn name(&self, name: &Name) -> PathBuf {
        self.names().join(name.as_str())
    }

    /// `<root>/volumes/`.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// `<root>/volumes/<name>/`.
    #[must_use]
    pub fn volume(&self, name: &Name) -> PathBuf {
        self.volumes().join(name.as_str())
    }

    /// `<root>/users/`: ranges of ids that containers have, each a symbolic link whose text is the container's id.
    #[must_use]
    pub fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    /// `<root>/build/`: what builds keep.
    #[must_use]
    pub fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// `<root>/removed/`: trees on their way out. Renaming into it takes a thing out of every listing at
    /// once; the tree itself may go later.
    #[must_use]
    pub fn removed(&self) -> PathBuf {
        self.root.join("removed")
    }

    /// `<state>/<id>/`.
    #[must_use]
    pub fn live(&self, id: &ContainerId) -> PathBuf {
        self.state.join(id.as_str())
    }
}

/// The files inside one container's directory.
#[derive(Debug, Clone)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    /// Names the files of `dir`, which is `<root>/containers/<id>/`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was asked and decided.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// The disk of a machine.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// The writable layer.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// Overlay's scratch directory.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The OCI document, for hooks of devices, which know a container by the directory that this is in.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// `/etc/hosts` inside.
    #[must_use]
    pub fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// `/etc/resolv.conf` inside.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// `/etc/passwd` inside, where the image's is not enough.
    #[must_use]
    pub fn passwd(&self) -> PathBuf {
        self.0.join("passwd")
    }

    /// `/etc/group` inside, where the image's is not enough.
    #[must_use]
    pub fn group(&self) -> PathBuf {
        self.0.join("group")
    }

    /// `/etc/hostname` inside.
    #[must_use]
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }
}
