//! The handle: where everything is, and the rooms below.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use cata_image::registry::login::Logins;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::paths::Paths;

/// The supervisor's program.
pub const SUPERVISOR: &str = "cata-supervisor";

/// One engine: a root, a state directory, and what the host is.
///
/// Opening sweeps what killed commands left, and waits for nobody. Any number of processes may have the
/// same engine open.
#[derive(Debug)]
pub struct Engine {
    pub(crate) paths: Paths,
    pub(crate) host: Host,
    pub(crate) images: cata_image::Store,
    pub(crate) networks: OnceLock<cata_network::Networks>,
    pub(crate) damage: Mutex<BTreeSet<Damage>>,
    pub(crate) logins: Logins,
}

/// Something whose record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Damage {
    /// What, and how that shows.
    pub(crate) what: String,
    /// The command that removes it.
    pub(crate) remedy: String,
}

impl Engine {
    /// Opens an engine, making its directories at first use.
    ///
    /// # Errors
    /// [`Error::Denied`] when not root; a directory that cannot be made.
    pub fn open(paths: Paths) -> Result<Self> {
        let host = Host::detect();
        if host.uid != 0 {
            return Err(Error::Denied("containers need root, or a user namespace".to_owned()));
        }
        // The names directory is made last: when it is there, all are.
        if !paths.names().is_dir() {
            let (containers, creating) = (paths.containers(), paths.creating());
            for dir in
                [paths.root.clone(), containers, creating, paths.volumes(), paths.removed(), paths.names()]
            {
                make_private(&dir)?;
            }
        }
        if !paths.state.is_dir() {
            make_private(&paths.state)?;
        }
        let images = cata_image::Store::open(&paths.root);
        let engine = Self {
            paths,
            host,
            images,
            networks: OnceLock::new(),
            damage: Mutex::default(),
            logins: Logins::default(),
        };
        // Whoever comes next removes what a killed command left. What cannot be removed now is no reason not
        // to go on.
        let _ = engine.sweep();
        Ok(engine)
    }

    /// The same engine, which shows registries these logins in place of those that are kept.
    #[must_use]
    pub fn with_logins(&self, logins: Logins) -> Self {
        Self {
            paths: self.paths.clone(),
            host: self.host.clone(),
            images: self.images.clone(),
            networks: OnceLock::new(),
            damage: Mutex::default(),
            logins,
        }
    }

    /// Where everything is.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What could not be read so far and was left out of listings, in words.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.iter().map(|found| format!("{} (`{}` removes it)", found.what, found.remedy)).collect()
    }

    /// The same for who says all of it: [`Engine::damage`] then has nothing more to say.
    pub(crate) fn take_damage(&self) -> BTreeSet<Damage> {
        std::mem::take(&mut *self.damage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The supervisor's program.
    pub(crate) fn supervisor(&self) -> Result<PathBuf> {
        if let Some(path) = &self.paths.supervisor {
            return Ok(path.clone());
        }
        companion(SUPERVISOR)
    }

    /// A program of the engine's.
    ///
    /// # Errors
    /// [`Error::NoCompanion`].
    pub fn companion(&self, name: &str) -> Result<PathBuf> {
        companion(name)
    }
}

/// A program of the engine's: beside this one, or where distributions put what nobody types.
///
/// # Errors
/// It is not installed.
pub fn companion(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    let beside = own.with_file_name(name);
    if beside.exists() {
        return Ok(beside);
    }
    let prefix = own.parent().and_then(Path::parent);
    let places = ["libexec/catamaran", "lib/catamaran"];
    let installed = prefix.into_iter().flat_map(|prefix| places.map(|place| prefix.join(place).join(name)));
    installed.into_iter().find(|path| path.exists()).ok_or_else(|| Error::NoCompanion(name.to_owned()))
}

/// Layers and volumes hold other users' setuid programs: nobody but root may walk in.
fn make_private(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(Error::file("create", dir))
}
