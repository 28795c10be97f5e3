//! `--device /dev/host[:/dev/inside][:rwm]`.

use std::path::PathBuf;

use cata_engine::request::{DeviceRequest, DeviceRule};

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

/// `--device-cgroup-rule 'c 10:* rwm'`.
pub(crate) fn rule(text: &str) -> Parsed<DeviceRule> {
    let invalid = || {
        let form = "the form is '<a|b|c> <major|*>:<minor|*> <rwm>'";
        ParseError::new(format!("invalid device cgroup rule '{text}': {form}"))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(invalid()) };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if access.is_empty() || access.len() > 3 || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(invalid());
    }
    let kind = kind.chars().next().ok_or_else(invalid)?;
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{parse, rule};

    #[test]
    fn rules_are_read() {
        let all = rule("c 10:* rm").unwrap();
        assert_eq!((all.kind, all.major, all.minor, all.access.as_str()), ('c', Some(10), None, "rm"));
        for bad in ["", "c 1:3", "d 1:3 r", "c 1 r", "c x:1 r", "c 1:3 x", "c 1:3 r w"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

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
