//! Ranges of ids for containers with a user namespace of their own: `<root>/users/<first id>`, a symbolic link to
//! the container's id. Who makes the link has the range.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use cata_sandbox::launch::Undo;
use cata_spec::ContainerId;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::paths::Paths;
use crate::plan::users::{SIZE, Users, candidates, reserved};
use crate::request::UserNamespace;
use crate::rootless;

impl Engine {
    /// A container's ids on the host, where nothing has to be taken for them.
    pub(crate) fn known_users(&self, wanted: &UserNamespace) -> Result<Option<Users>> {
        let users = match wanted {
            UserNamespace::Host | UserNamespace::Auto { .. } => return Ok(None),
            UserNamespace::Map(users) => users.clone(),
            UserNamespace::KeepId { .. } if !self.host.rootless => Users::same(),
            UserNamespace::KeepId { uid, gid } => Users::keeping(rootless::own()?, (*uid, *gid)),
            UserNamespace::NoMap => Users::without(rootless::own()?),
        };
        Ok(Some(users))
    }

    /// What a container's ids are on the host: a range is taken, and given back with [`release`].
    pub(crate) fn take_users(&self, id: &ContainerId, size: Option<u32>) -> Result<Users> {
        self.take_range(id).map(|first| Users::range(first, size.unwrap_or(SIZE)))
    }

    fn take_range(&self, id: &ContainerId) -> Result<u32> {
        let directory = self.paths.users();
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file("create", directory)(error));
            }
            _ => {}
        }
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let others = reserved(&format!("{}\n{}", text("/etc/subuid"), text("/etc/subgid")));
        for first in candidates(seed(id), &others) {
            let link = directory.join(first.to_string());
            match symlink(id.as_str(), &link) {
                Ok(()) => return Ok(first),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::file("create", link)(error)),
            }
        }
        Err(Error::Invalid(
            "every range of ids for containers is taken: see /etc/subuid, /etc/subgid, and other containers"
                .to_owned(),
        ))
    }
}

/// Gives a container's range back.
pub(crate) fn release(paths: &Paths, id: &ContainerId) -> Undo {
    Undo::UnlinkPointing { directory: paths.users(), text: id.to_string() }
}

/// Ids are random already.
fn seed(id: &ContainerId) -> u64 {
    u64::from_str_radix(&id.as_str()[..16], 16).unwrap_or(0)
}
