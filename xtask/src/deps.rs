//! `cargo xtask deps`: the Debian packages that the other commands need, installed where missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

/// What the packages are for. Each includes what comes before it, but for what builds for arm64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Set {
    /// To build for arm64
    Cross,
    /// To start the lab
    Lab,
    /// To play the demo
    Demo,
    /// To run the tests
    Test,
    /// To measure beside the peers
    Bench,
}

/// Options of `deps`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What for
    #[arg(value_enum, default_value = "test")]
    pub(crate) set: Set,
}

const CROSS: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
const LAB: [&str; 6] =
    ["busybox-static", "e2fsprogs", "kmod", "qemu-system-common", "qemu-system-x86", "util-linux"];
const DEMO: [&str; 6] = ["mmdebstrap", "postgresql-client", "procps", "tmux", "iproute2", "nftables"];
const TEST: [&str; 24] = [
    "qemu-system-arm",
    "docker-registry",
    "skopeo",
    "podman",
    "systemd",
    "slirp4netns",
    "uidmap",
    "docker.io",
    "docker-compose",
    "python3-docker",
    "buildah",
    "crun",
    "criu",
    "apache2-utils",
    "netcat-openbsd",
    "openssl",
    "zstd",
    "apparmor",
    "attr",
    "git",
    "openssh-client",
    "openssh-server",
    "xz-utils",
    "bzip2",
];
const BENCH: [&str; 2] = ["runc", "time"];

fn packages(set: Set) -> Vec<&'static str> {
    if set == Set::Cross {
        return CROSS.to_vec();
    }
    let mut packages = LAB.to_vec();
    if set >= Set::Demo {
        packages.extend(DEMO);
    }
    if set >= Set::Test {
        packages.extend(TEST);
        packages.extend(CROSS);
    }
    if set >= Set::Bench {
        packages.extend(BENCH);
    }
    packages
}

/// Installs what is missing of a set.
pub(crate) fn run(set: Set) -> Result<()> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Status}\n"]);
    let query = query_output(&mut query)?;
    let installed: Vec<&str> = query.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    let missing: Vec<&str> = packages(set).into_iter().filter(|name| !installed.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() {
        bail!(
            "installing packages needs root: run `sudo apt-get install {}`, or this as root",
            missing.join(" ")
        );
    }
    apt_get(&["update", "--quiet=2"])?;
    let mut install =
        vec!["install", "--yes", "--quiet=2", "--option=Dpkg::Use-Pty=0", "--no-install-recommends"];
    install.extend(missing);
    let _quiet = NoServices::ask()?;
    apt_get(&install)
}

/// Asks Debian's packages not to start their servers on this machine, for as long as it lives.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn ask() -> Result<Self> {
        // A policy that the administrator made stays as it is.
        let ours = !Path::new(Self::POLICY).exists();
        if ours {
            // 101: the action is forbidden.
            fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n")
                .with_context(|| format!("write {}", Self::POLICY))?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(Self::POLICY, mode).with_context(|| format!("chmod {}", Self::POLICY))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(Self::POLICY);
        }
    }
}

fn query_output(command: &mut Command) -> Result<String> {
    let output = command.output().context("run `dpkg-query`: this needs Debian or a relative of it")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1");
    let status = command.status().context("run `apt-get`")?;
    ensure!(status.success(), "`apt-get {}`: {status}", args.join(" "));
    Ok(())
}
