//! Capabilities, limits, filters, namespaces, cgroups.

use serde_json::json;

use crate::Case;
use crate::world::{World, spec};

pub(crate) const CASES: &[Case] = &[
    ("capabilities_are_the_plans", capabilities),
    ("privileged_gets_what_the_host_has", privileged),
    ("rlimits_are_set_or_withheld", rlimits),
    ("no_new_privileges", no_new_privileges),
    ("seccomp_filter_is_loaded", filter),
    ("host_namespaces_are_kept", host_namespaces),
    ("sysctls_are_the_namespaces_own", sysctls),
    ("user_namespace", user_namespace),
    ("cgroup_is_joined_and_mounted", cgroup),
    ("no_descriptor_leaks", descriptors),
    ("signals_are_default", signals),
];

fn capabilities(world: &World) {
    let output = world.sh("grep -E '^Cap(Bnd|Eff|Inh|Amb)' /proc/self/status").output;
    let set = "00000000a80425fb";
    assert_eq!(output, format!("CapInh:\t{:016x}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t{:016x}", 0, 0));
}

fn privileged(world: &World) {
    let all: Vec<String> = cata_sys::capability::names(cata_sys::capability::KNOWN).collect();
    let mut document = spec(&["sh", "-c", "grep ^CapEff /proc/self/status"]);
    document["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    document["process"]["oomScoreAdj"] = json!(-900);
    let outcome = world.run(&world.plan(&document));
    let held = cata_sys::capability::bounding();
    assert_eq!(outcome.output, format!("CapEff:\t{held:016x}"));
    let missing = (cata_sys::capability::KNOWN & !held).count_ones() as usize;
    let withheld = outcome.withheld.iter().filter(|what| what.starts_with("CAP_")).count();
    assert_eq!(withheld, missing, "{:?}", outcome.withheld);
}

fn rlimits(world: &World) {
    let mut document = spec(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"]);
    document["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    let outcome = world.run(&world.plan(&document));
    assert_eq!(outcome.output, "300\n400\n0");
    assert!(outcome.withheld.is_empty(), "{:?}", outcome.withheld);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(most) = most else { return };
    document["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": most + 1, "hard": most + 1}]);
    let outcome = world.run(&world.plan(&document));
    let raised = outcome.output.starts_with(&(most + 1).to_string());
    assert!(raised || outcome.output.starts_with(&most.to_string()), "{}", outcome.output);
    assert_eq!(outcome.withheld.len(), usize::from(!raised), "{:?}", outcome.withheld);
}

fn no_new_privileges(world: &World) {
    let mut document = spec(&["grep", "NoNewPrivs", "/proc/self/status"]);
    assert_eq!(world.run(&world.plan(&document)).output, "NoNewPrivs:\t0");
    document["process"]["noNewPrivileges"] = json!(true);
    assert_eq!(world.run(&world.plan(&document)).output, "NoNewPrivs:\t1");
}

fn filter(world: &World) {
    let mut document =
        spec(&["sh", "-c", "grep Seccomp: /proc/self/status; unshare -n true 2>&1; mkdir /x && echo made"]);
    document["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    for (nnp, init) in [(false, false), (true, false), (false, true), (true, true)] {
        document["process"]["noNewPrivileges"] = json!(nnp);
        let options = cata_runtime::plan::Options { init, ..world.options() };
        let output = world.run(&world.plan_with(&document, &options)).output;
        assert!(output.starts_with("Seccomp:\t2"), "{output}");
        assert!(output.contains("Function not implemented"), "{output}");
        assert!(!output.contains("made"), "{output}");
    }
}

fn host_namespaces(world: &World) {
    let mut document = spec(&["sh", "-c", "for n in pid ipc uts net; do readlink /proc/self/ns/$n; done"]);
    document["linux"]["namespaces"] = json!([{"type": "mount"}]);
    document.as_object_mut().expect("a document").remove("hostname");
    let here: Vec<String> = ["pid", "ipc", "uts", "net"]
        .iter()
        .map(|n| std::fs::read_link(format!("/proc/self/ns/{n}")).expect("a link").display().to_string())
        .collect();
    assert_eq!(world.run(&world.plan(&document)).output, here.join("\n"));
    let own = world.sh("for n in pid ipc uts net mnt cgroup; do readlink /proc/self/ns/$n; done").output;
    assert_eq!(own.lines().count(), 6);
    assert!(here.iter().all(|namespace| !own.contains(namespace)), "{own}");
}

fn sysctls(world: &World) {
    let mut document =
        spec(&["sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"]);
    document["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
    let before = std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("a file");
    assert_eq!(world.run(&world.plan(&document)).output, "1\n1");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("a file"), before);
    document["linux"]["sysctl"] = json!({"net.no.such": "1"});
    let error = world.try_run(&world.plan(&document)).expect_err("no such parameter");
    assert_eq!(error.to_string(), "set sysctl `net.no.such`");
}

fn user_namespace(world: &World) {
    let mut document =
        spec(&["sh", "-c", "cat /proc/self/uid_map; id -u; echo x > /dev/null; stat -c %t:%T /dev/null"]);
    document["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    document["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    document["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    let output = world.run(&world.plan(&document)).output;
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", "0", "65536", "0", "1:3"]);
}

fn cgroup(world: &World) {
    let mut document =
        spec(&["sh", "-c", "cat /proc/self/cgroup; grep -c cgroup /proc/mounts; ls /sys/fs/cgroup"]);
    let name = format!("/cata-dev-runtime/{}", std::process::id());
    document["linux"]["cgroupsPath"] = json!(name);
    document["linux"]["resources"] = json!({"pids": {"limit": 50}, "memory": {"limit": 67_108_864}});
    document["mounts"].as_array_mut().expect("a list").push(json!({"destination": "/sys/fs/cgroup",
        "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}));
    let plan = world.plan(&document);
    let directories = plan.cgroup.as_ref().expect("a cgroup").directories.len();
    let output = world.run(&plan).output;
    assert!(!output.contains("cata-dev-runtime"), "its own cgroup is its root: {output}");
    assert!(output.contains(":/\n"), "{output}");
    assert!(directories > 0);
    document["process"]["args"] = json!([
        "sh",
        "-c",
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; touch /sys/fs/cgroup/x"
    ]);
    let output = world.run(&world.plan(&document)).output;
    assert!(output.contains("50\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
}

fn descriptors(world: &World) {
    let _leak = std::fs::File::open("/").expect("a descriptor");
    let inherited = rustix::io::dup(&_leak).expect("without close-on-exec");
    assert_eq!(world.sh("ls /proc/$$/fd; true").output, "0\n1\n2");
    let options = cata_runtime::plan::Options { init: true, ..world.options() };
    let plan = world.plan_with(&spec(&["sh", "-c", "ls /proc/$$/fd; true"]), &options);
    assert_eq!(world.run(&plan).output, "0\n1\n2");
    drop(inherited);
}

fn signals(world: &World) {
    for init in [false, true] {
        let options = cata_runtime::plan::Options { init, ..world.options() };
        let plan = world.plan_with(&spec(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]), &options);
        assert_eq!(world.run(&plan).output, format!("SigBlk:\t{:016x}\nSigIgn:\t{:016x}", 0, 0));
    }
}
