//! Images as archives hold them, read by nobody's engine: the files that the layers give together, the
//! configuration and the history.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::cache::hex;

/// An image.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    /// By path, without `/` at either end.
    pub(super) files: BTreeMap<String, Node>,
    /// The whole document.
    pub(super) config: Value,
    /// The media types of its layers' manifest are not compared; their number is.
    pub(super) layers: usize,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// `file`, `directory`, …
    pub(super) kind: &'static str,
    /// Permissions, with set-user-ID and the like.
    pub(super) mode: u32,
    /// Owner and group.
    pub(super) owner: (u64, u64),
    /// Seconds.
    pub(super) mtime: i64,
    /// A file's digest, a link's target, a device's numbers.
    pub(super) content: String,
    /// Extended attributes.
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name of the same file, if this is another.
    pub(super) same_as: Option<String>,
}

/// Reads what `docker save` writes.
///
/// # Errors
/// When it is no such archive.
pub(super) fn read(path: &Path) -> Result<Image> {
    let dir = path.with_extension("unpacked");
    let _ = std::fs::remove_dir_all(&dir);
    let open = || File::open(path).with_context(|| format!("open {}", path.display()));
    Archive::new(open()?).unpack(&dir).with_context(|| format!("unpack {}", path.display()))?;
    let image = read_directory(&dir).with_context(|| format!("read {}", path.display()));
    std::fs::remove_dir_all(&dir).context("remove what was unpacked")?;
    image
}

fn read_directory(dir: &Path) -> Result<Image> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("manifest.json"))?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let config = std::fs::read(dir.join(text(&manifest[0]["Config"])))?;
    let mut image = Image { config: serde_json::from_slice(&config)?, ..Image::default() };
    for layer in manifest[0]["Layers"].as_array().context("a list of layers")? {
        let file = plain_tar(&dir.join(text(layer)))?;
        apply(&mut image.files, file).with_context(|| format!("layer {layer}"))?;
        image.layers += 1;
    }
    Ok(image)
}

/// A layer as it is before compression.
fn plain_tar(path: &Path) -> Result<File> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let _ = file.read(&mut magic)?;
    file.rewind()?;
    if magic != [0x1f, 0x8b] {
        return Ok(file);
    }
    let whole = path.with_extension("tar");
    let status = Command::new("gzip").arg("-dc").stdin(file).stdout(File::create(&whole)?).status();
    ensure!(status.context("run gzip")?.success(), "gzip cannot read it");
    Ok(File::open(whole)?)
}

fn apply(files: &mut BTreeMap<String, Node>, layer: impl Read) -> Result<()> {
    let mut archive = Archive::new(layer);
    let mut fresh = BTreeMap::new();
    let mut gone = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = plain(&String::from_utf8_lossy(&entry.path_bytes()));
        if path.is_empty() {
            continue;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            gone.push((parent.to_owned(), false));
            continue;
        }
        if let Some(name) = name.strip_prefix(".wh.") {
            gone.push((plain(&format!("{parent}/{name}")), true));
            continue;
        }
        let node = node(&mut entry, &fresh)?;
        fresh.insert(path, node);
    }
    // Removals are of what is below, never of what this layer brings.
    for (path, itself) in gone {
        let beneath = format!("{path}/");
        files.retain(|known, _| !(known.starts_with(&beneath) || beneath == "/" || itself && *known == path));
    }
    for (path, node) in fresh {
        let was_directory = files.get(&path).is_some_and(|old| old.kind == "directory");
        if was_directory && node.kind != "directory" {
            let beneath = format!("{path}/");
            files.retain(|known, _| !known.starts_with(&beneath));
        }
        files.insert(path, node);
    }
    Ok(())
}

fn node(entry: &mut tar::Entry<'_, impl Read>, fresh: &BTreeMap<String, Node>) -> Result<Node> {
    let header = entry.header().clone();
    let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
    let (kind, content) = match header.entry_type() {
        EntryType::Directory => ("directory", String::new()),
        EntryType::Symlink => ("symbolic link", link.clone().unwrap_or_default()),
        EntryType::Fifo => ("fifo", String::new()),
        EntryType::Char => ("character device", devices(&header)?),
        EntryType::Block => ("block device", devices(&header)?),
        EntryType::Link => {
            let target = plain(&link.unwrap_or_default());
            let first =
                fresh.get(&target).with_context(|| format!("a hard link to {target}, which is not"))?;
            let same_as = Some(first.same_as.clone().unwrap_or(target));
            return Ok(Node { same_as, ..first.clone() });
        }
        _ => {
            let mut hash = Sha256::new();
            std::io::copy(entry, &mut hash)?;
            ("file", hex(&hash.finalize()))
        }
    };
    let mut node = Node {
        kind,
        mode: header.mode()? & 0o7777,
        owner: (header.uid()?, header.gid()?),
        mtime: i64::try_from(header.mtime()?).unwrap_or(i64::MAX),
        content,
        xattrs: BTreeMap::new(),
        same_as: None,
    };
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let (key, value) = (record.key().unwrap_or_default(), record.value_bytes());
        let number = || String::from_utf8_lossy(value).into_owned();
        match key {
            "mtime" => {
                let whole = number();
                node.mtime = whole.split('.').next().unwrap_or_default().parse()?;
            }
            "uid" => node.owner.0 = number().parse()?,
            "gid" => node.owner.1 = number().parse()?,
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    node.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
    }
    Ok(node)
}

fn devices(header: &tar::Header) -> Result<String> {
    let (major, minor) = (header.device_major()?, header.device_minor()?);
    ensure!(major.is_some(), "a device without numbers");
    Ok(format!("{}:{}", major.unwrap_or_default(), minor.unwrap_or_default()))
}

fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}
