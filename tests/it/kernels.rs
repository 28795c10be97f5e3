//! Kernels: taken from packages and files, chosen, removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use cata_tests::harness::Test;
use cata_tests::kernel;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(kernel_of_a_package_is_downloaded_and_nothing_is_installed).images(&[]),
        test!(kernel_bad_input_leaves_nothing).images(&[]).with_kernel(),
        test!(kernel_without_space_leaves_nothing).images(&[]).with_kernel(),
        test!(kernel_commands).images(&[]),
        test!(kernel_in_use_is_kept).images(&[]),
        test!(kernel_of_a_killed_command_is_swept).images(&[]),
    ]
}

const DRIVERS: [&str; 4] = ["virtio-mmio", "virtio_console", "virtio_net", "virtiofs"];

fn file(w: &World, release: &str) -> PathBuf {
    w.file(&format!("vmlinux-{release}"), kernel::by_hand(release, &DRIVERS))
}

fn import(w: &World, release: &str) {
    let _ = w.cata(&["kernel", "import", file(w, release).to_str().unwrap()]).ok();
}

/// What is in `<root>/kernels`, what makers work in aside, which must be empty.
fn kept(w: &World) -> Vec<String> {
    let list = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let dir = w.root().join("kernels");
    assert_eq!(list(&dir.join("making")), Vec::<String>::new());
    let mut names: Vec<String> = list(&dir).into_iter().filter(|name| name != "making").collect();
    names.sort();
    names
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A package, in a folder of its own.
fn package(w: &World, name: &str, depends: &str, kernel: Option<&[u8]>) -> PathBuf {
    let tree = w.scratch().join(name);
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\nDescription: test\n{depends}"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    if let Some(kernel) = kernel {
        fs::create_dir_all(tree.join("boot")).unwrap();
        fs::write(tree.join("boot/vmlinuz-6.9.1-test"), kernel).unwrap();
        fs::create_dir_all(tree.join("lib/modules/6.9.1-test")).unwrap();
        let builtin =
            "kernel/virtio_mmio.ko\nkernel/virtio_console.ko\nkernel/virtio_net.ko\nkernel/virtiofs.ko\n";
        fs::write(tree.join("lib/modules/6.9.1-test/modules.builtin"), builtin).unwrap();
    }
    let deb = w.scratch().join(format!("{name}_1_amd64.deb"));
    let _ = run("dpkg-deb", &["--build", "-Zgzip", tree.to_str().unwrap(), deb.to_str().unwrap()]);
    deb
}

fn kernel_of_a_package_is_downloaded_and_nothing_is_installed(w: &World) {
    let kernel = kernel::by_hand("6.9.1-test", &[]);
    let real = package(w, "linux-image-6.9.1-test", "", Some(&kernel));
    let meta = package(w, "linux-image-test", "Depends: linux-image-6.9.1-test (= 1)\n", None);
    let other = package(w, "cata-other", "Depends: libc6\n", None);
    let mut index = String::new();
    for deb in [&real, &meta, &other] {
        let sum = run("sha256sum", &[deb.to_str().unwrap()]);
        index.push_str(&run("dpkg-deb", &["--field", deb.to_str().unwrap()]));
        let name = deb.file_name().unwrap().to_str().unwrap();
        let (size, sum) = (fs::metadata(deb).unwrap().len(), sum.split(' ').next().unwrap().to_owned());
        index.push_str(&format!("Filename: ./{name}\nSize: {size}\nSHA256: {sum}\n\n"));
    }
    let _ = w.file("Packages", index);
    // The world's /etc is its own.
    fs::remove_dir_all("/etc/apt/sources.list.d").unwrap();
    fs::create_dir_all("/etc/apt/sources.list.d").unwrap();
    let source = format!("deb [trusted=yes] file:{} ./\n", w.scratch().display());
    fs::write("/etc/apt/sources.list", source).unwrap();

    assert_eq!(w.cata(&["kernel", "install", "linux-image-test"]).text(), "6.9.1-test");
    assert_eq!(kept(w), ["6.9.1-test", "default"]);
    let source = w.cata(&["kernel", "inspect", "--format", "{{.Source.Package}}", "6.9"]).text();
    assert_eq!(source, "linux-image-6.9.1-test");
    let again = w.cata(&["kernel", "install", "linux-image-6.9.1-test"]).ok();
    assert!(again.stderr.contains("6.9.1-test is there already"), "{}", again.stderr);
    let installed = Command::new("dpkg").args(["--status", "linux-image-6.9.1-test"]).output().unwrap();
    assert!(!installed.status.success());

    let error = w.cata(&["kernel", "install", "cata-other"]).exits(1).stderr;
    assert!(error.contains("the package cata-other holds no kernel"), "{error}");
    let error = w.cata(&["kernel", "install", "linux-image-none"]).exits(1).stderr;
    assert!(error.contains("no package linux-image-none for amd64"), "{error}");
    // Nor is there one for another processor, and no trace of having looked.
    let _ = w.cata(&["kernel", "install", "--platform", "linux/arm64", "linux-image-test"]).exits(1);
    let error = w.cata(&["kernel", "install", "--platform", "linux/s390x"]).exits(125).stderr;
    assert!(error.contains("there is no kernel for linux/s390x"), "{error}");
    assert_eq!(kept(w), ["6.9.1-test", "default"]);
}

fn kernel_bad_input_leaves_nothing(w: &World) {
    let before = kept(w);
    let real = w.cata(&["kernel", "inspect", "--format", "{{.Kernel}}", "6"]).text();
    let refused = |args: &[&str], words: &str| {
        let args = [&["kernel", "import"], args].concat();
        let error = w.cata(&args).exits(1).stderr;
        assert!(error.contains(words), "{args:?}: {error}");
    };
    refused(&["/etc/passwd"], "/etc/passwd is not a kernel");
    refused(&["/nonexistent"], "read /nonexistent: no such file or directory");
    refused(&["/bin/sh"], "is not a kernel");
    // The real one has its drivers as modules, which are not given.
    refused(&["--name", "x", &real], "has no driver virtio_net, neither built in nor as a module");
    let cut = w.file("cut", &fs::read(&real).unwrap()[..1 << 20]);
    refused(&[cut.to_str().unwrap()], "is not a kernel");
    let whole = file(w, "6.9.1");
    for name in ["default", "a/b", "..", ".x"] {
        refused(&["--name", name, whole.to_str().unwrap()], "invalid kernel name");
    }
    let others = w.scratch().join("5.5.5");
    fs::create_dir(&others).unwrap();
    let others = others.to_str().unwrap();
    refused(&["--modules", others, whole.to_str().unwrap()], "the modules are those of 5.5.5");
    let arm = kernel::by_hand("6.9.1", &DRIVERS);
    let riscv: Vec<u8> =
        arm.iter().enumerate().map(|(at, byte)| if at == 18 { 243 } else { *byte }).collect();
    refused(&[w.file("riscv", riscv).to_str().unwrap()], "is a kernel for riscv");
    assert_eq!(kept(w), before);
}

fn kernel_without_space_leaves_nothing(w: &World) {
    let real = w.cata(&["kernel", "inspect", "--format", "{{.Kernel}}", "6"]).text();
    // All drivers by hand, so that it gets as far as writing.
    let mut kernel = fs::read(real).unwrap();
    DRIVERS.iter().for_each(|driver| kernel.extend(format!("\0{driver}\0").as_bytes()));
    let kernel = w.file("kernel", kernel);
    let small = w.scratch().join("small");
    fs::create_dir(&small).unwrap();
    let _ = run("mount", &["-t", "tmpfs", "-o", "size=20m", "small", small.to_str().unwrap()]);
    let root = small.join("root");
    let args = ["--root", root.to_str().unwrap(), "kernel", "import", kernel.to_str().unwrap()];
    let error = w.cata(&args).exits(1).stderr;
    assert!(error.contains("no space") && error.contains("hint: free space"), "{error}");
    assert_eq!(fs::read_dir(root.join("kernels/making")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("kernels")).unwrap().count(), 1);
    let _ = run("umount", &[small.to_str().unwrap()]);
}

fn kernel_commands(w: &World) {
    let list = |args: &[&str]| w.cata(&[&["kernel", "ls"], args].concat()).ok().stdout;
    assert_eq!(list(&["-q"]), "");
    import(w, "6.1.9");
    import(w, "6.12.1");
    assert_eq!(list(&["-q"]), "6.1.9\n6.12.1\n");
    assert_eq!(list(&["--format", "{{.Name}}{{.Default}}"]), "6.1.9*\n6.12.1\n");
    assert_eq!(w.cata(&["kernel", "use", "6.12"]).text(), "6.12.1");
    assert_eq!(list(&["--filter", "default=true", "-q"]), "6.12.1\n");
    let error = w.cata(&["kernel", "use", "6.1.9.9"]).exits(1).stderr;
    assert!(error.contains("no such kernel: 6.1.9.9\nhint: list them with `cata kernel ls`"), "{error}");
    // One of the same name is replaced.
    let other = w.file("other", kernel::by_hand("6.12.1-other", &DRIVERS));
    let _ = w.cata(&["kernel", "import", "--name", "6.12.1", other.to_str().unwrap()]).ok();
    let release = w.cata(&["kernel", "inspect", "--format", "{{.Release}}", "6.12.1"]).text();
    assert_eq!(release, "6.12.1-other");
    assert_eq!(w.cata(&["kernel", "rm", "6.12", "6.1"]).ok().stdout, "6.12.1\n6.1.9\n");
    assert_eq!(kept(w), Vec::<String>::new());
    let _ = w.cata(&["kernel", "rm", "6"]).exits(1);
}

fn kernel_in_use_is_kept(w: &World) {
    import(w, "6.9.1");
    let kernel = File::open(w.root().join("kernels/6.9.1/vmlinux")).unwrap();
    rustix::fs::flock(&kernel, rustix::fs::FlockOperation::LockShared).unwrap();
    let error = w.cata(&["kernel", "rm", "6.9.1"]).exits(1).stderr;
    assert!(error.contains("the kernel 6.9.1 is in use by a running VM"), "{error}");
    assert_eq!(kept(w), ["6.9.1", "default"]);
    drop(kernel);
    let _ = w.cata(&["kernel", "rm", "6.9.1"]).ok();
    assert_eq!(kept(w), Vec::<String>::new());
}

fn kernel_of_a_killed_command_is_swept(w: &World) {
    import(w, "6.9.1");
    // No process has such a number.
    let making = w.root().join("kernels/making");
    fs::create_dir_all(making.join("99999999-0/scratch/files")).unwrap();
    std::os::unix::fs::symlink("6.9.1", making.join("99999999-default")).unwrap();
    import(w, "6.9.2");
    assert_eq!(kept(w), ["6.9.1", "6.9.2", "default"]);
}
