//! `--device /dev/host[:/dev/inside][:rwm]`, `--device vendor.com/class=name`, `--gpus`.

use std::path::PathBuf;

use cata_engine::cdi::GPU_CAPABILITIES;
use cata_engine::request::{DeviceName, DeviceRequest, DeviceRule, GpuRequest, Gpus};

use super::{ParseError, Parsed};

/// `--device`.
#[derive(Debug, Clone)]
pub(crate) enum Device {
    /// By its path.
    Node(DeviceRequest),
    /// By the name that its vendor's description gives it.
    Name(DeviceName),
}

/// One device.
pub(crate) fn parse(text: &str) -> Parsed<Device> {
    if !text.starts_with('/') && text.contains('=') {
        return DeviceName::new(text).map(Device::Name).map_err(ParseError::new);
    }
    node(text).map(Device::Node)
}

fn node(text: &str) -> Parsed<DeviceRequest> {
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
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(invalid("paths must be absolute"));
    }
    Ok(DeviceRequest {
        host: PathBuf::from(host),
        container: PathBuf::from(container),
        access: access.to_owned(),
    })
}

/// `--gpus all`, `--gpus 2`, `--gpus '"device=0,1",driver=nvidia'`.
pub(crate) fn gpus(text: &str) -> Parsed<GpuRequest> {
    let invalid =
        |why: String| ParseError::new(format!("invalid argument \"{text}\" for \"--gpus\" flag: {why}"));
    let mut request = GpuRequest { driver: None, gpus: Gpus::All };
    let number = |count: &str| match count {
        "all" | "-1" => Ok(Gpus::All),
        digits => digits.parse().map(Gpus::Count).map_err(|_| invalid(format!("'{count}' is no number"))),
    };
    let mut chosen = Vec::new();
    for field in &super::mount::csv(text)? {
        match field.split_once('=') {
            None => chosen.push(number(field)?),
            Some(("count", count)) => chosen.push(number(count)?),
            Some(("device", devices)) => {
                chosen.push(Gpus::Named(devices.split(',').map(str::to_owned).collect()));
            }
            Some(("driver", driver)) => request.driver = Some(driver.to_owned()),
            Some(("capabilities", list)) => {
                if let Some(unknown) = list.split(',').find(|one| !GPU_CAPABILITIES.contains(one)) {
                    return Err(invalid(format!("no capability is called {unknown}")));
                }
            }
            Some(("options", _)) => {
                return Err(invalid("options are of drivers that are not used".to_owned()));
            }
            Some((key, _)) => return Err(invalid(format!("unexpected key '{key}'"))),
        }
    }
    if chosen.len() > 1 {
        let form = r#"several devices are --gpus '"device=0,1"', with both kinds of quotes"#;
        return Err(invalid(format!("a number, or devices, once; {form}")));
    }
    Ok(GpuRequest { gpus: chosen.pop().unwrap_or(Gpus::Count(1)), ..request })
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
    use super::{Device, Gpus, gpus, node as parse, rule};

    #[test]
    fn devices_have_paths_or_names() {
        for name in ["vendor.com/gpu=0", "nvidia.com/gpu=GPU-1:2", "a/b=c"] {
            assert!(
                matches!(super::parse(name), Ok(Device::Name(found)) if found.as_str() == name),
                "{name}"
            );
        }
        for bad in ["vendor.com=0", "vendor.com/gpu=", "vendor.com/=0", "vendor.com/gpu=a b", "1/gpu=0"] {
            assert!(super::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(super::parse("/dev/a=b"), Ok(Device::Node(_))));
    }

    #[test]
    fn graphics_processors_are_chosen() {
        let of = |text| gpus(text).map(|request| (request.driver, request.gpus));
        assert_eq!(of("all"), Ok((None, Gpus::All)));
        assert_eq!(of("2"), Ok((None, Gpus::Count(2))));
        let two = Gpus::Named(vec!["0".to_owned(), "GPU-8".to_owned()]);
        assert_eq!(of("\"device=0,GPU-8\",driver=amd"), Ok((Some("amd".to_owned()), two)));
        assert_eq!(
            of("driver=nvidia,\"capabilities=compute,utility\""),
            Ok((Some("nvidia".to_owned()), Gpus::Count(1)))
        );
        for bad in
            ["some", "device=0,1", "count=1,device=0", "capabilities=flying", "options=a=b", "color=red", ""]
        {
            assert!(gpus(bad).is_err(), "{bad}");
        }
    }

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
        for bad in ["sda", "/dev/a:/dev/b:x", "/dev/a:b", "/a:/b:r:w", "/dev/a:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
