//! `volume create --opt`: a volume whose files are a directory that is there already, as Docker's local driver binds one
//! (`type=none`, `o=bind`, `device=/path`).
//!
//! What Docker mounts for a volume is mounted on the host as long as somebody uses it; here nobody would be there to
//! unmount it. So file systems are the host's to mount, and an error says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where the files are, if not in the volume's own directory.
///
/// # Errors
/// [`Error::Unsupported`] for other options, [`Error::Invalid`] for what makes no sense.
pub(super) fn device(options: &BTreeMap<String, String>) -> Result<Option<PathBuf>> {
    if options.is_empty() {
        return Ok(None);
    }
    if let Some(other) = options.keys().find(|key| !["type", "o", "device"].contains(&key.as_str())) {
        return Err(Error::Unsupported {
            what: format!("volume option `{other}` is not supported"),
            hint: "type=none, o=bind and device=PATH are".to_owned(),
        });
    }
    let value = |key: &str| options.get(key).map_or("", String::as_str);
    let mut words = value("o").split(',').filter(|word| !word.is_empty());
    let binds = words.clone().any(|word| matches!(word, "bind" | "rbind"));
    let device = value("device");
    if !matches!(value("type"), "" | "none" | "bind") || !binds {
        let what = match value("type") {
            "" | "none" => format!("a volume with the options `{}` is not supported", value("o")),
            kind => format!("a volume of type {kind} is not supported"),
        };
        let hint = match value("type") {
            "tmpfs" => "`--tmpfs` or `--mount type=tmpfs` gives a container memory".to_owned(),
            _ => "mount it on the host, and give the directory with -v, or with o=bind as the volume"
                .to_owned(),
        };
        return Err(Error::Unsupported { what, hint });
    }
    if let Some(other) = words.find(|word| !matches!(*word, "bind" | "rbind" | "rw")) {
        return Err(Error::Unsupported {
            what: format!("the option `{other}` of a volume is not supported"),
            hint: "a container says how it mounts a volume, as in `-v NAME:/path:ro`".to_owned(),
        });
    }
    if !device.starts_with('/') {
        return Err(Error::Invalid(format!("volume option device: `{device}` is no absolute path")));
    }
    Ok(Some(PathBuf::from(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Option<PathBuf>> {
        device(&options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_directory_is_bound_and_all_else_refused_by_name() {
        assert_eq!(read(&[]).unwrap(), None);
        let bound = read(&[("type", "none"), ("o", "bind"), ("device", "/srv/data")]).unwrap();
        assert_eq!(bound, Some(PathBuf::from("/srv/data")));
        assert_eq!(read(&[("o", "rw,rbind"), ("device", "/x")]).unwrap(), Some(PathBuf::from("/x")));
        let refused = |options: &[(&str, &str)], word: &str| {
            let error = read(options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(&[("type", "tmpfs"), ("device", "tmpfs")], "type tmpfs");
        refused(&[("type", "nfs"), ("o", "addr=10.0.0.1"), ("device", ":/x")], "type nfs");
        refused(&[("o", "bind,ro"), ("device", "/x")], "`ro`");
        refused(&[("o", "bind"), ("device", "x")], "`x`");
        refused(&[("o", "bind")], "absolute");
        refused(&[("size", "10g")], "`size`");
        refused(&[("device", "/dev/sda")], "not supported");
    }
}
