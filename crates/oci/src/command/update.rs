//! `update`: other limits for a container that exists.

use std::io::Read as _;
use std::path::Path;

use cata_runtime::cgroup::{self, CgroupPlan, Layout};
use cata_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{Command, HELP};
use crate::World;
use crate::args::{Given, value};
use crate::error::{Error, Result};
use crate::store::Status;

pub(super) const COMMAND: Command = Command {
    name: "update",
    words: "ID",
    help: "change the limits of a container",
    flags: &[
        value("resources", "r", "FILE", "limits as in a specification; `-` is standard input"),
        value("blkio-weight", "", "N", "weight of block I/O"),
        value("cpu-period", "", "MICROSECONDS", "of CPU quota"),
        value("cpu-quota", "", "MICROSECONDS", "CPU time in a period"),
        value("cpu-burst", "", "MICROSECONDS", "CPU time saved up from before"),
        value("cpu-share", "", "N", "weight of CPU time"),
        value("cpu-rt-period", "", "MICROSECONDS", "of real-time CPU time"),
        value("cpu-rt-runtime", "", "MICROSECONDS", "real-time CPU time in a period"),
        value("cpu-idle", "", "N", "1: only when nobody else wants the CPU"),
        value("cpuset-cpus", "", "LIST", "CPUs to run on"),
        value("cpuset-mems", "", "LIST", "nodes to have memory from"),
        value("memory", "", "BYTES", "memory; -1: no limit"),
        value("memory-reservation", "", "BYTES", "memory when it is scarce"),
        value("memory-swap", "", "BYTES", "memory and swap together; -1: no limit"),
        value("pids-limit", "", "N", "processes; -1: no limit"),
        HELP,
    ],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run,
};

/// A flag and its place in the document.
const PLACES: &[(&str, &str, &str)] = &[
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("memory", "memory", "limit"),
    ("memory-reservation", "memory", "reservation"),
    ("memory-swap", "memory", "swap"),
    ("pids-limit", "pids", "limit"),
];

fn resources(given: &Given) -> Result<LinuxResources> {
    let document = match given.get("resources") {
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin()
                .read_to_end(&mut text)
                .map_err(Error::io("read", Path::new("standard input")))?;
            serde_json::from_slice(&text)
        }
        Some(path) => {
            serde_json::from_slice(&std::fs::read(path).map_err(Error::io("read", Path::new(path)))?)
        }
        None => Ok(from_flags(given)?),
    };
    let resources = document.and_then(serde_json::from_value::<LinuxResources>);
    resources.map_err(|error| Error::new(format!("resources: {error}")))
}

fn from_flags(given: &Given) -> Result<Value> {
    let mut document = json!({});
    for (flag, section, key) in PLACES {
        if let Some(number) = given.number::<i64>(flag)? {
            document[section][key] = number.into();
        }
    }
    for (flag, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(list) = given.get(flag) {
            document["cpu"][key] = list.into();
        }
    }
    Ok(document)
}

fn run(world: &World, given: &Given) -> Result<u8> {
    let mut container = world.store.get(super::id(given))?;
    let _lock = container.lock(&world.store)?;
    if container.status() == Status::Stopped {
        return Err(Error::new("cannot update a container that has stopped"));
    }
    let resources = resources(given)?;
    let known = container.record.cgroup.clone();
    let (Some(mut cgroup), Some(known)) = (container.cgroup(), known) else {
        return Err(Error::new("cannot update: the container has no cgroup"));
    };
    let failed = |e: cgroup::CgroupError| Error::chain("update", &e);
    let layout = Layout::detect().map_err(failed)?;
    let directory = known.directories.first().map(|directory| Path::new("/").join(&directory.path));
    let path = directory.unwrap_or_default();
    let plan = cgroup::plan(Some(&resources), &path.to_string_lossy(), &layout).map_err(failed)?;
    if let Some(unit) = &known.unit {
        // So that it does not set back what it knows otherwise.
        unit.set(&resources, &layout).map_err(failed)?;
    }
    cgroup.update(&plan).map_err(failed)?;
    cgroup.warnings().iter().for_each(|what| world.log.warning(what));
    // Hierarchies that were made for the new limits are the container's from now on.
    let mut directories = known.directories;
    for directory in plan.directories {
        if !directories.iter().any(|old| old.mount == directory.mount) && directory.full().exists() {
            directories.push(directory);
        }
    }
    container.record.cgroup = Some(CgroupPlan { directories, unit: known.unit, ..CgroupPlan::default() });
    container.save()?;
    Ok(0)
}
