//! Devices of the host as they are now, for containers that ask for them by path.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::plan::devices::Found;
use crate::plan::resources;
use crate::request::{BlockLimit, DeviceRequest};

/// The device of a limit as it is now.
pub(crate) fn find_block(limit: &BlockLimit) -> Result<resources::Block> {
    let device = &limit.device;
    let metadata = fs::metadata(device).map_err(Error::file("find the device", device))?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::Invalid(format!("{} is not a block device", device.display())));
    }
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(resources::Block { kind: limit.kind, major, minor, value: limit.value })
}

/// A host device as it is now.
pub(crate) fn find_device(request: &DeviceRequest) -> Result<Vec<Found>> {
    let missing = |source: std::io::Error| {
        Error::Invalid(format!(
            "error gathering device information while adding custom device \"{}\": {source}",
            request.host.display()
        ))
    };
    let metadata = fs::metadata(&request.host).map_err(missing)?;
    if metadata.is_dir() {
        let mut found = Vec::new();
        for entry in fs::read_dir(&request.host).map_err(missing)? {
            let entry = entry.map_err(missing)?;
            if entry.file_type().is_ok_and(|kind| kind.is_block_device() || kind.is_char_device()) {
                let below = DeviceRequest {
                    host: entry.path(),
                    container: request.container.join(entry.file_name()),
                    access: request.access.clone(),
                };
                found.extend(find_device(&below)?);
            }
        }
        return Ok(found);
    }
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(missing(std::io::Error::other("not a device node")));
    }
    let number = metadata.rdev();
    Ok(vec![Found {
        path: request.container.clone(),
        block: kind.is_block_device(),
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: request.access.clone(),
    }])
}

/// Every device node of the host, for `--privileged`.
pub(crate) fn host_devices() -> Result<Vec<Found>> {
    let everything = DeviceRequest {
        host: PathBuf::from("/dev"),
        container: PathBuf::from("/dev"),
        access: "rwm".to_owned(),
    };
    let mut found = find_device(&everything)?;
    // These are the container's own.
    let own = [
        "/dev/console",
        "/dev/ptmx",
        "/dev/tty",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
    ];
    found.retain(|device| !own.iter().any(|path| device.path == Path::new(path)));
    Ok(found)
}
