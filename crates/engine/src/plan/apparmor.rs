//! PURE: which AppArmor profile a container has, and what the engine's own one says.

use std::path::Path;

use crate::error::Error;
use crate::request::{CreateRequest, Isolation};

/// The profile of containers that ask for none.
pub const DEFAULT: &str = "cata-default";

/// What the host has of AppArmor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The kernel runs with it.
    pub enabled: bool,
    /// The engine may load profiles, and has what it takes.
    pub loads: bool,
}

/// The profile, or none: who asks for `unconfined`, or is privileged, and everybody where the engine cannot load one.
///
/// # Errors
/// [`Error::Unsupported`] for a profile by name where the kernel has none: a container without its confinement
/// is not what was asked for.
pub fn profile(request: &CreateRequest, facts: Facts) -> Result<Option<&str>, Error> {
    match request.security.apparmor.as_deref() {
        Some("unconfined") => Ok(None),
        Some(name) if request.isolation == Isolation::Vm => Err(Error::Unsupported {
            what: format!(
                "AppArmor profile `{name}` cannot be applied in a virtual machine: its kernel has no profiles of the host"
            ),
            hint: "leave out --security-opt apparmor, or leave out --isolation vm".to_owned(),
        }),
        Some(name) if !facts.enabled => Err(Error::Unsupported {
            what: format!("AppArmor profile `{name}` cannot be applied: this kernel runs without AppArmor"),
            hint: "leave out --security-opt apparmor, or boot with apparmor=1 security=apparmor".to_owned(),
        }),
        Some(name) => Ok(Some(name)),
        None => {
            let ours = facts.loads && !request.privileged && request.isolation == Isolation::Process;
            Ok(ours.then_some(DEFAULT))
        }
    }
}

/// The engine's own profile, for `apparmor_parser`. It denies what Docker's denies: it is a second wall behind
/// namespaces, read-only paths and the filter, for those who took one of them away (`--cap-add SYS_ADMIN`,
/// `systempaths=unconfined`).
///
/// `abi`: the file that says which rules the profile knows, if the host's compiler has one; without it whatever a newer
/// kernel mediates besides would be denied.
#[must_use]
pub fn text(abi: Option<&Path>) -> String {
    let abi = abi.map(|path| format!("abi \"{}\",\n", path.display())).unwrap_or_default();
    format!("{abi}profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{\n{RULES}}}\n")
}

/// The last rule of a path does not win: a denial does, always.
const RULES: &str = "\
  network,
  capability,
  file,
  umount,
  signal (receive),
  signal (send) peer=cata-default,
  ptrace (trace, read, tracedby, readby) peer=cata-default,

  deny mount,

  # Of /proc, only what belongs to processes, and shared memory's limits.
  deny /proc/* w,
  deny /proc/[^1-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  # Of /sys, only cgroups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: Option<&str>) -> CreateRequest {
        let mut request = CreateRequest::new("image");
        request.security.apparmor = name.map(str::to_owned);
        request
    }

    #[test]
    fn profile_is_the_default_where_it_can_be_loaded() {
        let (none, all) = (Facts { enabled: false, loads: false }, Facts { enabled: true, loads: true });
        let some = Facts { enabled: true, loads: false };
        let of = |request: &CreateRequest, facts| profile(request, facts).ok().map(|p| p.map(str::to_owned));
        assert_eq!(of(&asked(None), all), Some(Some(DEFAULT.to_owned())));
        assert_eq!(of(&asked(None), some), Some(None));
        assert_eq!(of(&asked(None), none), Some(None));
        assert_eq!(of(&CreateRequest { privileged: true, ..asked(None) }, all), Some(None));
        for facts in [none, some, all] {
            assert_eq!(of(&asked(Some("unconfined")), facts), Some(None));
        }
        assert_eq!(of(&asked(Some("other")), some), Some(Some("other".to_owned())));
        assert_eq!(of(&asked(Some("other")), none), None);
        let machine = |name| CreateRequest { isolation: Isolation::Vm, ..asked(name) };
        assert_eq!(of(&machine(None), all), Some(None));
        assert_eq!(of(&machine(Some("other")), all), None);
        assert_eq!(of(&machine(Some("unconfined")), all), Some(None));
    }
}
