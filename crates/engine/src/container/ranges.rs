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

impl Engine {
    /// What a container's ids are on the host; a range is taken, and given back with [`release`].
    pub(crate) fn take_users(&self, id: &ContainerId, wanted: &UserNamespace) -> Result<Option<Users>> {
        match wanted {
            UserNamespace::Host => Ok(None),
            UserNamespace::Map(users) => Ok(Some(users.clone())),
            UserNamespace::Auto { size } => {
                self.take_range(id).map(|first| Some(Users::range(first, size.unwrap_or(SIZE))))
            }
            UserNamespace::KeepId | UserNamespace::NoMap => Err(Error::Unsupported {
                what: "keeping the caller's ids is not supported yet".to_owned(),
                hint: "use --uidmap and --gidmap".to_owned(),
            }),
        }
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
