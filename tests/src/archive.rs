//! Images made by hand: layers with entries that no honest tool writes, in archives as `docker save` writes them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cache::{Recipe, hex};

/// A layer being written.
pub struct Layer(Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    /// The `busybox` image's only layer, to build upon.
    ///
    /// # Panics
    /// When the image has not been made.
    #[must_use]
    pub fn busybox() -> Vec<u8> {
        let tar = Recipe::of("busybox").made().expect("the image has been made");
        std::fs::read(tar).expect("a file of the cache")
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &str) -> Self {
        self.entry(path, EntryType::Regular, mode, "", content.as_bytes())
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, "", &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, target, &[])
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, target, &[])
    }

    /// Adds an entry, its names taken as they are.
    ///
    /// # Panics
    /// When a name is longer than a header holds.
    #[must_use]
    pub fn entry(mut self, path: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        // The checked setters refuse exactly the names that are wanted here.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("memory");
        self
    }

    /// The finished tar.
    ///
    /// # Panics
    /// Never: it is in memory.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

/// This machine's architecture as images name it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An archive as `docker save` writes it; `change` may alter the image's configuration.
///
/// # Panics
/// Never: it is in memory.
#[must_use]
pub fn docker_archive(name: &str, layers: &[Vec<u8>], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let digests: Vec<String> = layers.iter().map(|layer| hex(&Sha256::digest(layer))).collect();
    let mut config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": digests.iter().map(|d| format!("sha256:{d}")).collect::<Vec<_>>()},
    });
    change(&mut config);
    let config = config.to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let paths: Vec<String> = digests.iter().map(|digest| format!("{}/layer.tar", &digest[..64])).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": paths}]).to_string();

    let mut archive = Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).expect("memory");
    };
    add("manifest.json", manifest.as_bytes());
    add(&config_name, config.as_bytes());
    for (path, layer) in paths.iter().zip(layers) {
        add(path, layer);
    }
    archive.into_inner().expect("memory")
}
