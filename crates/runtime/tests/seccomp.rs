//! Filters in the kernel: each is loaded into a thread of its own, which ends with the test.

// Clippy does not take helpers of tests for tests.
#![allow(clippy::unwrap_used)]

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use cata_runtime::seccomp::{Arch, compile, docker_default, profile};
use rustix::io::Errno;

const CAPS: [&str; 2] = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"];

/// Runs a test behind a filter.
fn confined<T: Send>(program: &cata_runtime::seccomp::Program, test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            program.load().unwrap();
            test()
        });
        thread.join().unwrap()
    })
}

#[test]
fn docker_default_allows_work_and_refuses_the_rest() {
    let program = compile(&docker_default(&CAPS, Arch::native().unwrap())).unwrap().program;
    confined(&program, || {
        assert!(std::fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t2"));
        assert_eq!(
            rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()),
            Err(Errno::PERM)
        );
        assert_eq!(rustix::process::chroot("/").err(), Some(Errno::PERM));
        assert_eq!(rustix::system::sethostname(b"x").err(), Some(Errno::PERM));
        let socket = |family| rustix::net::socket(family, rustix::net::SocketType::STREAM, None).err();
        assert_eq!(socket(rustix::net::AddressFamily::VSOCK), Some(Errno::PERM));
        assert_eq!(socket(rustix::net::AddressFamily::UNIX), None);
        // Programs start (clone3 is answered ENOSYS, the C library falls back) and are confined too.
        let output = Command::new("sh").args(["-c", "echo started; exec unshare -m true"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "started\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");
        assert!(!output.status.success());
    });
}

#[test]
fn own_profile_with_its_own_error() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
         "args": [{"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}]}]}"#;
    let profile = profile::parse(text).unwrap().resolve(&CAPS, (6, 1), Arch::native().unwrap()).unwrap();
    let program = compile(&profile).unwrap().program;
    confined(&program, || {
        let error = std::fs::create_dir("/tmp/never").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let socket = |family| rustix::net::socket(family, rustix::net::SocketType::STREAM, None).err();
        assert_eq!(socket(rustix::net::AddressFamily::INET6), Some(Errno::AFNOSUPPORT));
        assert_eq!(socket(rustix::net::AddressFamily::INET), None);
    });
}

#[test]
fn loading_needs_no_new_privs_or_a_valid_program() {
    let empty = cata_runtime::seccomp::Program::default();
    let error = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        empty.load().unwrap_err()
    });
    assert_eq!(error.join().unwrap().raw_os_error(), Some(Errno::INVAL.raw_os_error()));
}

/// Printed, never judged: `cargo test --release --test seccomp timings -- --nocapture`.
#[test]
#[allow(clippy::print_stdout)]
fn timings() {
    let arch = Arch::native().unwrap();
    let mut best = [Duration::MAX; 3];
    let mut size = 0;
    for _ in 0..20 {
        let start = Instant::now();
        let profile = docker_default(&CAPS, arch);
        let made = start.elapsed();
        let program = compile(&profile).unwrap().program;
        let compiled = start.elapsed() - made;
        size = program.code.len();
        let loaded = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                let start = Instant::now();
                program.load().unwrap();
                start.elapsed()
            });
            thread.join().unwrap()
        });
        for (best, now) in best.iter_mut().zip([made, compiled, loaded]) {
            *best = now.min(*best);
        }
    }
    println!("profile {:?}, compile {:?} ({size} instructions), load {:?}", best[0], best[1], best[2]);
}
