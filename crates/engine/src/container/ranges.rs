//! Ranges of ids for containers with a user namespace of their own: `<root>/users/<first id>`, a symbolic link to
//! the container's id. Who makes the link has the range.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use cata_sandbox::launch::Undo;
use cata_spec::ContainerId;

use super::accounts::Accounts;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::paths::Paths;
use crate::plan::users::{self, BLOCK, SIZE, Users, candidates, reserved};
use crate::record::Record;
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

    /// Decides what a container's ids are on the host: a range is taken, and given back with [`release`].
    pub(crate) fn take_users(&self, record: &mut Record, size: Option<u32>) -> Result<()> {
        let directory = self.paths.users();
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file("create", directory)(error));
            }
            _ => {}
        }
        if self.host.rootless {
            return self.take_own_range(record, size);
        }
        let first = self.take_range(&record.id)?;
        record.users = Some(Users::range(first, size.unwrap_or(SIZE)));
        Ok(())
    }

    /// Of the ids that a user was given, as many as the image knows. Files have them on disk: the lowest that are free
    /// are those for which the image's layers were made before.
    fn take_own_range(&self, record: &mut Record, size: Option<u32>) -> Result<()> {
        let own = rootless::own()?;
        let size = match size {
            Some(size) => size,
            None => {
                let user = record.config.user.split(':').filter_map(|word| word.parse::<u32>().ok()).max();
                let asked = user.map_or(0, |user| user.saturating_add(1));
                Accounts::of(&record.image.layers)?.ids().max(asked).max(BLOCK)
            }
        };
        let links = self.paths.users();
        let taken = |first: u32| match symlink(record.id.as_str(), links.join(first.to_string())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::file("create", links.join(first.to_string()))(error)),
        };
        let mut begin = 0;
        let first = 'look: loop {
            let Some(blocks) = users::blocks(begin, size, own) else {
                return Err(no_range(size, own.uids.min(own.gids)));
            };
            for (nth, first) in blocks.clone().enumerate() {
                if !taken(first)? {
                    for mine in blocks.take(nth) {
                        let link = links.join(mine.to_string());
                        fs::remove_file(&link).map_err(Error::file("remove", link))?;
                    }
                    begin = first + BLOCK - 1;
                    continue 'look;
                }
            }
            break begin + 1;
        };
        let users = Users { on_disk: true, ..Users::range(first, size) };
        record.image.layers = self.layers_for(&self.image(&record.image.id)?, Some(&users))?;
        record.users = Some(users);
        Ok(())
    }

    fn take_range(&self, id: &ContainerId) -> Result<u32> {
        let directory = self.paths.users();
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

fn no_range(size: u32, all: u32) -> Error {
    Error::Unsupported {
        what: format!("--userns auto: {size} ids in a row are not free among the {all} that are yours"),
        hint: "remove containers that have some, ask for fewer (--userns auto:size=N), or have more given to you \
               (usermod --add-subuids, --add-subgids)"
            .to_owned(),
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
