//! Virtual machines with another kernel than the host's own kind: images that carry theirs, images of other platforms.

use std::fs;
use std::process::{Command, Stdio};

use cata_tests::command::{Run, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use cata_tests::{foreign, kernel, whole};

use crate::machines::{BOOT, SOON, ask, hidden, run};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(machine_of_a_whole_image).with_kernel().also_in_lab_for(110),
        test!(container_of_another_platform).images(&[]),
        test!(machine_of_another_platform).needs(&["qemu-system-aarch64"]),
    ]
}

/// An image with nothing but a kernel that lacks a driver.
fn lacking(w: &World, name: &str) {
    let boot = w.scratch().join(name).join("boot");
    fs::create_dir_all(&boot).unwrap();
    let drivers = ["virtio-mmio", "virtio-pci", "virtio_console", "virtio_net"];
    fs::write(boot.join("vmlinuz-6.9.1"), kernel::by_hand("6.9.1", &drivers)).unwrap();
    // One that would lead out of the image, were it followed on the host.
    std::os::unix::fs::symlink("/etc/passwd", boot.join("vmlinuz-9.9.9")).unwrap();
    let tar = w.scratch().join(format!("{name}.tar"));
    let packed =
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(boot.parent().unwrap()).arg(".").status();
    assert!(packed.unwrap().success());
    let _ = w.cata(&["import", tar.to_str().unwrap(), name]).ok();
}

/// `--kernel image`: the image's own kernel, drivers and init.
fn machine_of_a_whole_image(w: &World) {
    w.cata(&["run", "--rm", "--kernel", "image", "busybox", "true"]).fails(125, &["add --isolation vm"]);
    let whole = ["--kernel", "image"];
    let with = |args: &[&'static str]| [&whole[..], args].concat();
    run(w, &with(&["busybox", "true"])).fails(125, &["the image busybox carries no kernel", "/boot/vmlinuz"]);
    lacking(w, "lacking");
    run(w, &with(&["lacking", "true"])).fails(125, &["the image lacking", "6.9.1 has no driver virtiofs"]);
    let names = ["kernel", "import", "--name", "image-x", "/etc/passwd"];
    w.cata(&names).fails(1, &["invalid kernel name"]);
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    let before = w.cata(&["kernel", "ls", "-q"]).lines();

    let tar = whole::tar().unwrap();
    let _ = w.cata_run(["import", tar.to_str().unwrap(), "whole"]).patience(BOOT).done().ok();
    let _ = run(w, &with(&["-d", "--name", "sys", "whole", "/sbin/init"])).ok();
    let sh = |script: &str| w.cata_run(["exec", "sys", "sh", "-c", script]).patience(SOON).done();
    eventually("init is up", SOON, || {
        w.cata(&["logs", "sys"]).stdout.contains("the system is up").then_some(())
    });
    let kernels = w.cata(&["kernel", "ls", "-q"]).lines();
    let own: Vec<&String> = kernels.iter().filter(|name| !before.contains(name)).collect();
    assert!(own.len() == 1 && own[0].starts_with("image-"), "{kernels:?}");
    let release = sh("uname -r").text();
    assert!(!before.contains(&release) && release.ends_with("-cloud-amd64"), "{release}");
    assert_eq!(w.field("sys", "{{.Machine.Kernel}}"), *own[0]);
    // Init is process 1 and the machine is its: it loads a driver out of its own files, and sees all cgroups.
    let script = "cat /proc/1/comm; m=/lib/modules/$(uname -r)/kernel/drivers/net/dummy.ko; insmod $m; \
        ls -d /sys/module/dummy; ls -d /dev/vport*p1 > /dev/null && echo nodes; ls -d /sys/fs/cgroup/catamaran";
    assert_eq!(sh(script).lines(), ["init", "/sys/module/dummy", "nodes", "/sys/fs/cgroup/catamaran"]);
    // It puts its services into cgroups of their own, as inits do: there is a place for one more process.
    let script = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/1/cgroup) && mkdir services && \
        for p in $(cat cgroup.procs); do echo $p > services/cgroup.procs; done; \
        echo +pids > cgroup.subtree_control && echo divided";
    eventually("init's cgroup is divided", SOON, || sh(script).stdout.contains("divided").then_some(()));
    assert!(sh("cat /proc/self/cgroup").text().ends_with("/services"));
    // Its own signal for the end is sent, and a machine that was powered off has ended well.
    assert_eq!(w.field("sys", "{{.Config.StopSignal}}"), "SIGUSR2");
    let _ = w.cata_run(["stop", "-t", "90", "sys"]).patience(SOON).done().ok();
    assert_eq!(w.field("sys", "{{.State.ExitCode}}"), "0");
    let logs = w.cata(&["logs", "sys"]).ok().stdout;
    assert!(logs.contains("the system goes down"), "{logs}");
    // The kernel goes with the image.
    let _ = w.cata(&["rm", "sys"]).ok();
    let _ = w.cata(&["rmi", "whole"]).ok();
    assert_eq!(w.cata(&["kernel", "ls", "-q"]).lines(), before);
}

/// A container of arm64 programs, which the kernel starts with an emulator. It is told so in a user namespace: what is
/// registered there is the namespace's own.
fn container_of_another_platform(w: &World) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        // Before it there is one table for the whole machine, which is not a test's to change.
        return;
    }
    let mut holder = Command::new("unshare").args(["--user", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = holder.id();
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    eventually("a user namespace", SOON, || {
        fs::read_link(format!("/proc/{pid}/ns/user")).is_ok_and(|theirs| theirs != own).then_some(())
    });
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), "0 0 65536").unwrap();
    }
    let emulator = foreign::emulator().unwrap();
    let tar = foreign::seed(w).unwrap();
    // How programs for arm64 begin, as Debian's package has it; F: opened once, for containers that have no such file.
    let script = format!(
        "set -e; mkdir -p /run/user; export CATA_STATE=/run/user/state CATA_ROOT=/run/user/root\n\
         mount -t tmpfs none /run/user; cata() {{ \"$CATA_BIN\" \"$@\"; }}\n\
         mount -t binfmt_misc none /proc/sys/fs/binfmt_misc\n\
         cata import --platform linux/arm64 --change 'ENV PATH=/bin' {tar} box > /dev/null\n\
         cata run --rm --network none box uname -m 2>&1 || echo refused\n\
         printf '%s' ':arm:M::{start}:{mask}:{emulator}:FOC' > /proc/sys/fs/binfmt_misc/register\n\
         cata run --rm --network none box sh -c 'uname -m; id -u; exit 3' || echo code $?\n\
         cata run -i --rm --network none box cat < /etc/hostname | cmp - /etc/hostname && echo same\n\
         mkdir /run/user/context\n\
         printf 'FROM box\\nCOPY Dockerfile /d\\nRUN uname -m > /m; read word image < /d; echo $image >> /m\\n' > /run/user/context/Dockerfile\n\
         cata build -q --platform linux/arm64 --network none -t made /run/user/context > /dev/null\n\
         cata run --rm --network none --platform linux/arm64 made cat /m\n\
         cata image inspect --format '{{{{.Architecture}}}}' made\n",
        tar = tar.display(),
        emulator = emulator.display(),
        start = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
        mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
    );
    let target = pid.to_string();
    let args =
        ["--user", "--target", &target, "--setuid", "0", "--setgid", "0", "unshare", "--mount", "sh", "-c"];
    let done =
        Run::new("nsenter").args(args).arg(&script).env("CATA_BIN", cata_binary()).patience(SOON).done();
    drop(holder.stdin.take());
    let _ = holder.wait().unwrap();
    let lines = done.ok().lines();
    let ran = ["aarch64", "0", "code 3", "same", "aarch64", "box", "arm64"];
    let (before, after) = lines.split_at(lines.len().saturating_sub(ran.len()));
    assert_eq!(after, ran, "{lines:?}");
    let refused = before.join("\n");
    assert!(refused.contains("no emulator for arm64 is registered"), "{refused}");
    assert!(refused.contains("install Debian's package qemu-user-static"), "{refused}");
}

/// An arm64 kernel, and an arm64 image on it.
fn machine_of_another_platform(w: &World) {
    let tar = foreign::seed(w).unwrap();
    let change = "ENV PATH=/bin:/sbin:/usr/bin:/usr/sbin";
    let args = ["import", "--platform", "linux/arm64", "--change", change, tar.to_str().unwrap(), "box"];
    let _ = w.cata(&args).ok();
    hidden("/usr/bin/qemu-system-aarch64", || {
        run(w, &["--rm", "box", "true"]).fails(125, &["is not installed", "package qemu-system-arm"]);
    });
    let _ = w.cata(&["network", "create", "deck"]).ok();
    let serve = "while :; do echo container | nc -l -p 80; done";
    let _ = w.cata(&["run", "-d", "--name", "cc", "--network", "deck", "busybox", "sh", "-c", serve]).ok();
    // A signal is heard only where somebody listens.
    let script = "while :; do echo $(uname -m) | nc -l -p 80 > /dev/null; done & \
        trap 'exit 7' TERM; echo out; while :; do sleep 0.2; done";
    let args = [
        "-d",
        "--name",
        "arm",
        "--platform",
        "linux/arm64",
        "--cpus",
        "1",
        "--network",
        "deck",
        "-p",
        "8080:80",
        "-v",
        "data:/data",
        "-w",
        "/data",
    ];
    let args: Vec<&str> = args.into_iter().chain(["box", "sh", "-c", script]).collect();
    let _ = run(w, &args).ok();
    let sh = |script: &str| w.cata_run(["exec", "-i", "arm", "sh", "-c", script]).patience(BOOT);
    let lines = sh("uname -m; uname -r; pwd; id -u; grep Seccomp: /proc/self/status").done().lines();
    assert!(lines.len() == 5 && lines[1].ends_with("-cloud-arm64"), "{lines:?}");
    assert_eq!([&lines[0], &lines[2], &lines[3], &lines[4]], ["aarch64", "/data", "0", "Seccomp:\t2"]);
    assert!(sh("mount -t tmpfs x /tmp").done().stderr.contains("denied"));
    let bulk = vec![b'x'; 1 << 20];
    assert_eq!(sh("tee /data/file").input(bulk).done().ok().stdout.len(), 1 << 20);
    assert_eq!(fs::metadata(w.root().join("volumes/data/_data/file")).unwrap().len(), 1 << 20);
    let reason = w.field("arm", "{{.Machine.Reason}}");
    assert!(reason.contains("linux/arm64 is another kind of processor"), "{reason}");
    // Names and ports, both ways.
    eventually("the published port", SOON, || (ask(8080)? == "aarch64").then_some(()));
    eventually("the machine reaches the container", SOON, || {
        (sh("nc cc 80 < /dev/null").done().stdout.trim() == "container").then_some(())
    });
    let reach = ["exec", "cc", "sh", "-c", "nc arm 80 < /dev/null"];
    eventually("the container reaches the machine", SOON, || {
        (w.cata_run(reach).patience(SOON).done().stdout.trim() == "aarch64").then_some(())
    });
    eventually("its trap is set", SOON, || w.cata(&["logs", "arm"]).stdout.contains("out").then_some(()));
    let _ = w.cata_run(["stop", "-t", "150", "arm"]).patience(BOOT).done().ok();
    assert_eq!(w.field("arm", "{{.State.ExitCode}}"), "7");
    assert_eq!(w.cata(&["logs", "arm"]).text(), "out");
    let _ = w.cata(&["rm", "-f", "arm", "cc"]).ok();
    let _ = w.cata(&["network", "rm", "deck"]).ok();
}
