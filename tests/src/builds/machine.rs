//! How this machine reaches its package registries, as a folder that builds are shown: so no registry is named in
//! this repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::world::{World, machines_home};

/// Sourced by the steps that fetch: the tools' settings, and this machine's certificates.
const USE: &str = "\
export APT_CONFIG=/machine/apt.conf DEBIAN_FRONTEND=noninteractive
export SSL_CERT_FILE=/machine/ca.crt PIP_CERT=/machine/ca.crt CARGO_HTTP_CAINFO=/machine/ca.crt NODE_EXTRA_CA_CERTS=/machine/ca.crt
export npm_config_cafile=/machine/ca.crt NPM_CONFIG_USERCONFIG=/machine/npmrc PIP_CONFIG_FILE=/machine/pip.conf
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore npm_config_update_notifier=false CARGO_HOME=/usr/local/cargo
if [ -s /machine/cargo.toml ]; then mkdir -p $CARGO_HOME; cp /machine/cargo.toml $CARGO_HOME/config.toml; fi
. /machine/env
";

/// Variables by which this machine may say where its registries are.
const VARIABLES: [&str; 12] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
];

/// Makes the folder.
///
/// # Errors
/// When it cannot be written.
pub fn describe(world: &World) -> Result<PathBuf> {
    let dir = world.scratch().join("machine");
    fs::create_dir_all(&dir).context("make the folder")?;
    let write =
        |name: &str, text: &[u8]| fs::write(dir.join(name), text).with_context(|| format!("write {name}"));
    write("use", USE.as_bytes())?;
    let dump = Command::new("apt-config").arg("dump").output().context("run apt-config")?;
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let wanted: Vec<&str> =
        dump.lines().filter(|line| line.starts_with("Acquire::") && !line.ends_with("\"\";")).collect();
    write("apt.conf", format!("{}\n", wanted.join("\n")).as_bytes())?;
    let home = machines_home().unwrap_or_default();
    for (name, places) in [
        ("ca.crt", vec![PathBuf::from("/etc/ssl/certs/ca-certificates.crt")]),
        ("npmrc", vec![home.join(".npmrc"), "/etc/npmrc".into()]),
        (
            "pip.conf",
            vec![home.join(".config/pip/pip.conf"), home.join(".pip/pip.conf"), "/etc/pip.conf".into()],
        ),
        ("cargo.toml", vec![home.join(".cargo/config.toml"), home.join(".cargo/config")]),
    ] {
        let found = places.iter().find_map(|path: &PathBuf| fs::read(Path::new(path)).ok());
        write(name, &found.unwrap_or_default())?;
    }
    let quoted = |value: String| value.replace('\'', "'\\''");
    let set = VARIABLES.iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let lines: Vec<String> =
        set.map(|(name, value)| format!("export {name}='{}'\n", quoted(value))).collect();
    write("env", lines.concat().as_bytes())?;
    Ok(dir)
}
