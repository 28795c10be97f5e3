//! Devices by name (`--device vendor.com/class=name`, `--gpus`): what vendors say in `/etc/cdi` and
//! `/var/run/cdi` a container needs for each (Container Device Interface 1.1.0). Read at each start: drivers
//! and what is plugged in change while a container is stopped.

mod apply;
mod document;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use apply::apply;
pub use document::Edits;

use crate::error::{Error, Result};
use crate::request::{CreateRequest, DeviceName, GpuRequest, Gpus};
use document::Document;

/// Where descriptions are; what is said in a later directory holds.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Vendors whose graphics processors `--gpus` means, the first that is there.
const GPU_KINDS: [(&str, &str); 2] = [("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu")];

/// What Docker calls capabilities of a graphics processor. A description has one set of files for a device, so that
/// each of these gives all of them.
pub const GPU_CAPABILITIES: [&str; 8] =
    ["gpu", "compute", "compat32", "graphics", "utility", "video", "display", "ngx"];

/// The most that a description may have, bytes: those of a machine with many devices have some hundred thousand.
const BYTES_MAX: u64 = 16 << 20;

/// All devices that the host's descriptions name.
#[derive(Debug, Default)]
pub struct Catalog {
    documents: Vec<Document>,
    devices: BTreeMap<String, Entry>,
    /// Files that could not be read, with the reason.
    broken: Vec<(PathBuf, String)>,
}

/// Who describes a device.
#[derive(Debug)]
struct Entry {
    document: usize,
    device: usize,
    directory: usize,
    file: PathBuf,
    /// Another file of the same directory that describes it too.
    rival: Option<PathBuf>,
}

impl Catalog {
    /// Reads all descriptions. Those that cannot be read count only when a device is missing.
    #[must_use]
    pub fn read(directories: &[&Path]) -> Self {
        let mut catalog = Self::default();
        for (at, directory) in directories.iter().enumerate() {
            for (path, yaml) in files(directory) {
                let read = text(&path).map_err(|error| error.to_string());
                match read.and_then(|text| Document::read(&text, yaml)) {
                    Ok(document) => catalog.add(document, at, &path),
                    Err(why) => catalog.broken.push((path, why)),
                }
            }
        }
        catalog
    }

    fn add(&mut self, document: Document, directory: usize, file: &Path) {
        for (device, described) in document.devices.iter().enumerate() {
            let name = format!("{}={}", document.kind, described.name);
            let entry = Entry {
                document: self.documents.len(),
                device,
                directory,
                file: file.to_owned(),
                rival: None,
            };
            match self.devices.get_mut(&name) {
                Some(known) if known.directory == directory => known.rival = Some(file.to_owned()),
                _ => {
                    self.devices.insert(name, entry);
                }
            }
        }
        self.documents.push(document);
    }

    /// Names of all devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// What containers with these devices get: of each description first what is for all of its devices.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for one that nobody describes, or that two files describe.
    pub fn edits(&self, names: &[DeviceName]) -> Result<Vec<(DeviceName, Edits)>> {
        let mut edits = Vec::new();
        let mut said = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|earlier| earlier == name) {
                continue;
            }
            let entry = self.devices.get(name.as_str()).ok_or_else(|| self.missing(name))?;
            if let Some(rival) = &entry.rival {
                return Err(Error::Invalid(format!(
                    "device {name} is described twice, in {} and {}",
                    entry.file.display(),
                    rival.display()
                )));
            }
            let Some(document) = self.documents.get(entry.document) else { continue };
            if !said.contains(&entry.document) {
                said.push(entry.document);
                edits.push((name.clone(), document.container_edits.clone()));
            }
            let device = document.devices.get(entry.device);
            edits.extend(device.map(|device| (name.clone(), device.container_edits.clone())));
        }
        Ok(edits)
    }

    /// What a step of a build asks for: a device, `vendor.com/class` for the first of a kind, `vendor.com/class=*` for all.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is none; a name of no such form.
    pub(crate) fn asked(&self, text: &str) -> Result<Vec<DeviceName>> {
        let (kind, name) = text.split_once('=').unwrap_or((text, ""));
        let named = |text: &str| DeviceName::new(text).map_err(Error::Invalid);
        if !matches!(name, "" | "*") {
            let name = named(text)?;
            return if self.devices.contains_key(text) { Ok(vec![name]) } else { Err(self.missing(&name)) };
        }
        let most = if name.is_empty() { 1 } else { usize::MAX };
        let of_kind = |device: &&str| device.split_once('=').is_some_and(|(known, _)| known == kind);
        let found: Vec<DeviceName> =
            self.names().filter(of_kind).take(most).map(named).collect::<Result<_>>()?;
        if found.is_empty() { Err(self.missing(&named(&format!("{kind}=all"))?)) } else { Ok(found) }
    }

    fn missing(&self, name: &DeviceName) -> Error {
        let place = DIRECTORIES.join(" and ");
        let hint = if let Some((path, why)) = self.broken.first() {
            format!("{} could not be read: {why}", path.display())
        } else if self.devices.is_empty() {
            let nvidia = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` writes NVIDIA's";
            format!("no device is described in {place}; the vendor's tools write that: {nvidia}")
        } else {
            format!("described in {place}: {}", self.names().collect::<Vec<_>>().join(", "))
        };
        Error::NoDevice { name: name.to_string(), hint }
    }

    /// The devices that `--gpus` means.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there are fewer.
    pub fn gpus(&self, request: &GpuRequest) -> Result<Vec<DeviceName>> {
        let has = |kind: &str| self.names().any(|name| name.starts_with(&format!("{kind}=")));
        let of_driver = |driver: &String| GPU_KINDS.iter().find(|(name, _)| name == driver);
        let asked = request.driver.as_ref().map(|driver| {
            of_driver(driver).ok_or_else(|| Error::Unsupported {
                what: format!("--gpus knows no driver `{driver}`"),
                hint: "drivers are nvidia and amd; others by --device vendor.com/class=name".to_owned(),
            })
        });
        let kind = match asked.transpose()? {
            Some((_, kind)) => kind,
            None => GPU_KINDS.iter().map(|(_, kind)| kind).find(|kind| has(kind)).unwrap_or(&GPU_KINDS[0].1),
        };
        let name = |device: &str| DeviceName::new(&format!("{kind}={device}")).map_err(Error::Invalid);
        match &request.gpus {
            Gpus::All => Ok(vec![name("all")?]),
            Gpus::Count(count) => (0..*count).map(|number| name(&number.to_string())).collect(),
            Gpus::Named(devices) => devices.iter().map(|device| name(device)).collect(),
        }
    }
}

/// What a container that is started now gets for the devices it asked for by name.
pub(crate) fn edits(request: &CreateRequest) -> Result<Vec<(DeviceName, Edits)>> {
    if request.device_names.is_empty() && request.gpus.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::read(&DIRECTORIES.map(Path::new));
    let mut names = request.device_names.clone();
    for gpus in &request.gpus {
        names.extend(catalog.gpus(gpus)?);
    }
    catalog.edits(&names)
}

/// Files that may be descriptions, in the order of their names; true: YAML.
fn files(directory: &Path) -> Vec<(PathBuf, bool)> {
    // Most hosts have no such directory.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let known = |path: PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Some((path, false)),
        Some("yaml") => Some((path, true)),
        _ => None,
    };
    let mut files: Vec<_> = entries.filter_map(|entry| known(entry.path())).collect();
    files.sort();
    files
}

fn text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if metadata.len() > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", BYTES_MAX >> 20)));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests;
