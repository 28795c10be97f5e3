//! Names on a network: `names/<name>@<short id>` is a symbolic link whose text is the addresses.
//!
//! The name service reads the directory at every question ([`crate::dns`]).

use std::fs;
use std::path::{Path, PathBuf};

use cata_spec::ContainerId;

use crate::Error;
use crate::record::EndpointRecord;

/// Whether a text can be asked for, and can be a file's name: letters, digits, `-`, `_`, `.`.
#[must_use]
pub fn is_resolvable(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty()
        && name.len() <= 200
        && name.bytes().all(allowed)
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
}

/// Makes an endpoint's names known, noting every file made.
pub(crate) fn publish(
    directory: &Path,
    record: &EndpointRecord,
    made: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let text = addresses(record);
    for name in record.endpoint.aliases.iter().filter(|name| is_resolvable(name)) {
        let path = file(directory, record, name);
        match std::os::unix::fs::symlink(&text, &path) {
            Ok(()) => {}
            // Left by a killed process: the same container's, therefore ours to replace.
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                fs::remove_file(&path).map_err(|source| Error::file("replace", &path, source))?;
                std::os::unix::fs::symlink(&text, &path)
                    .map_err(|source| Error::file("publish name", &path, source))?;
            }
            Err(source) => return Err(Error::file("publish name", path, source)),
        }
        made.push(path);
    }
    Ok(())
}

/// The file of one of an endpoint's names.
pub(crate) fn file(directory: &Path, record: &EndpointRecord, name: &str) -> PathBuf {
    directory.join("names").join(format!("{}{}", name.to_ascii_lowercase(), ending(&record.container)))
}

/// How the files of all of a container's names end.
pub(crate) fn ending(container: &ContainerId) -> String {
    format!("@{}", container.short())
}

fn addresses(record: &EndpointRecord) -> String {
    let v4 = record.endpoint.ipv4.map(|(address, _)| address.to_string());
    let v6 = record.endpoint.ipv6.map(|(address, _)| address.to_string());
    v4.into_iter().chain(v6).collect::<Vec<_>>().join(" ")
}
