//! PURE: which capabilities a container has: Docker's default set, `--cap-add`, `--cap-drop`, `--privileged`.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr as _;

use cata_spec::runtime::Capability;

use crate::error::Error;

/// Docker's default set (moby `oci/caps/defaults.go`).
pub const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Every capability Linux 6.x knows.
pub const ALL: [Capability; 41] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::AuditWrite,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Perfmon,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Syslog,
    Capability::WakeAlarm,
];

/// The capabilities of a container.
///
/// `ALL` in `add` starts from everything, in `drop` from nothing; what is named singly wins over `ALL`, and a
/// drop wins over an add of the same name, as Docker does.
///
/// # Errors
/// [`Error::Invalid`] naming an unknown capability.
pub fn effective(privileged: bool, add: &[String], drop: &[String]) -> Result<HashSet<Capability>, Error> {
    if privileged {
        return Ok(ALL.into_iter().collect());
    }
    let (add_all, add) = parse(add, "--cap-add")?;
    let (drop_all, drop) = parse(drop, "--cap-drop")?;
    let mut set: HashSet<Capability> = match (add_all, drop_all) {
        (true, _) => ALL.into_iter().collect(),
        (false, true) => HashSet::new(),
        (false, false) => DEFAULT.into_iter().collect(),
    };
    set.extend(add);
    for capability in drop {
        set.remove(&capability);
    }
    Ok(set)
}

/// The names of a set as the seccomp profile wants them (`CAP_SYS_ADMIN`), sorted.
#[must_use]
pub fn names(set: &HashSet<Capability>) -> Vec<String> {
    set.iter().map(|c| format!("CAP_{c}")).collect::<BTreeSet<_>>().into_iter().collect()
}

fn parse(names: &[String], flag: &str) -> Result<(bool, Vec<Capability>), Error> {
    let mut all = false;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" || upper == "CAP_ALL" {
            all = true;
            continue;
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let capability = Capability::from_str(bare)
            .map_err(|_| Error::Invalid(format!("{flag}: unknown capability `{name}`")))?;
        found.push(capability);
    }
    Ok((all, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn default_set_is_dockers_fourteen() {
        assert_eq!(effective(false, &[], &[]).unwrap().len(), 14);
    }

    #[test]
    fn add_and_drop_accept_any_spelling() {
        let set = effective(false, &strings(&["net_admin", "CAP_SYS_TIME"]), &strings(&["Mknod"])).unwrap();
        assert!(set.contains(&Capability::NetAdmin) && set.contains(&Capability::SysTime));
        assert!(!set.contains(&Capability::Mknod));
    }

    #[test]
    fn drop_all_keeps_only_what_is_added() {
        let set = effective(false, &strings(&["CHOWN"]), &strings(&["ALL"])).unwrap();
        assert_eq!(names(&set), ["CAP_CHOWN"]);
        let set = effective(false, &strings(&["ALL"]), &strings(&["SYS_ADMIN"])).unwrap();
        assert_eq!(set.len(), 40);
    }

    #[test]
    fn unknown_capability_is_named() {
        let text = effective(false, &strings(&["FLY"]), &[]).unwrap_err().to_string();
        assert!(text.contains("FLY") && text.contains("--cap-add"), "{text}");
    }
}
