//! From what a user typed to a record: a name, a full id, or an unambiguous prefix of one.

use std::fs;
use std::io;

use cata_spec::{ContainerId, Name};

use crate::container::names;
use crate::engine::{Damage, Engine};
use crate::error::{Error, Result};
use crate::ledger;
use crate::paths::ContainerDir;
use crate::record::Record;

impl Engine {
    /// The container that `text` means. A name wins over a prefix, as with Docker.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Record> {
        let missing = || Error::NoContainer(text.to_owned());
        let bare = text.strip_prefix('/').unwrap_or(text);
        if let Ok(id) = ContainerId::parse(bare) {
            return self.record(&id)?.ok_or_else(missing);
        }
        if let Ok(name) = Name::parse(bare)
            && let Some(id) = names::owner(&self.paths, &name)?
            && let Some(record) = self.record(&id)?
            // A killed `rename` leaves a name that its container is not called by.
            && record.name == name
        {
            return Ok(record);
        }
        if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matches: Vec<ContainerId> =
            self.ids()?.into_iter().filter(|id| id.as_str().starts_with(bare)).collect();
        match (matches.pop(), matches.len()) {
            (None, _) => Err(missing()),
            (Some(id), 0) => self.record(&id)?.ok_or_else(missing),
            (Some(_), more) => Err(Error::Ambiguous(bare.to_owned(), more + 1)),
        }
    }

    /// Every container's id, in no order. Half-made ones are among them.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>> {
        let dir = self.paths.containers();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("list", dir)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("list", &dir))?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// One container's record; `None` when it is gone or was never finished.
    pub(crate) fn record(&self, id: &ContainerId) -> Result<Option<Record>> {
        ledger::read(&self.dir(id).record())
    }

    /// Every container's record. One that is removed meanwhile is left out; a damaged one is an error.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for id in self.ids()? {
            records.extend(self.record(&id)?);
        }
        Ok(records)
    }

    /// The records that can be read; what is wrong with the others is kept for [`Engine::damage`].
    pub(crate) fn readable_records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for id in self.ids()? {
            match self.record(&id) {
                Ok(record) => records.extend(record),
                Err(error) => self.note_damage(&id, &error),
            }
        }
        Ok(records)
    }

    /// One damaged container must not hide all others.
    pub(crate) fn note_damage(&self, id: &ContainerId, error: &Error) {
        self.note_left_out(&format!("container {}", id.short()), error, "cata rm -f");
    }

    /// What is wrong with something, and the command that removes it.
    pub(crate) fn note_left_out(&self, what: &str, error: &dyn std::error::Error, remedy: &str) {
        let what = format!("{what}: {}", crate::error::chain(error));
        let damage = Damage { what, remedy: remedy.to_owned() };
        self.damage.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(damage);
    }

    /// The container that `text` means by its id, the beginning of it, or its name, whatever its record says.
    pub(crate) fn find_id(&self, text: &str) -> Result<ContainerId> {
        let missing = || Error::NoContainer(text.to_owned());
        if let Ok(name) = Name::parse(text)
            && let Some(id) = names::owner(&self.paths, &name)?
        {
            return Ok(id);
        }
        let mut fitting =
            self.ids()?.into_iter().filter(|id| !text.is_empty() && id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(missing()),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned(), 2)),
        }
    }

    /// The names of a container's files.
    pub(crate) fn dir(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir::new(self.paths.container(id))
    }
}
