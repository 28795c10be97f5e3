//! What a container may not: capabilities, system calls, paths, other processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cata_tests::harness::Test;
use cata_tests::world::World;
use serde_json::json;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(namespaces_are_its_own),
        test!(namespaces_shared_on_request),
        test!(capabilities_default_added_dropped),
        test!(seccomp_default_refuses),
        test!(seccomp_profile_from_a_file),
        test!(paths_masked_and_read_only),
        test!(privileged_has_all).also_in_lab(),
        test!(no_new_privileges),
        test!(root_read_only),
        test!(devices_are_few).also_in_lab(),
        test!(device_passed_in).also_in_lab(),
        test!(devices_by_name).also_in_lab(),
        test!(sysctl_inside_only),
        test!(shm_size),
        test!(writes_stay_in_the_container),
        test!(nothing_of_the_host_is_open),
        test!(groups_of_the_user),
    ]
}

fn sh(w: &World, options: &[&str], script: &str) -> cata_tests::command::Done {
    let mut args = vec!["run", "--rm"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    w.cata(&args)
}

fn namespace(of: &str, name: &str) -> String {
    fs::read_link(format!("/proc/{of}/ns/{name}")).unwrap().to_string_lossy().into_owned()
}

fn namespaces_are_its_own(w: &World) {
    for name in ["pid", "net", "mnt", "ipc", "uts"] {
        let inside = sh(w, &[], &format!("readlink /proc/self/ns/{name}")).text();
        assert_ne!(inside, namespace("self", name));
    }
    assert_eq!(sh(w, &[], "echo $$").text(), "1");
    let ps = sh(w, &[], "ps").lines();
    assert!(ps.len() <= 3, "{ps:?}");
}

fn namespaces_shared_on_request(w: &World) {
    for (flag, name) in
        [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts"), ("--network=host", "net")]
    {
        let inside = sh(w, &[flag], &format!("readlink /proc/self/ns/{name}")).text();
        assert_eq!(inside, namespace("self", name), "{flag}");
    }
    let _ = w.cata(&["run", "-d", "--name", "base", "--ipc", "shareable", "busybox", "sleep", "600"]).ok();
    let pid = w.field("base", "{{.State.Pid}}");
    for (flag, name) in [
        ("--pid=container:base", "pid"),
        ("--ipc=container:base", "ipc"),
        ("--network=container:base", "net"),
    ] {
        let inside = sh(w, &[flag], &format!("readlink /proc/self/ns/{name}")).text();
        assert_eq!(inside, namespace(&pid, name), "{flag}");
    }
    // POSIX shared memory comes along with the IPC namespace.
    let _ = w.cata(&["exec", "base", "sh", "-c", "echo shared > /dev/shm/segment"]).ok();
    assert_eq!(sh(w, &["--ipc=container:base"], "cat /dev/shm/segment").text(), "shared");
    w.cata(&["run", "--rm", "--pid=container:nobody", "busybox", "true"]).fails(125, &["nobody"]);
}

/// Docker's fourteen, as the kernel prints them.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn capabilities_default_added_dropped(w: &World) {
    let set = |options: &[&str], field: &str| {
        let line = sh(w, options, &format!("grep {field}: /proc/self/status")).text();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(set(&[], field), DEFAULT_CAPABILITIES, "{field}");
    }
    assert_eq!(set(&[], "CapInh"), "0".repeat(16));
    assert_eq!(set(&["-u", "1000"], "CapEff"), "0".repeat(16));
    assert_eq!(set(&["-u", "1000"], "CapBnd"), DEFAULT_CAPABILITIES);
    assert_eq!(set(&["--cap-drop", "ALL"], "CapBnd"), "0".repeat(16));
    assert_eq!(set(&["--cap-drop=all", "--cap-add=CHOWN"], "CapEff"), "0000000000000001");
    assert_eq!(set(&["--cap-add=CAP_NET_ADMIN", "--cap-drop=chown"], "CapEff"), "00000000a80435fa");
    w.cata(&["run", "--rm", "--cap-add=FLYING", "busybox", "true"]).fails(125, &["FLYING"]);
}

fn seccomp_default_refuses(w: &World) {
    assert_eq!(sh(w, &[], "grep Seccomp: /proc/self/status").text(), "Seccomp:\t2");
    let refused = sh(w, &[], "unshare -m true");
    assert_ne!(refused.code(), 0, "{refused}");
    // The capability alone is not enough for Docker's profile to refuse: it follows the capabilities.
    let _ = sh(w, &["--cap-add=SYS_ADMIN"], "unshare -m true").ok();
    let off = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(sh(w, &off, "grep Seccomp: /proc/self/status").text(), "Seccomp:\t0");
}

fn seccomp_profile_from_a_file(w: &World) {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    });
    let file = w.file("profile.json", profile.to_string());
    let option = format!("seccomp={}", file.display());
    let done = sh(w, &["--security-opt", &option], "touch /f && mkdir /d");
    assert!(done.code() != 0 && done.stderr.contains("not implemented"), "{done}");
    let broken = w.file("broken.json", "{");
    let option = format!("seccomp={}", broken.display());
    w.cata(&["run", "--rm", "--security-opt", &option, "busybox", "true"]).fails(125, &["seccomp"]);
}

fn paths_masked_and_read_only(w: &World) {
    let script = "wc -c < /proc/kcore; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w; wc -c < /proc/keys";
    assert!(sh(w, &[], script).lines().iter().all(|l| l.trim() == "0"));
    let paths = ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger"];
    for path in paths.into_iter().filter(|path| std::path::Path::new(path).exists()) {
        let done = sh(w, &[], &format!("echo x > {path}"));
        assert!(done.code() != 0 && done.stderr.contains("Read-only"), "{path}: {done}");
    }
    let make = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -e $d/cgroup.procs ] && mkdir $d/x 2>&- && echo $d; done; true";
    assert_eq!(sh(w, &[], make).text(), "", "a container can make cgroups");
    let open = ["--security-opt", "systempaths=unconfined"];
    let count = "grep -cE ' /proc/(keys|kcore|timer_list|sys) | /sys/firmware ' /proc/mounts; true";
    assert_ne!(sh(w, &[], count).text(), "0");
    assert_eq!(sh(w, &open, count).text(), "0");
}

fn privileged_has_all(w: &World) {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|l| l.starts_with("CapBnd")).unwrap().to_owned();
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs t /mnt 2>&1 || mkdir /mnt && mount -t tmpfs t /mnt";
    let lines = sh(w, &["--privileged"], script).lines();
    // All that this host has to give.
    assert_eq!(lines[0].split_whitespace().nth(1), own.split_whitespace().nth(1));
    assert_eq!(lines[1], "Seccomp:\t0");
    assert_ne!(sh(w, &[], "mkdir -p /mnt; mount -t tmpfs t /mnt").code(), 0);
}

fn no_new_privileges(w: &World) {
    assert_eq!(sh(w, &[], "grep NoNewPrivs /proc/self/status").text(), "NoNewPrivs:\t0");
    let option = ["--security-opt", "no-new-privileges"];
    assert_eq!(sh(w, &option, "grep NoNewPrivs /proc/self/status").text(), "NoNewPrivs:\t1");
    w.cata(&["run", "--rm", "--security-opt", "no-old-privileges", "busybox", "true"])
        .fails(125, &["no-old-privileges"]);
}

fn root_read_only(w: &World) {
    let done = sh(w, &["--read-only"], "touch /f");
    assert!(done.code() != 0 && done.stderr.contains("Read-only"), "{done}");
    let _ = sh(w, &["--read-only", "--tmpfs", "/tmp", "-v", "data:/d"], "touch /tmp/f /d/f /dev/shm/f").ok();
}

fn devices_are_few(w: &World) {
    let done =
        sh(w, &[], "ls /dev | sort | tr '\\n' ' '; head -c 4 /dev/urandom | wc -c; echo x > /dev/null");
    let names = done.ok().stdout;
    for name in ["full", "null", "ptmx", "pts", "random", "shm", "stderr", "tty", "urandom", "zero"] {
        assert!(names.split_whitespace().any(|n| n == name), "{name} not in {names}");
    }
    assert!(!names.contains("kmsg") && !names.contains("mem "), "{names}");
    // Its own devices only: another can be made, not opened.
    let made = sh(w, &[], "mknod /dev/kmsg2 c 1 11 && head -c 1 /dev/kmsg2");
    assert!(made.code() != 0 && made.stderr.contains("not permitted"), "{made}");
}

/// What finds the container as hooks of graphics drivers do: by its bundle, and in that by its root.
const HOOK: &str = r#"#!/bin/sh
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
echo "$1 $MODE" > "$root/etc/vendor.conf"
"#;

fn devices_by_name(w: &World) {
    let (hook, library) = (w.file("hook", HOOK), w.file("library", "vendor's"));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let describe = |hooks: &str| {
        let text = json!({
            "cdiVersion": "0.7.0",
            "kind": "vendor.com/brim",
            "containerEdits": {"env": ["VENDOR=yes"]},
            "devices": [{"name": "0", "containerEdits": {
                "env": ["BRIM=0"],
                "deviceNodes": [{"path": "/dev/brim", "hostPath": "/dev/full", "permissions": "r"}],
                "mounts": [{"hostPath": library, "containerPath": "/usr/lib/vendor.so", "options": ["ro", "bind"]}],
                "hooks": [{"hookName": hooks, "path": hook, "args": ["hook", "linked"], "env": ["MODE=cdi"]}],
                "additionalGids": [4711],
            }}],
        });
        fs::create_dir_all("/var/run/cdi").unwrap();
        fs::write("/var/run/cdi/vendor.json", text.to_string()).unwrap();
    };
    let ask = ["--device", "vendor.com/brim=0"];
    w.cata(&["run", "--rm", ask[0], ask[1], "busybox", "true"]).fails(125, &[ask[1], "/etc/cdi"]);
    describe("createContainer");
    let script = "echo $VENDOR $BRIM; head -c 3 /dev/brim | wc -c; cat /usr/lib/vendor.so; echo; cat /etc/vendor.conf; id -G";
    assert_eq!(sh(w, &ask, script).lines(), ["yes 0", "3", "vendor's", "linked cdi", "0 10 4711"]);
    w.cata(&["run", "--rm", "--gpus", "all", "busybox", "true"]).fails(125, &["nvidia.com/gpu=all", ask[1]]);
    // Whoever starts it again has what is described then.
    let _ = w.cata(&["create", "--name", "again", ask[0], ask[1], "busybox", "cat", "/etc/vendor.conf"]).ok();
    assert_eq!(w.field("again", "{{(index .HostConfig.DeviceRequests 0).DeviceIDs}}"), "[vendor.com/brim=0]");
    describe("poststop");
    w.cata(&["start", "-a", "again"]).fails(1, &["vendor.com/brim=0", "poststop"]);
    describe("createContainer");
    assert_eq!(w.cata(&["start", "-a", "again"]).text(), "linked cdi");
    w.cata(&["run", "--rm", "--isolation", "vm", ask[0], ask[1], "busybox", "true"]).fails(125, &[ask[1]]);
}

fn device_passed_in(w: &World) {
    let device = ["--device", "/dev/full:/dev/brim:r"];
    assert_eq!(
        sh(w, &device, "stat -c %F /dev/brim; head -c 3 /dev/brim | wc -c").lines(),
        ["character special file", "3"]
    );
    w.cata(&["run", "--rm", "--device", "/dev/missing", "busybox", "true"]).fails(125, &["/dev/missing"]);
}

fn sysctl_inside_only(w: &World) {
    let name = "net.ipv4.ip_unprivileged_port_start";
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    assert_eq!(sh(w, &["--sysctl", &format!("{name}=77")], read).text(), "77");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(), before);
    w.cata(&["run", "--rm", "--sysctl", "vm.swappiness=1", "busybox", "true"]).fails(125, &["vm.swappiness"]);
}

fn shm_size(w: &World) {
    let script = "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(sh(w, &[], script).text(), "65536");
    assert_eq!(sh(w, &["--shm-size", "16m"], script).text(), "16384");
}

fn writes_stay_in_the_container(w: &World) {
    let _ = w
        .cata(&[
            "run",
            "--name",
            "aa",
            "busybox",
            "sh",
            "-c",
            "rm /etc/group; echo x > /new; rm -r /home; mkdir /home",
        ])
        .ok();
    let _ = sh(w, &[], "test -e /etc/group && test ! -e /new").ok();
    let _ = w.cata(&["start", "-a", "aa"]).exits(0);
}

fn nothing_of_the_host_is_open(w: &World) {
    // 0, 1, 2, and the one that `ls` reads with.
    assert_eq!(sh(w, &[], "ls /proc/self/fd | wc -l").text(), "4");
    let done = sh(w, &["-u", "1000"], "ls -l /proc/1/cwd /proc/1/root | grep -c ' -> /$'");
    assert_eq!(done.text(), "2");
}

fn groups_of_the_user(w: &World) {
    assert_eq!(
        sh(w, &["-u", "33", "--group-add", "mail", "--group-add", "4242"], "id -G").text(),
        "33 8 4242"
    );
}
