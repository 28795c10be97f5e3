//! `features`: what this runtime has.

use serde_json::{Value, json};

use super::{Command, HELP};
use crate::World;
use crate::args::Given;
use crate::error::{Error, Result};

pub(super) const COMMAND: Command = Command {
    name: "features",
    words: "",
    help: "show what this runtime has, as JSON",
    flags: &[HELP],
    stop: usize::MAX,
    count: (0, 0),
    makes: false,
    run,
};

fn run(_: &World, _: &Given) -> Result<u8> {
    let text = serde_json::to_string_pretty(&document()).map_err(|e| Error::new(e.to_string()))?;
    println!("{text}");
    Ok(0)
}

fn document() -> Value {
    let capabilities: Vec<String> = cata_sys::capability::names(cata_sys::capability::KNOWN).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::SPECIFICATION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": cata_runtime::plan::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": if cfg!(target_arch = "x86_64") {
                    json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
                } else {
                    json!(["SCMP_ARCH_AARCH64"])
                },
                "knownFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            },
            "apparmor": {"enabled": cata_runtime::has_apparmor()},
            "selinux": {"enabled": cata_runtime::has_selinux()},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    })
}
