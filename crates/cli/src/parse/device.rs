//! `--device /dev/host[:/dev/inside][:rwm]`.

use std::path::PathBuf;

use cata_engine::request::DeviceRequest;

use super::{ParseError, Parsed};

/// One device.
pub(crate) fn parse(text: &str) -> Parsed<DeviceRequest> {
    let invalid = |why: &str| ParseError::new(format!("invalid device specification '{text}': {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let access = |part: &str| !part.is_empty() && part.len() <= 3 && part.chars().all(|c| "rwm".contains(c));
    let (host, container, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if access(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if access(mode) => (*host, *container, *mode),
        [_, _, mode] => return Err(invalid(&format!("bad mode '{mode}'"))),
        _ => return Err(invalid("too many colons")),
    };
    if !host.starts_with('/') && host.contains('=') {
        return Err(invalid("CDI device names are not supported yet"));
    }
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(invalid("paths must be absolute"));
    }
    Ok(DeviceRequest {
        host: PathBuf::from(host),
        container: PathBuf::from(container),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parse_fills_in_what_is_left_out() {
        let device = parse("/dev/fuse").unwrap();
        assert_eq!((device.container.to_str(), device.access.as_str()), (Some("/dev/fuse"), "rwm"));
        let device = parse("/dev/sda:r").unwrap();
        assert_eq!(device.access, "r");
        let device = parse("/dev/sda:/dev/xvda:rw").unwrap();
        assert_eq!(device.container.to_str(), Some("/dev/xvda"));
        for bad in ["sda", "/dev/a:/dev/b:x", "/dev/a:b", "/a:/b:r:w", "vendor.com/gpu=0", "/dev/a:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
