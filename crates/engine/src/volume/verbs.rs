//! `volume create`, `ls`, `inspect`, `rm`, `prune` as the engine offers them: with containers in view.

use std::collections::BTreeMap;

use cata_sandbox::stamp::Stamp;
use cata_spec::Name;
use serde_json::{Value, json};

use super::{Volume, data};
use crate::container::names;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::prune::volumes_of;

impl Engine {
    /// Makes a volume; one that exists already is returned as it is, as Docker does.
    ///
    /// # Errors
    /// [`Error::Unsupported`] or [`Error::Invalid`] for an option.
    pub fn volume_create(
        &self,
        name: Option<Name>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        super::options::device(&options)?;
        let anonymous = name.is_none();
        let name = match name {
            Some(name) => name,
            None => Name::parse(names::random_id().as_str()).expect("64 hexadecimal characters are a name"),
        };
        let created = crate::record::moment(Stamp::now());
        let volume = Volume { name: name.clone(), created, labels, options, anonymous };
        let (made, _hold) = super::create(&self.paths, &volume)?;
        if made == super::Made::Now {
            self.tell_volume(&name, "create");
        }
        super::inspect(&self.paths, name.as_str())
    }

    /// All volumes by name, but those whose record is damaged, which [`Engine::damage`] then tells.
    ///
    /// # Errors
    /// A file operation.
    pub fn volume_list(&self) -> Result<Vec<Volume>> {
        super::list(&self.paths, |dir, error| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            self.note_left_out(&format!("volume {name}"), error, "cata volume rm -f");
        })
    }

    /// One volume as Docker's document.
    ///
    /// # Errors
    /// [`Error::NoVolume`].
    pub fn volume_inspect(&self, name: &str) -> Result<Value> {
        super::inspect(&self.paths, name).map(|volume| self.volume_document(&volume))
    }

    /// A volume as Docker's document.
    #[must_use]
    pub fn volume_document(&self, volume: &Volume) -> Value {
        let created = Stamp(i64::try_from(volume.created).unwrap_or(0));
        json!({
            "CreatedAt": created,
            "Driver": "local",
            "Labels": if volume.labels.is_empty() { Value::Null } else { json!(volume.labels) },
            "Mountpoint": data(&self.paths, &volume.name),
            "Name": volume.name.as_str(),
            "Options": if volume.options.is_empty() { Value::Null } else { json!(volume.options) },
            "Scope": "local",
        })
    }

    /// Removes a volume no container uses; `force` forgives one that is not there, and a damaged record.
    ///
    /// # Errors
    /// [`Error::NoVolume`], [`Error::VolumeInUse`].
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let found = match super::inspect(&self.paths, name) {
            Err(Error::NoVolume(_)) if force => return Ok(()),
            // Its name is a name: it was found by it.
            Err(Error::Record { .. }) if force => {
                Name::parse(name).map_err(|e| Error::Invalid(e.to_string()))?
            }
            volume => volume?.name,
        };
        // Alone with it: a container that is being made of it has no record yet.
        let hold = super::hold_alone(&self.paths, &found)?;
        let users = self.volume_users(&found)?;
        if !users.is_empty() {
            return Err(Error::VolumeInUse { name: name.to_owned(), users: users.join(", ") });
        }
        if hold.is_none() {
            return match self.paths.volume(&found).exists() {
                true => Err(Error::State {
                    what: format!(
                        "volume {name} is in the hands of another command, which makes or mounts it"
                    ),
                    hint: Some("try again when that has ended".to_owned()),
                }),
                false if force => Ok(()),
                false => Err(Error::NoVolume(name.to_owned())),
            };
        }
        super::remove(&self.paths, &found)?;
        self.tell_volume(&found, "destroy");
        Ok(())
    }

    /// Ids of the containers that have it.
    pub(crate) fn volume_users(&self, name: &Name) -> Result<Vec<String>> {
        let records = self.records()?;
        let users = records.iter().filter(|record| volumes_of(record).any(|used| used == name));
        Ok(users.map(|r| r.id.to_string()).collect())
    }
}
