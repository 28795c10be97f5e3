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
            "--io-maxbandwidth",
            "--io-maxiops",
            "--kernel-memory",
            "--link-local-ip",
            "--runtime",
            "--storage-opt",
            "--use-api-socket",
            "--volume-driver",
        ],
    ),
    ("build", &["--build-arg-file", "--debug", "-D", "--detach", "--disable-content-trust"]),
    ("update", &["--cpu-rt-period", "--cpu-rt-runtime", "--kernel-memory"]),
    ("start", &["--checkpoint", "--checkpoint-dir"]),
    ("rm", &["--link", "-l"]),
    ("pull push", &["--disable-content-trust"]),
    ("images ls", &["--tree"]),
    ("rmi rm", &["--platform"]),
    ("load inspect", &["--platform"]),
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
    ("connect", &["--driver-opt", "--link-local-ip"]),
    ("", &["--debug", "-D", "--log-level", "-l"]),
];

/// Docker's commands that this version does not have.
const COMMANDS: &[&str] = &[
    "bake",
    "checkpoint",
    "config",
    "context",
    "dial-stdio",
    "manifest",
    "node",
    "plugin",
    "search",
    "secret",
    "service",
    "stack",
    "swarm",
];

/// Why a command is not there, or what does the same.
const OF_COMMANDS: &[(&[&str], &str)] = &[
    (
        &["context"],
        "there is no daemon to choose: --root, --state and --machine say which engine; for Docker's clients, `cata serve` and DOCKER_HOST",
    ),
    (&["search"], "a registry is asked by name: cata pull NAME"),
    (
        &["manifest"],
        "cata image inspect looks at an image, cata build --platform A,B makes one of several platforms",
    ),
    (&["service", "stack"], "projects of several containers: cata compose"),
];

/// Why a flag in front of the command is not there, or what does the same.
const OF_PROGRAM: &[(&[&str], &str)] = &[(
    &["--context", "-c", "--host", "-H", "--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify"],
    "there is no daemon to connect to: --root, --state and --machine say which engine",
)];

/// Why a flag of `build` is not there, or what does the same.
const OF_BUILD: &[(&[&str], &str)] = &[
    (&["--builder"], "there is one builder, this engine: leave it out"),
    (&["--compress"], "the context is not sent anywhere: leave it out"),
    (
        &[
            "--memory",
            "-m",
            "--memory-swap",
            "--cpu-period",
            "--cpu-quota",
            "--cpu-shares",
            "-c",
            "--cpuset-cpus",
            "--cpuset-mems",
        ],
        "limits are those of the group that --cgroup-parent names",
    ),
    (&["--security-opt"], "for one step: RUN --security=insecure, and --allow security.insecure"),
    (&["--squash"], "a last stage does it: FROM scratch, and COPY --from=STAGE / /"),
];

/// Why a command of `buildx` is not there, or what does the same.
const OF_BUILDX: &[(&[&str], &str)] = &[
    (&["bake"], "build each target by itself: cata build --target NAME"),
    (
        &["create", "inspect", "install", "ls", "rm", "stop", "uninstall", "use"],
        "there is one builder, this engine, and nothing to manage: cata builder du|prune",
    ),
    (&["debug", "dap", "dial-stdio", "history"], "see what a build did with --progress plain"),
    (
        &["imagetools"],
        "cata build --platform A,B --push makes an index, cata image inspect looks at an image",
    ),
    (&["policy"], "policies are not evaluated"),
    (&["version"], "cata version"),
];

fn find(list: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    list.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// What to do instead of giving a command this flag, if there is more to say than to leave it out.
pub(crate) fn instead_of_flag(command: &str, flag: &str) -> Option<&'static str> {
    match command {
        "build" => find(OF_BUILD, flag),
        "" => find(OF_PROGRAM, flag),
        _ => None,
    }
}

/// What to do instead of a command that is not there.
pub(crate) fn instead_of_command(name: &str) -> &'static str {
    find(OF_COMMANDS, name).unwrap_or("see the commands there are with 'cata --help'")
}

/// What to do instead of a command of `buildx`, if it is one.
pub(crate) fn instead_of_buildx(group: &str, command: &str) -> Option<&'static str> {
    matches!(group, "buildx" | "builder").then(|| find(OF_BUILDX, command)).flatten()
}

/// Whether Docker's `command` has `flag` and this version does not.
pub(crate) fn is_unsupported_flag(command: &str, flag: &str) -> bool {
    let flag = flag.split('=').next().unwrap_or(flag);
    if instead_of_flag(command, flag).is_some() {
        return true;
    }
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

#[cfg(test)]
mod tests {
    use super::{FLAGS, OF_BUILD};
    use crate::command::TREE;
    use crate::tree::{Body, Node};

    fn verbs(nodes: &[Node], name: &str, found: &mut Vec<clap::Command>) {
        for node in nodes {
            match &node.body {
                Body::Group(inner) => verbs(inner, name, found),
                Body::Verb { augment, .. } if node.answers(name) => {
                    found.push(augment(clap::Command::new("")));
                }
                Body::Verb { .. } => {}
            }
        }
    }

    /// What was made since is not said to be missing.
    #[test]
    fn flags_are_not_there() {
        let of_build: Vec<&str> = OF_BUILD.iter().flat_map(|(flags, _)| *flags).copied().collect();
        for (commands, flags) in FLAGS.iter().copied().chain([("build", of_build.as_slice())]) {
            for name in commands.split(' ').filter(|name| !name.is_empty()) {
                let mut found = Vec::new();
                verbs(TREE, name, &mut found);
                assert!(!found.is_empty(), "{name}");
                for flag in flags {
                    let has = |command: &clap::Command| {
                        command.get_arguments().any(|arg| match flag.strip_prefix("--") {
                            Some(long) => arg.get_long() == Some(long),
                            None => arg.get_short() == flag.chars().nth(1),
                        })
                    };
                    // Several commands may have one name (`create`): one of them is meant.
                    assert!(!found.iter().all(has), "{name} {flag}");
                }
            }
        }
    }
}
