//! A tree of modules: which are needed, and in which order. `depmod` is not needed: packages do not carry its
//! tables, and each module names what it depends on itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::compression;
use crate::elf::Elf;
use crate::error::{Error, Result};
use crate::image;

/// The modules of one kernel: `lib/modules/<version>/`.
#[derive(Debug, Clone)]
pub struct Tree {
    version: String,
    /// Module name → file.
    files: BTreeMap<String, PathBuf>,
    /// Names and aliases of what is built in.
    builtin: BTreeSet<String>,
}

/// A module, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Not compressed.
    pub bytes: Vec<u8>,
}

/// What a kernel offers of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Built in.
    Builtin,
    /// As a module.
    Module,
    /// Not at all.
    None,
}

impl Tree {
    /// Reads the tree at `dir`, which is `…/lib/modules/<version>`.
    ///
    /// # Errors
    /// A file operation.
    pub fn open(dir: &Path) -> Result<Self> {
        let version = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut tree = Self { version, files: BTreeMap::new(), builtin: BTreeSet::new() };
        for line in read_text(&dir.join("modules.builtin"))?.lines() {
            tree.builtin.extend(module_name(Path::new(line)));
        }
        for alias in aliases(&read_text(&dir.join("modules.builtin.modinfo"))?) {
            tree.builtin.insert(alias);
        }
        tree.walk(&dir.join("kernel"))?;
        tree.walk(&dir.join("updates"))?;
        Ok(tree)
    }

    /// The kernel's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn walk(&mut self, dir: &Path) -> Result<()> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("list", dir)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::file("list", dir))?;
            let path = entry.path();
            // Links are not followed: a loop would not end.
            let kind = entry.file_type().map_err(Error::file("look at", &path))?;
            if kind.is_dir() {
                self.walk(&path)?;
            } else if let Some(name) = module_name(&path) {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }

    /// What there is of a driver.
    #[must_use]
    pub fn offer(&self, name: &str) -> Offer {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) {
            Offer::Builtin
        } else if self.files.contains_key(&name) {
            Offer::Module
        } else {
            Offer::None
        }
    }

    /// The modules that make these drivers work, each after what it depends on, none twice; what is built in
    /// needs none.
    ///
    /// # Errors
    /// [`Error::NoDriver`] for one that is nowhere; a file that is no module.
    pub fn resolve(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut chosen = Chosen { tree: self, done: BTreeSet::new(), order: Vec::new() };
        for name in names {
            chosen.add(&name.replace('-', "_"), true)?;
        }
        Ok(chosen.order)
    }

    fn load(&self, name: &str) -> Result<Option<Module>> {
        let Some(path) = self.files.get(name) else { return Ok(None) };
        let packed = image::read(path)?;
        let bytes = compression::plain(packed, &path.to_string_lossy())?;
        Ok(Some(Module { name: name.to_owned(), bytes }))
    }
}

struct Chosen<'a> {
    tree: &'a Tree,
    done: BTreeSet<String>,
    order: Vec<Module>,
}

impl Chosen<'_> {
    fn add(&mut self, name: &str, needed: bool) -> Result<()> {
        // Marked before its dependencies: a circle, which depmod would refuse too, ends.
        if self.tree.builtin.contains(name) || !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(module) = self.tree.load(name)? else {
            let (kernel, driver) = (self.tree.version.clone(), name.to_owned());
            return if needed { Err(Error::NoDriver { kernel, driver }) } else { Ok(()) };
        };
        let info = Info::of(&module)?;
        for before in &info.soft {
            self.add(before, false)?;
        }
        for before in &info.depends {
            self.add(before, true)?;
        }
        self.order.push(module);
        Ok(())
    }
}

/// What a module says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    /// Loaded before it where they are there.
    soft: Vec<String>,
}

impl Info {
    fn of(module: &Module) -> Result<Self> {
        let section = Elf::parse(&module.bytes).and_then(|elf| elf.section(".modinfo"));
        let damaged = || Error::Damaged {
            what: format!("the module {}", module.name),
            why: "it has no .modinfo section".to_owned(),
        };
        Ok(Self::parse(section.ok_or_else(damaged)?))
    }

    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for field in section.split(|byte| *byte == 0) {
            let field = String::from_utf8_lossy(field);
            let Some((key, value)) = field.split_once('=') else { continue };
            match key {
                "depends" => info.depends.extend(
                    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")),
                ),
                "softdep" => {
                    // `pre: a b post: c`: what is before.
                    let words = value.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
                    let before = words.take_while(|word| !word.ends_with(':'));
                    info.soft.extend(before.map(|name| name.replace('-', "_")));
                }
                _ => {}
            }
        }
        info
    }
}

/// `kernel/fs/fuse/virtiofs.ko.xz` → `virtiofs`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, end) = file.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// `name.alias=other` of each built-in module.
fn aliases(modinfo: &str) -> impl Iterator<Item = String> + '_ {
    modinfo
        .split('\0')
        .filter_map(|field| field.split_once(".alias=").map(|(_, alias)| alias.replace('-', "_")))
}

/// A table that may be absent.
fn read_text(path: &Path) -> Result<String> {
    match image::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object file that has only a `.modinfo` section.
    fn object(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let mut file = vec![0_u8; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let at = |file: &Vec<u8>| u64::try_from(file.len()).unwrap();
        let info_at = at(&file);
        file.extend(modinfo);
        let names_at = at(&file);
        file.extend(names);
        let table = at(&file);
        for (name, start, size) in
            [(0_u32, 0_u64, 0_usize), (1, info_at, modinfo.len()), (0, names_at, names.len())]
        {
            let mut header = [0_u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&start.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&u64::try_from(size).unwrap().to_le_bytes());
            file.extend(header);
        }
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3_u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("6.9.1-test");
        let write = |path: &str, content: &[u8]| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("modules.builtin", b"kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio-ring.ko\n");
        write("modules.builtin.modinfo", b"crc32c_generic.alias=crypto-crc32c\0crc32c_generic.license=GPL\0");
        write("kernel/net/failover.ko", &object(b"name=failover\0depends=\0"));
        let packed = zstd::stream::encode_all(&*object(b"depends=failover,virtio\0"), 1).unwrap();
        write("kernel/net/net-failover.ko.zst", &packed);
        write(
            "kernel/net/virtio_net.ko",
            &object(b"depends=net_failover,virtio_ring\0softdep=pre: crypto-crc32c absent post: more\0"),
        );
        write("kernel/a.ko", &object(b"depends=b\0"));
        write("kernel/b.ko", &object(b"depends=a\0"));
        write("kernel/lacks.ko", &object(b"depends=nothing\0"));
        write("kernel/text.ko", b"this is no module");
        let tree = Tree::open(&root).unwrap();
        (dir, tree)
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn resolve_orders_dependencies_first_and_leaves_out_what_is_built_in() {
        let (_dir, tree) = tree();
        let modules = tree.resolve(&["virtio-net", "failover", "virtio"]).unwrap();
        assert_eq!(names(&modules), ["failover", "net_failover", "virtio_net"]);
        assert!(modules.iter().all(|module| module.bytes.starts_with(b"\x7fELF")));
        assert_eq!(tree.offer("virtio-ring"), Offer::Builtin);
        assert_eq!(tree.offer("net-failover"), Offer::Module);
        assert_eq!(tree.offer("floppy"), Offer::None);
    }

    #[test]
    fn resolve_ends_in_a_circle() {
        let (_dir, tree) = tree();
        assert_eq!(names(&tree.resolve(&["a"]).unwrap()), ["b", "a"]);
    }

    #[test]
    fn resolve_names_what_is_missing_or_damaged() {
        let (_dir, tree) = tree();
        let said = |name: &str| tree.resolve(&[name]).unwrap_err().to_string();
        assert_eq!(
            said("lacks"),
            "the kernel 6.9.1-test has no driver nothing, neither built in nor as a module"
        );
        assert_eq!(said("text"), "the module text is damaged: it has no .modinfo section");
    }
}
