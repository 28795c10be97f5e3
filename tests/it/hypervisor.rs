//! The hypervisor by itself, in the lab, where there is a KVM: what of it containers do not ask for or cannot see.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use cata_tests::command::{eventually, scaled};
use cata_tests::harness::Test;
use cata_tests::world::World;
use cata_vmm::config::{BlockConfig, MachineConfig, VsockConfig};
use cata_vmm::jail::Filters;
use cata_vmm::{End, Machine};

use crate::machines::{BOOT, SOON, on_kvm};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(hypervisor_by_itself).with_kernel().also_in_lab_for(30)]
}

/// What the guest does: the drivers are in the kernel's own archive, in their order.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
until [ -c /dev/hvc0 ] && echo here > /dev/hvc0; do sleep 0.1; done
exec > /dev/hvc0 2>&1
echo \"processors $(nproc)\"
until [ -b /dev/vda ]; do sleep 0.1; done
echo \"disk $(cat /sys/block/vda/serial) $(head -n 1 /dev/vda)\"
echo written | dd of=/dev/vda bs=512 seek=1 conv=sync,fsync 2> /dev/null
until [ -c /dev/hwrng ]; do sleep 0.1; done
echo \"entropy $(head -c 16 /dev/hwrng | wc -c)\"
echo waiting
inflated() { awk '/^balloon_inflate/ { print $2 }' /proc/vmstat; }
until [ \"$(inflated)\" -ge 4096 ]; do sleep 0.05; done
echo inflated
poweroff -f
";

/// An initial file system with [`INIT`] and busybox.
fn initramfs(w: &World) -> PathBuf {
    let tree = w.scratch().join("tree");
    for dir in ["bin", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let _ = fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("init"), INIT).unwrap();
    let pack = "chmod 755 init && find . | busybox cpio -o -H newc > ../initramfs";
    let packed = Command::new("sh").args(["-ec", pack]).current_dir(&tree).status().unwrap();
    assert!(packed.success());
    w.scratch().join("initramfs")
}

fn hypervisor_by_itself(w: &World) {
    if on_kvm() {
        let kernel = w.root().join("kernels/default");
        let archives = [kernel.join("initramfs"), initramfs(w)];
        lives(w, &kernel.join("vmlinux"), &archives);
    }
}

/// Two processors, a disk, entropy, a socket, a balloon; held for a while, and powered off by itself.
fn lives(w: &World, kernel: &Path, archives: &[PathBuf]) {
    let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
    let disk = w.file("disk", [&b"given\n"[..], &[0; 4090]].concat());
    let (console, socket) = (w.file("console", ""), w.scratch().join("socket"));
    let _ = fs::remove_file(&socket);
    let both = |path: &Path| File::options().read(true).write(true).open(path).unwrap().into();
    let config = MachineConfig {
        initramfs: archives.iter().map(|path| open(path)).collect(),
        cmdline: "quiet panic=-1 random.trust_cpu=on".into(),
        console: Some(File::options().append(true).open(&console).unwrap().into()),
        block: vec![BlockConfig { file: both(&disk), read_only: false, serial: "hull".into() }],
        vsock: Some(VsockConfig { cid: 3, listener: UnixListener::bind(&socket).unwrap().into() }),
        balloon: true,
        rng: true,
        ..MachineConfig::new(2, 256 << 20, open(kernel))
    };
    let filters = Filters::new().unwrap();
    let machine = Machine::new(config, both(Path::new("/dev/kvm"))).unwrap();
    let machine = machine.start(Some(&filters)).unwrap();
    let said = || fs::read_to_string(&console).unwrap();
    eventually("the guest waits", BOOT, || {
        assert_eq!(machine.end(), None, "{}", said());
        said().contains("waiting").then_some(())
    });
    let lines = said().replace('\r', "");
    for line in ["processors 2", "disk hull given", "entropy 16"] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
    assert!(fs::read(&disk).unwrap()[512..].starts_with(b"written\n"));
    // Nobody listens in the guest, which says so.
    let mut caller = UnixStream::connect(&socket).unwrap();
    caller.set_read_timeout(Some(scaled(SOON))).unwrap();
    caller.write_all(b"CONNECT 1024\n").unwrap();
    assert_eq!(caller.read(&mut [0; 16]).unwrap(), 0);
    // Held, nothing moves; let go, it does.
    machine.pause();
    let exits = || machine.facts().unwrap().exits;
    let held = exits();
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(exits(), held, "a held machine runs");
    }
    assert!(!said().contains("inflated"));
    machine.resume();
    eventually("it goes on", SOON, || (exits() > held).then_some(()));
    assert!(machine.set_balloon(64 << 20));
    eventually("it powers off", SOON, || machine.end());
    assert!(said().contains("inflated"), "{}", said());
    assert_eq!(machine.balloon().map(|(wanted, _)| wanted), Some(64 << 20));
    assert!(machine.facts().unwrap().resident_bytes < 256 << 20);
    assert_eq!(machine.stop(), End::PowerOff);
}
