//! Docker's flags and commands that are not there yet: named, so that they are refused clearly instead of
//! looking like typing errors.

/// Flags of Docker's commands that this version does not have, by the command's own name.
const FLAGS: &[(&str, &[&str])] = &[
    (
        "run create",
        &[
            "--checkpoint",
            "--cpu-count",
            "--cpu-percent",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--disable-content-trust",
            "--gpus",
            "--io-maxbandwidth",
            "--io-maxiops",
            "--kernel-memory",
            "--link",
            "--link-local-ip",
            "--runtime",
            "--storage-opt",
            "--use-api-socket",
            "--volume-driver",
        ],
    ),
    (
        "build",
        &[
            "--attest",
            "--build-arg-file",
            "--builder",
            "--compress",
            "--cpu-period",
            "--cpu-quota",
            "--cpu-shares",
            "-c",
            "--cpuset-cpus",
            "--cpuset-mems",
            "--debug",
            "-D",
            "--disable-content-trust",
            "--isolation",
            "--memory",
            "-m",
            "--memory-swap",
            "--policy",
            "--security-opt",
            "--squash",
        ],
    ),
    ("update", &["--cpu-rt-period", "--cpu-rt-runtime", "--kernel-memory"]),
    ("start", &["--checkpoint", "--checkpoint-dir"]),
    ("logs", &["--details"]),
    ("rm", &["--link", "-l"]),
    ("pull push", &["--all-tags", "-a", "--disable-content-trust"]),
    ("push", &["--platform"]),
    ("images ls", &["--tree"]),
    ("rmi rm", &["--no-prune", "--platform"]),
    ("load save history inspect", &["--platform"]),
    (
        "create",
        &[
            "--attachable",
            "--aux-address",
            "--config-from",
            "--config-only",
            "--ingress",
            "--ipam-driver",
            "--ipam-opt",
            "--ipv4",
            "--scope",
            "--availability",
            "--group",
            "--limit-bytes",
            "--required-bytes",
            "--secret",
            "--sharing",
            "--topology-preferred",
            "--topology-required",
            "--type",
        ],
    ),
    ("ls", &["--cluster"]),
    (
        "",
        &[
            "--context",
            "-c",
            "--debug",
            "-D",
            "--log-level",
            "-l",
            "--host",
            "-H",
            "--tls",
            "--tlscacert",
            "--tlscert",
            "--tlskey",
            "--tlsverify",
        ],
    ),
];

/// Docker's commands that this version does not have.
const COMMANDS: &[&str] = &[
    "bake",
    "checkpoint",
    "compose",
    "config",
    "connect",
    "context",
    "dial-stdio",
    "disconnect",
    "events",
    "manifest",
    "node",
    "plugin",
    "search",
    "secret",
    "service",
    "stack",
    "swarm",
];

/// Whether Docker's `command` has `flag` and this version does not.
pub(crate) fn is_unsupported_flag(command: &str, flag: &str) -> bool {
    let flag = flag.split('=').next().unwrap_or(flag);
    FLAGS.iter().any(|(commands, flags)| {
        let named =
            if commands.is_empty() { command.is_empty() } else { commands.split(' ').any(|c| c == command) };
        named && flags.contains(&flag)
    })
}

/// Whether Docker has this command and this version does not.
pub(crate) fn is_unsupported_command(name: &str) -> bool {
    COMMANDS.contains(&name)
}
