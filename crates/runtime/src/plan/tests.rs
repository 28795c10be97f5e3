//! The planner, without privileges.

use cata_spec::runtime::Spec;
use cata_sys::mount::attribute as attr;
use serde_json::{Value, json};

use super::*;

fn host() -> Host {
    Host { cgroups: None }
}

fn document() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}, "args": ["sh"], "env": ["A=b"], "cwd": "/"},
        "root": {"path": "/rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/ns/net"}]},
    })
}

fn planned(document: Value) -> Result<Plan, PlanError> {
    let spec: Spec = serde_json::from_value(document).unwrap();
    plan(&spec, &host(), &Options::default())
}

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut document = document();
    change(&mut document);
    planned(document).unwrap_err().to_string()
}

fn mount(value: Value) -> Result<Mount, PlanError> {
    mount::mount(&serde_json::from_value(value).unwrap(), None)
}

#[test]
fn plan_survives_text() {
    let plan = planned(document()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    assert_eq!(plan.root, Root::Path("/rootfs".into()));
    assert_eq!(plan.process.user, UserSpec::Ids { uid: 5, gid: 6, groups: vec![7] });
    assert!(plan.makes(NamespaceKind::Uts));
    assert_eq!(plan.namespace(NamespaceKind::Network), Some(&NamespaceSource::Path("/ns/net".into())));
    assert_eq!(plan.namespace(NamespaceKind::Pid), None);
}

#[test]
fn plan_refuses_by_name_what_it_does_not_do() {
    let cases = [
        (
            "/linux/namespaces",
            json!([{"type": "user"}]),
            "a container with a user namespace needs a mount namespace too",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "namespace `mnt` is asked for twice",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 5}}),
            "the specification has no `linux.namespaces of type time, which linux.timeOffsets needs`",
        ),
        (
            "/linux/timeOffsets",
            json!({"realtime": {"secs": 5}}),
            "time offset of `realtime`: only `monotonic` and `boottime` can be set",
        ),
        ("/linux/intelRdt", json!({"closID": "a"}), "Intel RDT is not supported"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            "the specification has no `linux.seccomp.listenerPath, which SCMP_ACT_NOTIFY needs`",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "sysctl `vm.swappiness`: is not separate for each container",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.sem": "1"}),
            "sysctl `kernel.sem`: needs an IPC namespace of its own",
        ),
        ("/linux/sysctl", json!({"net/../../x": "1"}), "sysctl `net/../../x`: is not a name of a parameter"),
        ("/process/args", json!([]), "the specification has no `process.args`"),
        ("/process/args", json!(["a\0b"]), "an argument contains a NUL character"),
        ("/process/cwd", json!("relative"), "working directory path `relative` is not absolute"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 3}),
            "scheduler: a priority needs SCHED_FIFO or SCHED_RR",
        ),
        ("/hooks", json!({"prestart": [{"path": "/hook"}]}), "running hooks is not supported"),
        ("/linux/cgroupsPath", json!("/x"), "the specification has no `cgroup file system on this host`"),
    ];
    for (pointer, value, expected) in cases {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let message = refusal(|document| {
            document.pointer_mut(parent).unwrap()[key] = value;
        });
        assert_eq!(message, expected);
    }
}

#[test]
fn start_container_hooks_without_an_environment_have_the_processes() {
    let mut document = document();
    document["process"]["env"] = json!(["A=b"]);
    let hooks = json!([{"path": "/a"}, {"path": "/a", "env": []}, {"path": "/a", "env": ["C=d"]}]);
    document["hooks"] = json!({"startContainer": hooks, "createContainer": [{"path": "/a"}]});
    let spec: Spec = serde_json::from_value(document).unwrap();
    let made = plan(&spec, &host(), &Options { hooks: true, ..Options::default() }).unwrap();
    let inside: Vec<_> = made.hooks.start_container.iter().map(|hook| hook.env.concat()).collect();
    assert_eq!(inside, ["A=b", "", "C=d"]);
    assert!(made.hooks.create_container[0].env.is_empty());
}

#[test]
fn plan_refuses_a_host_name_in_the_hosts_namespace() {
    let message = refusal(|document| {
        document["linux"]["namespaces"] = json!([{"type": "mount"}]);
        document["hostname"] = json!("pg");
    });
    assert_eq!(message, "a host name cannot be set without a UTS namespace of its own");
}

#[test]
fn plan_wants_mappings_exactly_with_a_user_namespace() {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    assert!(refusal(|d| d["linux"]["uidMappings"] = mapping).contains("without a new user namespace"));
    let message = refusal(|d| d["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]));
    assert_eq!(message, "user namespace: it needs uid and gid mappings");
}

#[test]
fn sysctl_names_become_paths() {
    let mut document = document();
    document["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/rp_filter": "0"});
    let expected = [("net/ipv4/conf/eth0.1/rp_filter", "0"), ("net/ipv4/ip_forward", "1")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(planned(document).unwrap().sysctls, expected);
}

#[test]
fn devices_asked_for_replace_the_default_of_that_name() {
    let mut document = document();
    document["linux"]["devices"] =
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]);
    let devices = planned(document).unwrap().devices;
    assert_eq!(devices.len(), 6);
    let nulls: Vec<_> = devices.iter().filter(|d| d.path.as_os_str() == "/dev/null").collect();
    assert_eq!(nulls.len(), 1);
    assert_eq!(nulls[0].mode, 0o600);
}

#[test]
fn mount_options_are_taken_apart() {
    let bind =
        mount(json!({"destination": "/a", "source": "/b", "options": ["rbind", "ro", "rslave", "rnosuid"]}));
    let bind = bind.unwrap();
    assert_eq!(
        bind.kind,
        MountKind::Bind(Bind { source: "/b".into(), recursive: true, namespace: None, beneath: None })
    );
    assert_eq!((bind.set, bind.set_recursive), (attr::RDONLY, attr::NOSUID));
    assert_eq!(bind.propagation, Some(Propagation::Slave));

    let tmpfs = mount(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noexec", "exec", "size=1m", "ro", "rw", "strictatime"]}));
    let tmpfs = tmpfs.unwrap();
    assert_eq!(tmpfs.set, attr::NOSUID | attr::STRICTATIME);
    let MountKind::Filesystem { options, .. } = tmpfs.kind else { panic!("a file system") };
    assert_eq!(options, [("size".to_owned(), Some("1m".to_owned()))]);
}

#[test]
fn mount_refuses_what_it_would_ignore() {
    let cases = [
        (json!({"destination": "a", "type": "tmpfs"}), "mount path `a` is not absolute"),
        (json!({"destination": "//", "type": "tmpfs"}), "mount `//`: the root itself cannot be a mount"),
        (json!({"destination": "/a"}), "mount `/a`: neither a type nor `bind` is given"),
        (json!({"destination": "/a", "type": "bind"}), "mount `/a`: a bind mount needs a source"),
        (
            json!({"destination": "/a", "type": "bind", "source": "b"}),
            "mount source path `b` is not absolute",
        ),
        (
            json!({"destination": "/a", "type": "bind", "source": "/b", "options": ["size=1"]}),
            "mount `/a`: option `size=1` does not apply to a bind mount",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}),
            "mount `/a`: option `idmap` applies to a bind mount only",
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(mount(value).unwrap_err().to_string(), expected);
    }
}

/// Where something is changed, and into what.
const PLACES: [&str; 24] = [
    "/process/args",
    "/process/env",
    "/process/cwd",
    "/process/rlimits",
    "/process/capabilities",
    "/process/scheduler",
    "/process/ioPriority",
    "/process/consoleSize",
    "/process/user",
    "/root",
    "/hostname",
    "/hooks",
    "/mounts",
    "/linux/namespaces",
    "/linux/uidMappings",
    "/linux/devices",
    "/linux/resources",
    "/linux/cgroupsPath",
    "/linux/sysctl",
    "/linux/seccomp",
    "/linux/maskedPaths",
    "/linux/rootfsPropagation",
    "/linux/personality",
    "/linux/memoryPolicy",
];

fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!("/"),
        json!("a:b:c"),
        json!("../.."),
        json!("rshared"),
        json!(-1),
        json!(u64::MAX),
        json!([]),
        json!(["\0", "sh"]),
        json!({}),
        json!({"path": "x", "uid": 4_294_967_295_u32, "gid": 0}),
        json!({"height": u64::MAX, "width": 0}),
        json!({"policy": "SCHED_DEADLINE", "runtime": u64::MAX, "priority": -9}),
        json!({"class": "IOPRIO_CLASS_RT", "priority": i64::MIN}),
        json!({"poststop": [{"path": "relative", "timeout": -5}]}),
        json!([{"type": "user"}, {"type": "mount", "path": ""}, {"type": "time"}]),
        json!([{"containerID": 0, "hostID": u32::MAX, "size": u32::MAX}]),
        json!([{"destination": "/../x", "type": "tmpfs", "options": ["=", "idmap", "r", "rro", "size=", "remount"]}]),
        json!([{"path": "/dev/x", "type": "a", "major": i64::MAX, "minor": -1}]),
        json!({"net/../x": "1", "kernel.sem": ""}),
        json!({"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": [{"names": ["read", ""], "action": "SCMP_ACT_ERRNO",
            "errnoRet": u32::MAX, "args": [{"index": 9, "value": u64::MAX, "op": "SCMP_CMP_MASKED_EQ"}]}]}),
        json!({"memory": {"limit": i64::MIN, "swap": i64::MAX}, "cpu": {"shares": u64::MAX, "cpus": "9-1"},
            "hugepageLimits": [{"pageSize": "../1MB", "limit": -1}], "pids": {"limit": i64::MIN}}),
        json!({"mode": "MPOL_BIND", "nodes": "0-99999999999"}),
        json!({"domain": "LINUX32", "flags": ["X"]}),
    ]
}

proptest::proptest! {
    /// Whatever a specification holds: a plan or an error, the same every time.
    #[test]
    fn plan_of_anything_is_the_same_twice(
        changes in proptest::collection::vec((0..PLACES.len(), 0..25_usize), 0..5),
    ) {
        let mut document = document();
        let values = values();
        for (place, value) in changes {
            let (parent, key) = PLACES[place].rsplit_once('/').unwrap();
            if let Some(Value::Object(parent)) = document.pointer_mut(parent) {
                parent.insert(key.to_owned(), values[value].clone());
            }
        }
        if let Ok(spec) = serde_json::from_value::<Spec>(document) {
            let options = || Options { hooks: true, ..Options::default() };
            let made = || plan(&spec, &host(), &options()).map_err(|error| error.to_string());
            proptest::prop_assert_eq!(made(), made());
        }
    }
}
