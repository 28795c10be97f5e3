//! `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns` and `--isolation`.

use cata_engine::request::{Isolation, MonitorRequest, NamespaceMode};

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

/// `--userns host` is what happens anyway; anything else is not there yet.
pub(crate) fn user(text: &str) -> Parsed<()> {
    match text {
        "" | "host" => Ok(()),
        _ => Err(ParseError::new(format!("--userns: '{text}' is not supported yet"))),
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
    use cata_engine::request::{Isolation, NamespaceMode};

    use super::{ipc, isolation, pid};

    #[test]
    fn modes_are_dockers() {
        assert_eq!(pid("host"), Ok(NamespaceMode::Host));
        assert_eq!(pid("container:pg"), Ok(NamespaceMode::Container("pg".to_owned())));
        assert_eq!(pid("container:").unwrap_err().to_string(), "--pid: invalid PID mode");
        assert_eq!(ipc("shareable"), Ok(NamespaceMode::Shareable));
        assert!(pid("shareable").is_err());
    }

    #[test]
    fn isolation_is_one_of_two() {
        assert_eq!(isolation("vm"), Ok(Isolation::Vm));
        assert_eq!(isolation("default"), Ok(Isolation::Process));
        assert!(isolation("hyperv").is_err());
    }
}
