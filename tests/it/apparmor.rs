//! AppArmor: profiles by name, the engine's own, and what is said where the kernel has none. The lab's kernel has it:
//! `cargo xtask test --lab apparmor` plays all of it.

use std::fs;
use std::path::Path;

use cata_tests::bundle::Bundle;
use cata_tests::command::Run;
use cata_tests::harness::Test;
use cata_tests::world::World;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(apparmor_profiles).needs(&["apparmor_parser"])]
}

/// Where the kernel takes profiles.
const SECURITY: &str = "/sys/kernel/security";

fn apparmor_profiles(w: &World) {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let why = if enabled.starts_with('Y') { "not loaded" } else { "runs without AppArmor" };
    let named = |profile: &str, words: &[&str]| {
        let option = format!("apparmor={profile}");
        w.cata(&[&["run", "--rm", "--security-opt", &option, "busybox"], words].concat())
    };
    named("no-such-profile", &["true"]).fails(125, &["no-such-profile", why]);
    let _ = named("unconfined", &["true"]).ok();
    let machine = ["create", "--isolation", "vm", "--security-opt", "apparmor=x", "busybox"];
    w.cata(&machine).fails(1, &["`x`", "its kernel has no profiles of the host"]);
    if why != "not loaded" {
        return;
    }
    // Until it sees where profiles are loaded, the engine has none of its own.
    let current = ["cat", "/proc/self/attr/current"];
    assert_eq!(w.cata(&[&["run", "--rm", "busybox"], &current[..]].concat()).text(), "unconfined");
    rustix::mount::mount("none", SECURITY, "securityfs", MountFlags::empty(), None).unwrap();
    own_profile(w);
    let profile = format!("{}-guarded", w.name);
    let compiler = |flag: &str| {
        let text = format!(
            "profile {profile} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  \
             signal,\n  deny /etc/passwd r,\n}}\n"
        );
        let _ = Run::new("apparmor_parser").args(["-K", flag]).input(text).done().ok();
    };
    compiler("-r");
    let enforced = format!("{profile} (enforce)");
    assert_eq!(named(&profile, &current).text(), enforced);
    named(&profile, &["cat", "/etc/passwd"]).fails(1, &["Permission denied"]);
    runtime_alone(w, &profile, &enforced);
    compiler("-R");
    rustix::mount::unmount(SECURITY, UnmountFlags::DETACH).unwrap();
}

/// A container that asks for nothing has the engine's profile, and what was given it besides does not get past that.
fn own_profile(w: &World) {
    let ours = "cata-default (enforce)";
    let start = |name: &str, options: &[&str]| {
        let args = [&["run", "-d", "--init", "--name", name, "--cap-add", "SYS_ADMIN"], options].concat();
        let _ = w
            .cata(
                &[&args[..], &["--security-opt", "systempaths=unconfined", "busybox", "sleep", "600"]]
                    .concat(),
            )
            .ok();
    };
    let exec = |name: &str, script: &str| w.cata(&["exec", name, "sh", "-c", script]);
    let label = "cat /proc/self/attr/current";
    let mount = "mount -t tmpfs none /tmp || exit 1";
    let write = "value=$(cat /proc/sys/vm/page-cluster); echo $value > /proc/sys/vm/page-cluster";
    start("mine", &[]);
    assert_eq!(exec("mine", label).text(), ours);
    assert_eq!(exec("mine", "cat /proc/1/attr/current").text(), ours);
    exec("mine", mount).fails(1, &["Permission denied"]);
    exec("mine", write).fails(1, &["Permission denied"]);
    assert_eq!(w.field("mine", "{{.AppArmorProfile}}"), "cata-default");
    assert!(w.cata(&["info"]).ok().stdout.contains("name=apparmor"));
    assert_eq!(w.cata(&["exec", "--privileged", "mine", "sh", "-c", label]).text(), "unconfined");
    // Those it has may be told to end, by each other and from outside: the first one is `--init`'s own.
    let _ = exec("mine", "kill -TERM 1").ok();
    assert_eq!(w.cata(&["wait", "mine"]).text(), "143");
    let _ = w.cata(&["start", "mine"]).ok();
    let _ = w.cata(&["stop", "mine"]).ok();

    start("open", &["--security-opt", "apparmor=unconfined"]);
    assert_eq!(exec("open", label).text(), "unconfined");
    let _ = exec("open", mount).ok();
    let _ = exec("open", write).ok();
    assert_eq!(
        w.field("open", "{{.AppArmorProfile}} {{.HostConfig.SecurityOpt}}"),
        "unconfined [systempaths=unconfined apparmor=unconfined]"
    );
    let privileged = ["run", "--rm", "--privileged", "busybox", "sh", "-c", label];
    assert_eq!(w.cata(&privileged).text(), "unconfined");
    // Unloaded behind its back, it is loaded again.
    let list = || fs::read_to_string(Path::new(SECURITY).join("apparmor/profiles")).unwrap();
    let _ = Run::new("apparmor_parser").args(["-K", "-R"]).input("profile cata-default {}\n").done().ok();
    assert!(!list().contains("cata-default"));
    assert_eq!(w.cata(&["run", "--rm", "busybox", "sh", "-c", label]).text(), ours);
}

/// `process.apparmorProfile`, and `exec --apparmor`.
fn runtime_alone(w: &World, profile: &str, enforced: &str) {
    let mut b = Bundle::new(w, "b");
    b.spec["process"]["apparmorProfile"] = json!(profile);
    b.script("cat /proc/self/attr/apparmor/current; cat /etc/passwd || sleep 600");
    let detached = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("c").done();
    let _ = detached.ok();
    let label = ["cat", "/proc/self/attr/apparmor/current"];
    let process = json!({"args": label, "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
        "apparmorProfile": profile});
    let file = w.file("process.json", process.to_string());
    assert_eq!(b.command(["exec", "--process"]).arg(&file).arg("c").done().text(), enforced);
    let passwd = ["exec", "--apparmor", profile, "c", "cat", "/etc/passwd"];
    b.runtime(passwd).fails(1, &["Permission denied"]);
    b.runtime(["exec", "--apparmor", "no-such-profile", "c", "true"]).fails(255, &["not loaded"]);
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    assert!(b.runtime(["features"]).json()["linux"]["apparmor"]["enabled"].as_bool().unwrap());
}
