//! Ids and names: random ones, and the link that makes a name unique.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use cata_spec::{ContainerId, Name};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::ledger;
use crate::paths::{ContainerDir, Paths};
use crate::record::Record;

const FIRST: [&str; 48] = [
    "able", "amber", "ample", "azure", "bold", "brave", "brisk", "bright", "calm", "clear", "clever",
    "coral", "crisp", "daring", "deft", "eager", "early", "fair", "fleet", "fresh", "gentle", "glad",
    "golden", "grand", "happy", "hardy", "jolly", "keen", "kind", "light", "lively", "lucky", "merry",
    "mild", "neat", "noble", "proud", "quick", "quiet", "ready", "sharp", "silver", "steady", "stout",
    "sunny", "swift", "trim", "vivid",
];

const SECOND: [&str; 48] = [
    "anchor", "bay", "beacon", "boom", "bow", "breeze", "buoy", "cape", "cleat", "coast", "compass", "cove",
    "current", "deck", "delta", "dock", "drift", "estuary", "fjord", "galley", "gull", "harbor", "helm",
    "horizon", "hull", "island", "keel", "lagoon", "lantern", "mast", "oar", "pier", "port", "quay", "reef",
    "rudder", "sail", "seal", "shoal", "shore", "sloop", "spar", "stern", "strait", "surf", "tide", "wake",
    "wave",
];

/// A new random id.
pub(crate) fn random_id() -> ContainerId {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // Short reads happen only before the kernel's generator is seeded; then ask again.
        if let Ok(count) =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
        {
            filled += count;
        }
    }
    ContainerId::from_random(bytes)
}

/// A name made of two words; `attempt` > 0 adds a number, so that a full deck still ends.
pub(crate) fn random_name(id: &ContainerId, attempt: u32) -> Name {
    let digits = u64::from_str_radix(&id.as_str()[..15], 16).unwrap_or_default();
    let first = FIRST[usize::try_from(digits % 48).unwrap_or_default()];
    let second = SECOND[usize::try_from(digits / 48 % 48).unwrap_or_default()];
    let number = if attempt == 0 { String::new() } else { id.as_str()[15..19].to_owned() };
    let text = format!("{first}_{second}{number}");
    Name::parse(&text).expect("made of letters, digits and an underscore")
}

/// Takes `name` for `id`: the creation of the symbolic link is the moment of decision.
///
/// A link left by a container that is gone, or that a killed `rename` has left, is taken over.
pub(crate) fn take(paths: &Paths, name: &Name, id: &ContainerId) -> Result<()> {
    let link = paths.name(name);
    let mut lock = None;
    for _ in 0..8 {
        match symlink(id.as_str(), &link) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("create", &link)(error)),
        }
        // Two who find it stale must not take each other's.
        if lock.is_none() {
            let dir = paths.names();
            let file = fs::File::open(&dir).map_err(Error::file("open", &dir))?;
            flock(&file, FlockOperation::LockExclusive).map_err(Error::file("lock", &dir))?;
            lock = Some(file);
        }
        let Some(owner) = owner(paths, name)? else { continue };
        if owner == *id {
            return Ok(());
        }
        if is_called(paths, &owner, name) {
            return Err(Error::NameInUse { name: name.to_string(), owner: owner.to_string() });
        }
        match fs::remove_file(&link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("remove", &link)(error)),
        }
    }
    Err(Error::Timeout(format!("the name `{name}`")))
}

/// Whether `id`, to which the link of `name` leads, is called that, or is about to be: somebody alive makes or
/// renames it.
pub(crate) fn is_called(paths: &Paths, id: &ContainerId, name: &Name) -> bool {
    let locked = |dir: PathBuf| {
        fs::File::open(dir)
            .is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
    };
    // Looked at first: who has let go of it has written the record.
    if locked(paths.creating().join(id.as_str())) || locked(paths.container(id)) {
        return true;
    }
    match ledger::read::<Record>(&ContainerDir::new(paths.container(id)).record()) {
        Ok(record) => record.is_some_and(|record| record.name == *name),
        // A damaged one keeps its name until it is removed.
        Err(_) => true,
    }
}

/// Who has `name`.
pub(crate) fn owner(paths: &Paths, name: &Name) -> Result<Option<ContainerId>> {
    let link = paths.name(name);
    match fs::read_link(&link) {
        Ok(target) => Ok(target.to_str().and_then(|text| ContainerId::parse(text).ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &link)(error)),
    }
}

/// Gives back every name that leads to `id` but `kept`, which it is called by: killed renames leave some.
pub(crate) fn release_others(paths: &Paths, kept: &Name, id: &ContainerId) -> Result<()> {
    let dir = paths.names();
    for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))?.flatten() {
        if let Some(name) = entry.file_name().to_str().and_then(|text| Name::parse(text).ok())
            && name != *kept
        {
            release(paths, &name, id)?;
        }
    }
    Ok(())
}

/// Gives `name` back if `id` has it.
pub(crate) fn release(paths: &Paths, name: &Name, id: &ContainerId) -> Result<()> {
    if owner(paths, name)?.as_ref() != Some(id) {
        return Ok(());
    }
    let link = paths.name(name);
    match fs::remove_file(&link) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("remove", &link)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_a_stale_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().into(), ..Paths::default() };
        fs::create_dir_all(paths.names()).unwrap();
        let (one, two) = (random_id(), random_id());
        let name = Name::parse("web").unwrap();
        take(&paths, &name, &one).unwrap();
        // No record: whoever took it never finished.
        take(&paths, &name, &two).unwrap();
        fs::create_dir_all(paths.container(&two)).unwrap();
        fs::write(paths.container(&two).join("record.json"), "{}").unwrap();
        let error = take(&paths, &name, &one).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Conflict. The container name \"/web\" is already in use by container \"{two}\"")
        );
        release(&paths, &name, &one).unwrap();
        assert_eq!(owner(&paths, &name).unwrap(), Some(two.clone()));
        release(&paths, &name, &two).unwrap();
        assert_eq!(owner(&paths, &name).unwrap(), None);
    }

    #[test]
    fn random_names_follow_the_rule() {
        for attempt in 0..3 {
            let id = random_id();
            assert!(Name::parse(random_name(&id, attempt).as_str()).is_ok());
        }
    }
}
