//! `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns` and `--isolation`.

use cata_engine::request::{IdMapping, Isolation, MonitorRequest, NamespaceMode, UserNamespace, Users};

use super::{ParseError, Parsed};

/// `--pid host|container:NAME`.
pub(crate) fn pid(text: &str) -> Parsed<NamespaceMode> {
    host_or_container(text).ok_or_else(|| ParseError::new("--pid: invalid PID mode"))
}

/// `--ipc none|private|shareable|host|container:NAME`.
pub(crate) fn ipc(text: &str) -> Parsed<NamespaceMode> {
    match text {
        "none" => Ok(NamespaceMode::None),
        "shareable" => Ok(NamespaceMode::Shareable),
        _ => host_or_container(text).ok_or_else(|| ParseError::new("--ipc: invalid IPC mode")),
    }
}

/// `--uts host`.
pub(crate) fn uts(text: &str) -> Parsed<NamespaceMode> {
    match text {
        "" | "private" => Ok(NamespaceMode::Private),
        "host" => Ok(NamespaceMode::Host),
        _ => Err(ParseError::new("--uts: invalid UTS mode")),
    }
}

/// `--cgroupns private|host`.
pub(crate) fn cgroup(text: &str) -> Parsed<NamespaceMode> {
    match text {
        "" | "private" => Ok(NamespaceMode::Private),
        "host" => Ok(NamespaceMode::Host),
        _ => Err(ParseError::new("--cgroupns: invalid CGROUP mode")),
    }
}

/// `--userns host|auto|auto:size=N|keep-id|keep-id:uid=N,gid=N|nomap|CONTAINER:HOST:SIZE`.
pub(crate) fn user(text: &str) -> Parsed<UserNamespace> {
    let invalid = || {
        ParseError::new(format!(
            "--userns: invalid USER mode '{text}': must be host, auto, auto:size=N, keep-id, \
             keep-id:uid=N,gid=N, nomap or CONTAINER:HOST:SIZE"
        ))
    };
    match text {
        "" | "host" => Ok(UserNamespace::Host),
        "auto" => Ok(UserNamespace::Auto { size: None }),
        "keep-id" => Ok(UserNamespace::KeepId { uid: None, gid: None }),
        "nomap" => Ok(UserNamespace::NoMap),
        _ if text.starts_with("keep-id:") => kept(&text["keep-id:".len()..]).ok_or_else(invalid),
        _ => match text.strip_prefix("auto:size=") {
            Some(size) => Ok(UserNamespace::Auto { size: Some(size.parse().map_err(|_| invalid())?) }),
            None => {
                let range = id_range(text).map_err(|_| invalid())?;
                Ok(UserNamespace::Map(Users { uids: vec![range], gids: vec![range], on_disk: false }))
            }
        },
    }
}

/// `uid=N,gid=N`, one of them at least.
fn kept(text: &str) -> Option<UserNamespace> {
    let (mut uid, mut gid) = (None, None);
    for part in text.split(',') {
        let (name, id) = part.split_once('=')?;
        let place = match name {
            "uid" => &mut uid,
            "gid" => &mut gid,
            _ => return None,
        };
        // The last one is nobody's: the kernel means "none" by it.
        let id = id.parse().ok().filter(|id| *id < u32::MAX - 1)?;
        if place.replace(id).is_some() {
            return None;
        }
    }
    Some(UserNamespace::KeepId { uid, gid })
}

/// `--uidmap CONTAINER:HOST[:SIZE]`.
pub(crate) fn id_range(text: &str) -> Parsed<IdMapping> {
    let invalid = || ParseError::new(format!("invalid id range '{text}': must be CONTAINER:HOST:SIZE"));
    let fields: Vec<u32> =
        text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
    match fields[..] {
        [container, host] => Ok(IdMapping { container, host, size: 1 }),
        [container, host, size] => Ok(IdMapping { container, host, size }),
        _ => Err(invalid()),
    }
}

/// `--userns`, `--uidmap` and `--gidmap` together; a map for users alone is that for groups too.
pub(crate) fn users(
    mode: Option<UserNamespace>,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Parsed<UserNamespace> {
    match (mode, uids.is_empty() && gids.is_empty()) {
        (mode, true) => Ok(mode.unwrap_or_default()),
        (Some(_), false) => {
            Err(ParseError::new("conflicting options: --userns and --uidmap or --gidmap".to_owned()))
        }
        (None, false) => {
            let or = |one: &[IdMapping], other: &[IdMapping]| {
                if one.is_empty() { other.to_vec() } else { one.to_vec() }
            };
            Ok(UserNamespace::Map(Users { uids: or(uids, gids), gids: or(gids, uids), on_disk: false }))
        }
    }
}

/// `--vmm auto|kvm|qemu`.
pub(crate) fn monitor(text: &str) -> Parsed<MonitorRequest> {
    match text {
        "auto" => Ok(MonitorRequest::Auto),
        "kvm" => Ok(MonitorRequest::Kvm),
        "qemu" => Ok(MonitorRequest::Qemu),
        _ => Err(ParseError::new(format!("invalid vmm '{text}': must be auto, kvm or qemu"))),
    }
}

/// `--isolation process|vm`.
pub(crate) fn isolation(text: &str) -> Parsed<Isolation> {
    match text {
        "" | "default" | "process" => Ok(Isolation::Process),
        "vm" => Ok(Isolation::Vm),
        _ => Err(ParseError::new(format!("invalid isolation '{text}': must be process or vm"))),
    }
}

fn host_or_container(text: &str) -> Option<NamespaceMode> {
    match text {
        "" | "private" => Some(NamespaceMode::Private),
        "host" => Some(NamespaceMode::Host),
        _ => match text.strip_prefix("container:") {
            Some(name) if !name.is_empty() => Some(NamespaceMode::Container(name.to_owned())),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use cata_engine::request::{IdMapping, Isolation, NamespaceMode, UserNamespace, Users};

    use super::{ipc, isolation, pid, user, users};

    #[test]
    fn modes_are_dockers() {
        assert_eq!(pid("host"), Ok(NamespaceMode::Host));
        assert_eq!(pid("container:pg"), Ok(NamespaceMode::Container("pg".to_owned())));
        assert_eq!(pid("container:").unwrap_err().to_string(), "--pid: invalid PID mode");
        assert_eq!(ipc("shareable"), Ok(NamespaceMode::Shareable));
        assert!(pid("shareable").is_err());
    }

    #[test]
    fn users_are_mapped_as_said() {
        let range = |container, host, size| IdMapping { container, host, size };
        assert_eq!(user("auto:size=1000"), Ok(UserNamespace::Auto { size: Some(1000) }));
        let both =
            Users { uids: vec![range(0, 100_000, 10)], gids: vec![range(0, 100_000, 10)], on_disk: false };
        assert_eq!(user("0:100000:10"), Ok(UserNamespace::Map(both.clone())));
        assert_eq!(user("keep-id:gid=7,uid=33"), Ok(UserNamespace::KeepId { uid: Some(33), gid: Some(7) }));
        let kept =
            ["keep-id:", "keep-id:uid", "keep-id:uid=1,uid=2", "keep-id:x=1", "keep-id:uid=4294967295"];
        for bad in ["auto:size=x", "0:1:2:3", "a:b", "auto:uidmapping=0:1:1", "container:x", "-1:0:1"] {
            let text = user(bad).unwrap_err().to_string();
            assert!(text.contains("invalid USER mode") && text.contains(bad), "{text}");
        }
        assert!(kept.iter().all(|bad| user(bad).is_err()));
        let one = vec![range(0, 100_000, 10)];
        assert_eq!(users(None, &one, &[]), Ok(UserNamespace::Map(both)));
        assert_eq!(users(None, &[], &[]), Ok(UserNamespace::Host));
        assert!(users(Some(UserNamespace::Host), &one, &[]).is_err());
    }

    #[test]
    fn isolation_is_one_of_two() {
        assert_eq!(isolation("vm"), Ok(Isolation::Vm));
        assert_eq!(isolation("default"), Ok(Isolation::Process));
        assert!(isolation("hyperv").is_err());
    }
}
