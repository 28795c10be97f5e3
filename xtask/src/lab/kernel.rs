//! The lab's kernel: Debian's own package, with all its modules, and an initramfs for the lab's first stage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cata_kernel::image::{self, Arch};
use cata_kernel::modules::{Offer, Tree};
use cata_kernel::{cpio, package};
use cata_tests::cache;

/// Raised when what is kept changes its form.
const FORM: u32 = 1;

/// Needed before the root file system is there; those that are built in need no loading.
const BOOT: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_console", "overlay", "virtiofs"];

/// A kernel in the cache.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) vmlinux: PathBuf,
    pub(super) initramfs: PathBuf,
    /// To be mounted at `/lib/modules`.
    pub(super) modules: PathBuf,
}

/// The kernel called `name`, made at first use.
pub(super) fn get(name: &str) -> Result<Kernel> {
    let package = match name {
        "6.12" => "linux-image-6.12-cloud-amd64",
        "6.1" => "linux-image-cloud-amd64",
        other => bail!("no kernel {other:?}: there are 6.12 and 6.1"),
    };
    let _lock = cache::lock("lab-kernel")?;
    let dir = cache::dir()?.join("lab").join(format!("kernel-{name}-{FORM}"));
    let kernel = Kernel {
        vmlinux: dir.join("vmlinux"),
        initramfs: dir.join("initramfs"),
        modules: dir.join("files/lib/modules"),
    };
    if !dir.exists() {
        eprintln!("lab: fetching the kernel {package}");
        let partial = dir.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        make(package, &partial)?;
        fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))?;
    }
    Ok(kernel)
}

fn make(package: &str, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let unpacked = package::fetch(package, Arch::Amd64, dir)?;
    let file = fs::read(&unpacked.image).with_context(|| format!("read {}", unpacked.image.display()))?;
    let kernel = image::open(file, &unpacked.image.to_string_lossy())?;
    fs::write(dir.join("vmlinux"), &kernel.bytes).context("write vmlinux")?;
    let modules = unpacked.modules.with_context(|| format!("{package} holds no modules"))?;
    let tree = Tree::open(&modules)?;
    fs::write(dir.join("initramfs"), initramfs(&tree)?).context("write the initramfs")?;
    // `modprobe` in the lab wants its tables.
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(dir.join("files")).arg(tree.version());
    let status = depmod.status().context("run `depmod` (Debian package kmod)")?;
    ensure!(status.success(), "depmod: {status}");
    Ok(())
}

fn initramfs(tree: &Tree) -> Result<Vec<u8>> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let busybox = busybox.context("no busybox (Debian package busybox-static)")?;
    let mut archive = cpio::Archive::new();
    archive.file("bin/busybox", 0o755, &busybox)?;
    let wanted: Vec<&str> = BOOT.into_iter().filter(|name| tree.offer(name) != Offer::Builtin).collect();
    let mut list = String::new();
    for module in tree.resolve(&wanted)? {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.bytes)?;
        list.push_str(&format!("{}.ko\n", module.name));
    }
    archive.file("modules/list", 0o644, list.as_bytes())?;
    Ok(archive.finish())
}
