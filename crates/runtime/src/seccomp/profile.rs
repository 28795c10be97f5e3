//! Docker's seccomp profiles: an OCI profile whose rules may depend on capabilities, kernel and architecture.

use cata_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;

use super::{Arch, SeccompError};

/// A profile as its author wrote it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    /// Names, not a type: profiles list architectures that no crate knows.
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The old spelling of a single name.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile: Docker's format, of which the OCI's is a part.
///
/// # Errors
/// [`SeccompError`] naming what is wrong, with its place in the text.
pub fn parse(text: &str) -> Result<Profile, SeccompError> {
    let profile: Profile = serde_json::from_str(text)?;
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if given(&profile.architectures) && profile.arch_map.as_ref().is_some_and(|map| !map.is_empty()) {
        return Err(SeccompError::Both("architectures", "archMap"));
    }
    for rule in profile.syscalls.iter().flatten() {
        if rule.name.as_ref().is_some_and(|name| !name.is_empty()) && given(&rule.names) {
            return Err(SeccompError::Both("name", "names"));
        }
        for filter in [&rule.includes, &rule.excludes].into_iter().flatten() {
            if let Some(version) = &filter.min_kernel {
                kernel(version)?;
            }
        }
    }
    Ok(profile)
}

impl Profile {
    /// The OCI profile for a container with these capabilities (`CAP_SYS_ADMIN`, …) on this kernel (major,
    /// minor) and machine.
    ///
    /// # Errors
    /// [`SeccompError::Unknown`] for a kernel version that is none.
    pub fn resolve(
        &self,
        caps: &[impl AsRef<str>],
        running: (u32, u32),
        arch: Arch,
    ) -> Result<LinuxSeccomp, SeccompError> {
        let mut syscalls = Vec::new();
        for rule in self.syscalls.iter().flatten() {
            if !rule.applies(caps, running, arch)? {
                continue;
            }
            let mut names = rule.names.clone().unwrap_or_default();
            names.extend(rule.name.clone().filter(|name| !name.is_empty()));
            let mut syscall = LinuxSyscall::default();
            syscall.set_names(names).set_action(rule.action).set_errno_ret(rule.errno_ret);
            syscall.set_args(rule.args.clone().filter(|args| !args.is_empty()));
            syscalls.push(syscall);
        }
        let mut seccomp = LinuxSeccompBuilder::default().build().unwrap_or_default();
        seccomp.set_default_action(self.default_action);
        seccomp.set_default_errno_ret(self.default_errno_ret);
        seccomp.set_flags(self.flags.clone());
        let architectures = self.architectures_of(arch);
        seccomp.set_architectures((!architectures.is_empty()).then_some(architectures));
        seccomp.set_syscalls(Some(syscalls));
        Ok(seccomp)
    }

    fn architectures_of(&self, arch: Arch) -> Vec<cata_spec::runtime::Arch> {
        let native = arch.oci().to_string();
        let mapped = self.arch_map.iter().flatten().filter(|map| map.architecture == native);
        let mapped = mapped
            .flat_map(|map| std::iter::once(&map.architecture).chain(map.sub_architectures.iter().flatten()));
        // An architecture that the OCI crate cannot name cannot be this machine's.
        self.architectures.iter().flatten().chain(mapped).filter_map(|name| name.parse().ok()).collect()
    }
}

impl Rule {
    fn applies(
        &self,
        caps: &[impl AsRef<str>],
        running: (u32, u32),
        arch: Arch,
    ) -> Result<bool, SeccompError> {
        let has = |cap: &String| caps.iter().any(|have| have.as_ref() == cap);
        let here = |name: &String| name == arch.docker();
        if let Some(filter) = &self.excludes
            && (filter.caps.iter().flatten().any(has)
                || filter.arches.iter().flatten().any(here)
                || filter.new_enough(running)?.unwrap_or(false))
        {
            return Ok(false);
        }
        if let Some(filter) = &self.includes {
            let arches = filter.arches.as_deref().unwrap_or_default();
            return Ok(filter.caps.iter().flatten().all(has)
                && (arches.is_empty() || arches.iter().any(here))
                && filter.new_enough(running)?.unwrap_or(true));
        }
        Ok(true)
    }
}

impl Filter {
    /// `None`: nothing is said about the kernel.
    fn new_enough(&self, running: (u32, u32)) -> Result<Option<bool>, SeccompError> {
        self.min_kernel.as_deref().map(|version| Ok(running >= kernel(version)?)).transpose()
    }
}

/// `4.8`.
fn kernel(version: &str) -> Result<(u32, u32), SeccompError> {
    let parsed = version.split_once('.').and_then(|(major, minor)| {
        let version = (major.parse().ok()?, minor.parse().ok()?);
        (version != (0, 0)).then_some(version)
    });
    parsed.ok_or_else(|| SeccompError::Unknown { what: "kernel version", value: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_LOONGARCH64", "subArchitectures": null}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}},
            {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;

    fn names(caps: &[&str], kernel: (u32, u32), arch: Arch) -> Vec<String> {
        let resolved = parse(TEXT).unwrap().resolve(caps, kernel, arch).unwrap();
        resolved.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_depend_on_caps_kernel_and_architecture() {
        assert_eq!(names(&[], (6, 1), Arch::X86_64), ["read", "write", "ptrace", "arch_prctl", "clone3"]);
        assert_eq!(names(&[], (4, 7), Arch::Aarch64), ["read", "write", "clone3"]);
        assert_eq!(
            names(&["CAP_CHOWN", "CAP_SYS_ADMIN"], (4, 8), Arch::Aarch64),
            ["read", "write", "ptrace", "mount"]
        );
    }

    #[test]
    fn architectures_follow_the_machine() {
        use cata_spec::runtime::Arch as Oci;
        let profile = parse(TEXT).unwrap();
        let of = |arch| profile.resolve(&[""; 0], (6, 1), arch).unwrap().architectures().clone();
        assert_eq!(of(Arch::X86_64), Some(vec![Oci::ScmpArchX86_64, Oci::ScmpArchX86, Oci::ScmpArchX32]));
        assert_eq!(of(Arch::Aarch64), None);
    }

    #[test]
    fn nonsense_is_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert!(error("{").contains("not valid"));
        assert!(error(r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#).contains("not valid"));
        assert_eq!(
            error(
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                      "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#
            ),
            "seccomp profile: `architectures` and `archMap` exclude each other"
        );
        assert_eq!(
            error(
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                      [{"name": "a", "action": "SCMP_ACT_LOG", "includes": {"minKernel": "four"}}]}"#
            ),
            "seccomp profile: `four` is not a known kernel version"
        );
    }
}
