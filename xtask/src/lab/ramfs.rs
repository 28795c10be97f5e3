//! What a run adds to the initramfs: the two stages, the command, its environment and its directories.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use cata_kernel::cpio;

use super::{Options, SLOWNESS};

/// The run's archive.
pub(super) fn make(options: &Options, shares: &[(String, String)], modules: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new();
    archive.file("init", 0o755, include_bytes!("stage1.sh"))?;
    archive.file("lab/stage2", 0o644, include_bytes!("stage2.sh"))?;
    let dir = std::env::current_dir().context("find the current directory")?;
    let mut conf = String::new();
    for (name, value) in [
        ("MODULES", modules.to_string_lossy().as_ref()),
        ("CGROUP", &options.cgroup),
        ("KVM", if options.no_kvm { "0" } else { "1" }),
        ("TTY", if options.tty { "1" } else { "0" }),
        ("STDIN", if options.stdin { "1" } else { "0" }),
        ("DIR", dir.to_string_lossy().as_ref()),
    ] {
        writeln!(conf, "LAB_{name}={}", quote(value))?;
    }
    archive.file("lab/conf", 0o644, conf.as_bytes())?;
    archive.file("lab/env", 0o644, environment(options)?.as_bytes())?;
    archive.file("lab/command", 0o644, command(options).as_bytes())?;
    let (mut mount, mut sync) = (String::new(), String::new());
    for (number, dir) in options.scratch.iter().enumerate() {
        let at = quote(&dir.to_string_lossy());
        let from = format!("/run/lab/scratch/dirs/{number}");
        writeln!(mount, "$B mkdir -p {at} {from} && $B mount -o bind {from} {at}")?;
    }
    for (tag, path) in shares {
        let at = quote(path);
        writeln!(mount, "$B mkdir -p {at}; $B mount -t virtiofs {tag} {at}")?;
        writeln!(sync, "$B sync -f {at} 2> /dev/null")?;
    }
    if !options.disk.is_empty() {
        sync.push_str("$B sync\n");
    }
    archive.file("lab/shares", 0o644, mount.as_bytes())?;
    archive.file("lab/sync", 0o644, sync.as_bytes())?;
    Ok(archive.finish())
}

fn command(options: &Options) -> String {
    let shell = ["bash".to_owned(), "-l".to_owned()];
    let words = if options.command.is_empty() { &shell[..] } else { &options.command };
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("exec {}\n", words.join(" "))
}

/// What the command finds of this machine's environment, and what it is told of the lab.
fn environment(options: &Options) -> Result<String> {
    let mut text = format!("export CATA_LAB=1 CATA_TEST_SLOWNESS={SLOWNESS}\n");
    for name in ["HOME", "PATH", "TERM", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        if let Ok(value) = std::env::var(name) {
            writeln!(text, "export {name}={}", quote(&value))?;
        }
    }
    let cache = cata_tests::cache::dir()?;
    writeln!(text, "export CATA_CACHE={}", quote(&cache.to_string_lossy()))?;
    for variable in &options.env {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (variable.as_str(), std::env::var(variable).unwrap_or_default()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        anyhow::ensure!(
            !name.is_empty() && name.bytes().all(plain),
            "--env {variable}: not a variable's name"
        );
        writeln!(text, "export {name}={}", quote(&value))?;
    }
    Ok(text)
}

/// For the shell, whatever is in it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_keeps_every_letter_from_the_shell() {
        let text = "it's $HOME `x` \"y\" \\ \n!";
        let output =
            std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), text);
    }
}
