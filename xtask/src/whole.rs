//! The image of a whole system that tests boot: the distribution's kernel package as it is, unpacked over busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_kernel::image::Arch;
use cata_kernel::package;
use cata_tests::{cache, whole};

/// Another kernel than the one that machines have when none is named.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Says when it is up and when it goes down.
const INITTAB: &str = "::sysinit:/bin/echo the system is up\n::respawn:/bin/sleep 3600\n\
    ::shutdown:/bin/echo the system goes down\n";

/// Makes it unless it is in the cache.
pub(crate) fn make() -> Result<()> {
    let _lock = cache::lock("image-whole")?;
    let tar = whole::place()?;
    if tar.exists() {
        return Ok(());
    }
    println!("making the image of a whole system");
    let work = tar.with_extension("partial");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    package::fetch(KERNEL, Arch::Amd64, &work)?;
    let tree = work.join("files");
    // What is read by people only.
    fs::remove_dir_all(tree.join("usr")).context("remove the documents")?;
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp"] {
        fs::create_dir_all(tree.join(folder)).with_context(|| format!("create {folder}"))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("copy /bin/busybox")?;
    let applets = Command::new("/bin/busybox").arg("--list").output().context("run busybox")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", tree.join("bin").join(applet)).with_context(|| format!("link {applet}"))?;
    }
    symlink("../bin/busybox", tree.join("sbin/init")).context("link sbin/init")?;
    for (name, text) in [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("inittab", INITTAB)] {
        fs::write(tree.join("etc").join(name), text).with_context(|| format!("write etc/{name}"))?;
    }
    let packed = work.join("tar");
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&packed).arg("-C").arg(&tree).args(["--numeric-owner", "."]);
    let output = pack.output().context("run tar")?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&packed, &tar).with_context(|| format!("rename {}", packed.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
}
