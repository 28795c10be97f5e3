//! Plans for the machines whose layouts are known.

use std::collections::HashMap;

use cata_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder,
};

use super::*;

const V1: [(&str, Controller); 8] = [
    ("cpu", Controller::Cpu),
    ("cpuacct", Controller::Cpuacct),
    ("cpuset", Controller::Cpuset),
    ("memory", Controller::Memory),
    ("devices", Controller::Devices),
    ("freezer", Controller::Freezer),
    ("blkio", Controller::Blkio),
    ("pids", Controller::Pids),
];

fn hierarchy(mount: &str, controllers: &[Controller], unified: bool) -> Hierarchy {
    let (mount, own) = (PathBuf::from(mount), PathBuf::from("own/scope"));
    Hierarchy { mount, unified, controllers: controllers.to_vec(), name: None, own }
}

fn legacy(unified: bool) -> Layout {
    let mut hierarchies: Vec<_> =
        V1.iter().map(|(name, c)| hierarchy(&format!("/cg/{name}"), &[*c], false)).collect();
    if unified {
        hierarchies.push(hierarchy("/cg/unified", &[Controller::Hugetlb], true));
    }
    Layout { hierarchies, kernel: (6, 1) }
}

fn v2() -> Layout {
    let controllers =
        [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Io, Controller::Cpuset];
    Layout { hierarchies: vec![hierarchy("/cg", &controllers, true)], kernel: (6, 1) }
}

fn limits() -> LinuxResources {
    let memory = LinuxMemoryBuilder::default().limit(64 << 20).swap(128 << 20).reservation(32 << 20);
    let cpu = LinuxCpuBuilder::default().quota(150_000).period(100_000_u64).shares(512_u64).cpus("0-1");
    let anything = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().unwrap();
    LinuxResourcesBuilder::default()
        .memory(memory.build().unwrap())
        .cpu(cpu.build().unwrap())
        .pids(LinuxPidsBuilder::default().limit(100).build().unwrap())
        .devices(vec![anything])
        .build()
        .unwrap()
}

fn directories(plan: &CgroupPlan) -> Vec<String> {
    plan.directories.iter().map(|directory| directory.full().display().to_string()).collect()
}

fn writes(plan: &CgroupPlan) -> Vec<String> {
    let line =
        |w: &Write| format!("{} {}={}", plan.directories[w.directory].mount.display(), w.file, w.value);
    plan.writes.iter().map(line).collect()
}

#[test]
fn hybrid_uses_the_unified_hierarchy_and_only_what_is_needed() {
    let bare = plan(None, "/cata/x", &legacy(true)).unwrap();
    assert_eq!(directories(&bare), ["/cg/unified/cata/x", "/cg/memory/cata/x", "/cg/blkio/cata/x"]);
    assert!(bare.writes.is_empty() && bare.devices.is_none());
    let old = plan(None, "/cata/x", &Layout { kernel: (5, 10), ..legacy(true) }).unwrap();
    let without = ["/cg/memory/cata/x", "/cg/blkio/cata/x", "/cg/freezer/cata/x", "/cg/cpuacct/cata/x"];
    assert_eq!(directories(&old), without);
    assert_eq!(directories(&plan(None, "/cata/x", &legacy(false)).unwrap()), without);
}

#[test]
fn limits_on_v1() {
    let plan = plan(Some(&limits()), "/cata/x", &legacy(true)).unwrap();
    assert_eq!(
        writes(&plan),
        [
            "/cg/memory memory.limit_in_bytes=67108864",
            "/cg/memory memory.memsw.limit_in_bytes=134217728",
            "/cg/memory memory.soft_limit_in_bytes=33554432",
            "/cg/cpu cpu.shares=512",
            "/cg/cpu cpu.cfs_period_us=100000",
            "/cg/cpu cpu.cfs_quota_us=150000",
            "/cg/cpuset cpuset.cpus=0-1",
            "/cg/pids pids.max=100",
        ]
    );
    assert_eq!(plan.writes[0].need, Need::Required("memory limit".to_owned()));
    assert_eq!(plan.directories.len(), 6);
}

#[test]
fn limits_on_v2() {
    let mut resources = limits();
    resources.set_unified(Some(HashMap::from([("memory.high".to_owned(), "50000000".to_owned())])));
    let plan = plan(Some(&resources), "/cata/x", &v2()).unwrap();
    assert_eq!(directories(&plan), ["/cg/cata/x"]);
    assert_eq!(
        writes(&plan),
        [
            "/cg memory.max=67108864",
            "/cg memory.swap.max=67108864",
            "/cg memory.low=33554432",
            "/cg cpu.weight=59",
            "/cg cpu.max=150000 100000",
            "/cg cpuset.cpus=0-1",
            "/cg pids.max=100",
            "/cg memory.high=50000000",
        ]
    );
    let needed = [Controller::Memory, Controller::Cpu, Controller::Cpuset, Controller::Pids];
    assert_eq!(plan.directories[0].needed, needed);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<CgroupPlan>(&text).unwrap(), plan);
}

#[test]
fn devices_are_restricted_as_soon_as_there_are_resources() {
    let none = LinuxResourcesBuilder::default().devices(vec![]).build().unwrap();
    let on_v1 = plan(Some(&none), "/cata/x", &legacy(true)).unwrap();
    assert_eq!(writes(&on_v1)[0], "/cg/devices devices.deny=a");
    assert!(writes(&on_v1).contains(&"/cg/devices devices.allow=c 1:3 rwm".to_owned()));
    let on_v2 = plan(Some(&none), "/cata/x", &v2()).unwrap();
    assert!(on_v2.devices.is_some() && on_v2.writes.is_empty());
    assert!(plan(Some(&limits()), "/cata/x", &v2()).unwrap().devices.is_none());
}

#[test]
fn relative_paths_lie_beside_our_own_cgroup_in_version_2() {
    assert_eq!(directories(&plan(None, "x/y", &v2()).unwrap()), ["/cg/own/x/y"]);
    assert_eq!(directories(&plan(None, "/./x//y/", &v2()).unwrap()), ["/cg/x/y"]);
    for bad in ["", "/", "/a/../b", "..", "."] {
        assert!(matches!(plan(None, bad, &v2()), Err(CgroupError::Path { .. })), "{bad}");
    }
    assert!(matches!(plan(None, "system.slice:cata:x", &v2()), Err(CgroupError::Systemd(_))));
}

#[test]
fn what_the_machine_lacks_is_named() {
    let mut layout = legacy(true);
    layout.hierarchies.retain(|h| !h.controllers.contains(&Controller::Pids));
    let error = plan(Some(&limits()), "/cata/x", &layout).unwrap_err();
    assert_eq!(
        error.to_string(),
        "process limit needs the cgroup controller `pids`, which this machine does not offer"
    );
    let mut resources = limits();
    resources.set_unified(Some(HashMap::from([("rdma.max".to_owned(), "max".to_owned())])));
    assert!(plan(Some(&resources), "/cata/x", &v2()).unwrap_err().to_string().contains("`rdma`"));
    assert!(plan(Some(&resources), "/cata/x", &legacy(true)).unwrap_err().to_string().contains("v1"));
    for bad in ["../memory.max", "nonsense", "cgroup.procs", "memory.max/../x"] {
        resources.set_unified(Some(HashMap::from([(bad.to_owned(), "1".to_owned())])));
        assert!(plan(Some(&resources), "/cata/x", &v2()).is_err(), "{bad}");
    }
}

#[test]
fn contradictions_are_refused() {
    let memory = |limit: i64, swap: i64| {
        let memory = LinuxMemoryBuilder::default().limit(limit).swap(swap).build().unwrap();
        let resources = LinuxResourcesBuilder::default().memory(memory).build().unwrap();
        [plan(Some(&resources), "/x", &legacy(true)), plan(Some(&resources), "/x", &v2())]
    };
    for (limit, swap) in [(100, 50), (0, 50), (-1, 50)] {
        assert!(memory(limit, swap).iter().all(Result::is_err), "{limit} {swap}");
    }
    for (limit, swap) in [(100, 100), (100, -1), (100, 0), (-1, -1)] {
        assert!(memory(limit, swap).iter().all(Result::is_ok), "{limit} {swap}");
    }
}
