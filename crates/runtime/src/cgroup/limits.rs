//! The specification's limits as files and values of version 1 and of version 2.

use cata_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
};

use super::plan::{Need, Planner};
use super::{CgroupError, Controller};

/// Files of version 1.
pub(super) fn v1(resources: &LinuxResources, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    if let Some(memory) = resources.memory() {
        memory_v1(memory, planner)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v1(cpu, planner)?;
        cpuset(cpu, planner)?;
    }
    pids(resources, planner)?;
    if let Some(io) = resources.block_io() {
        block_io_v1(io, planner)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", page_size(huge.page_size())?);
        planner.limit(Controller::Hugetlb, "huge page limit", file, huge.limit())?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            planner.limit(Controller::NetCls, "network class", "net_cls.classid", class)?;
        }
        for item in network.priorities().iter().flatten() {
            let value = format!("{} {}", item.name(), item.priority());
            planner.limit(Controller::NetPrio, "network priority", "net_prio.ifpriomap", value)?;
        }
    }
    rdma(resources, planner)?;
    match resources.unified().iter().flatten().next() {
        Some((key, _)) => Err(unsupported(format!("unified setting `{key}`"), "v1")),
        None => Ok(()),
    }
}

/// Files of version 2.
pub(super) fn v2(resources: &LinuxResources, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    if let Some(memory) = resources.memory() {
        memory_v2(memory, planner)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v2(cpu, planner)?;
        cpuset(cpu, planner)?;
    }
    pids(resources, planner)?;
    if let Some(io) = resources.block_io() {
        block_io_v2(io, planner)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.max", page_size(huge.page_size())?);
        planner.limit(Controller::Hugetlb, "huge page limit", file, huge.limit())?;
    }
    if let Some(network) = resources.network() {
        if network.class_id().is_some() {
            return Err(unsupported("network class".to_owned(), "v2"));
        }
        if network.priorities().iter().flatten().next().is_some() {
            return Err(unsupported("network priority".to_owned(), "v2"));
        }
    }
    rdma(resources, planner)?;
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort_unstable();
    for (key, value) in unified {
        let limit = format!("unified setting `{key}`");
        let controller = key.split_once('.').filter(|_| !key.contains('/')).map(|(controller, _)| controller);
        let controller = controller
            .and_then(Controller::from_name)
            .ok_or_else(|| unsupported(limit.clone(), "v2: it names no controller"))?;
        planner.limit(controller, &limit, key.as_str(), value)?;
    }
    Ok(())
}

fn unsupported(limit: String, version: &'static str) -> CgroupError {
    CgroupError::NotSupported { limit, version }
}

/// Zero is "not given", as everywhere in Docker.
pub(super) fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn check_memory(memory: &LinuxMemory, version: &'static str) -> Result<(), CgroupError> {
    // Version 1 has files for them, where the kernel still has.
    for (value, name) in
        [(memory.kernel(), "kernel memory limit"), (memory.kernel_tcp(), "kernel TCP memory limit")]
    {
        if version == "v2" && given(value).is_some_and(|value| value > 0) {
            return Err(unsupported(name.to_owned(), version));
        }
    }
    if memory.check_before_update() == Some(true) {
        return Err(unsupported("checkBeforeUpdate".to_owned(), version));
    }
    let Some(swap) = given(memory.swap()).filter(|swap| *swap > 0) else { return Ok(()) };
    let wrong = |why| CgroupError::Value { limit: "memory+swap limit", value: swap.to_string(), why };
    match given(memory.limit()) {
        Some(limit) if limit > swap => Err(wrong("it must not be smaller than the memory limit")),
        Some(limit) if limit > 0 => Ok(()),
        _ => Err(wrong("it needs a memory limit beside it")),
    }
}

fn memory_v1(memory: &LinuxMemory, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    check_memory(memory, "v1")?;
    let on = Controller::Memory;
    if let Some(limit) = given(memory.limit()) {
        planner.limit(on, "memory limit", "memory.limit_in_bytes", limit)?;
    }
    // After the limit: a new cgroup has none, and this one must never be the smaller.
    if let Some(swap) = given(memory.swap()) {
        let name = "memory+swap limit";
        planner.limit(on, name, "memory.memsw.limit_in_bytes", swap)?.need = Need::IfPresent(name.to_owned());
    }
    if let Some(reservation) = given(memory.reservation()) {
        planner.limit(on, "memory reservation", "memory.soft_limit_in_bytes", reservation)?;
    }
    for (value, name, file) in [
        (memory.kernel(), "kernel memory limit", "memory.kmem.limit_in_bytes"),
        (memory.kernel_tcp(), "kernel TCP memory limit", "memory.kmem.tcp.limit_in_bytes"),
    ] {
        if let Some(limit) = given(value) {
            planner.limit(on, name, file, limit)?.need = Need::IfPresent(name.to_owned());
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        planner.limit(on, "memory swappiness", "memory.swappiness", swappiness)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        planner.limit(on, "disabling of the OOM killer", "memory.oom_control", 1)?;
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    check_memory(memory, "v2")?;
    let on = Controller::Memory;
    let limit = given(memory.limit());
    if let Some(limit) = limit {
        planner.limit(on, "memory limit", "memory.max", or_max(limit))?;
    }
    if let Some(swap) = given(memory.swap()) {
        // Version 2 counts swap alone.
        let alone = if swap < 0 { swap } else { swap - limit.unwrap_or(0) };
        let name = "memory+swap limit";
        planner.limit(on, name, "memory.swap.max", or_max(alone))?.need = Need::IfPresent(name.to_owned());
    }
    if let Some(reservation) = given(memory.reservation()) {
        planner.limit(on, "memory reservation", "memory.low", or_max(reservation))?;
    }
    if memory.swappiness().is_some() {
        return Err(unsupported("memory swappiness".to_owned(), "v2"));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(unsupported("disabling of the OOM killer".to_owned(), "v2"));
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn cpu_v1(cpu: &LinuxCpu, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let on = Controller::Cpu;
    if let Some(shares) = given(cpu.shares()) {
        planner.limit(on, "CPU shares", "cpu.shares", shares)?;
    }
    if let Some(period) = given(cpu.period()) {
        planner.limit(on, "CPU period", "cpu.cfs_period_us", period)?;
    }
    if let Some(quota) = given(cpu.quota()) {
        planner.limit(on, "CPU quota", "cpu.cfs_quota_us", quota)?;
    }
    if let Some(burst) = given(cpu.burst()) {
        planner.limit(on, "CPU burst", "cpu.cfs_burst_us", burst)?;
    }
    if let Some(idle) = cpu.idle() {
        planner.limit(on, "CPU idle policy", "cpu.idle", idle)?;
    }
    if let Some(period) = given(cpu.realtime_period()) {
        planner.limit(on, "CPU realtime period", "cpu.rt_period_us", period)?;
    }
    if let Some(runtime) = given(cpu.realtime_runtime()) {
        planner.limit(on, "CPU realtime runtime", "cpu.rt_runtime_us", runtime)?;
    }
    Ok(())
}

fn cpu_v2(cpu: &LinuxCpu, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let on = Controller::Cpu;
    if given(cpu.realtime_period()).is_some() || given(cpu.realtime_runtime()).is_some() {
        return Err(unsupported("CPU realtime limit".to_owned(), "v2"));
    }
    if let Some(shares) = given(cpu.shares()) {
        planner.limit(on, "CPU shares", "cpu.weight", weight_from_shares(shares))?;
    }
    let (quota, period) = (given(cpu.quota()), given(cpu.period()));
    if quota.is_some() || period.is_some() {
        let value = format!("{} {}", or_max(quota.unwrap_or(-1)), period.unwrap_or(100_000));
        planner.limit(on, "CPU quota", "cpu.max", value)?;
    }
    if let Some(burst) = given(cpu.burst()) {
        planner.limit(on, "CPU burst", "cpu.max.burst", burst)?;
    }
    if let Some(idle) = cpu.idle() {
        planner.limit(on, "CPU idle policy", "cpu.idle", idle)?;
    }
    Ok(())
}

/// Shares (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100): the smooth curve through
/// (2, 1), (1024, 100) and (262144, 10000) that runc uses since 1.3.
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            // At most 18 bits: exact.
            let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // The tiny amount keeps 100 from becoming 101 by rounding.
            (10_f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

fn cpuset(cpu: &LinuxCpu, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let on = Controller::Cpuset;
    if let Some(cpus) = cpu.cpus().as_deref().filter(|text| !text.is_empty()) {
        planner.limit(on, "CPU set", "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|text| !text.is_empty()) {
        planner.limit(on, "memory node set", "cpuset.mems", mems)?;
    }
    Ok(())
}

fn pids(resources: &LinuxResources, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    if let Some(limit) = resources.pids().and_then(process_limit) {
        planner.limit(Controller::Pids, "process limit", "pids.max", or_max(limit))?;
    }
    Ok(())
}

/// The limit on processes. 0 is none: engines say so what they mean by "no limit" (podman up to 5.3), and nothing
/// could run where no process may be.
pub(super) fn process_limit(pids: LinuxPids) -> Option<i64> {
    Some(given(Some(pids.limit())).unwrap_or(-1))
}

fn rdma(resources: &LinuxResources, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    for (name, limit) in devices {
        let mut value = name.clone();
        for (key, count) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(count) = count {
                value.push_str(&format!(" {key}={count}"));
            }
        }
        planner.limit(Controller::Rdma, "RDMA limit", "rdma.max", value)?;
    }
    Ok(())
}

/// `2MB`: it becomes part of a file's name.
fn page_size(size: &str) -> Result<&str, CgroupError> {
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < size.len() && matches!(unit, "KB" | "MB" | "GB") {
        return Ok(size);
    }
    let why = "a page size looks like 2MB";
    Err(CgroupError::Value { limit: "huge page limit", value: size.to_owned(), why })
}

/// Rates, with their file on version 1 and their key in `io.max`.
fn rates(io: &LinuxBlockIo) -> impl Iterator<Item = (&'static str, &'static str, &LinuxThrottleDevice)> {
    [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
    .into_iter()
    .flat_map(|(file, key, list)| list.iter().flatten().map(move |item| (file, key, item)))
}

pub(super) fn check_weight(weight: u16) -> Result<u16, CgroupError> {
    if (10..=1000).contains(&weight) {
        return Ok(weight);
    }
    let why = "a weight is between 10 and 1000";
    Err(CgroupError::Value { limit: "block IO weight", value: weight.to_string(), why })
}

fn block_io_v1(io: &LinuxBlockIo, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let on = Controller::Blkio;
    let or = |file: &str, value: String| Some((file.to_owned(), value));
    if let Some(weight) = given(io.weight()) {
        let weight = check_weight(weight)?.to_string();
        let write = planner.limit(on, "block IO weight", "blkio.weight", &weight)?;
        write.otherwise = or("blkio.bfq.weight", weight);
    }
    if let Some(weight) = given(io.leaf_weight()) {
        planner.limit(on, "block IO leaf weight", "blkio.leaf_weight", check_weight(weight)?)?;
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = given(device.weight()) {
            let value = format!("{name} {}", check_weight(weight)?);
            let write = planner.limit(on, "block IO weight", "blkio.weight_device", &value)?;
            write.otherwise = or("blkio.bfq.weight_device", value);
        }
        if let Some(weight) = given(device.leaf_weight()) {
            let value = format!("{name} {}", check_weight(weight)?);
            planner.limit(on, "block IO leaf weight", "blkio.leaf_weight_device", value)?;
        }
    }
    for (file, _, item) in rates(io) {
        let value = format!("{}:{} {}", item.major(), item.minor(), item.rate());
        planner.limit(on, "block IO rate", file, value)?;
    }
    Ok(())
}

/// A weight of version 1 (10 to 1000) on version 2's scale (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

fn block_io_v2(io: &LinuxBlockIo, planner: &mut Planner<'_>) -> Result<(), CgroupError> {
    let on = Controller::Io;
    if given(io.leaf_weight()).is_some() {
        return Err(unsupported("block IO leaf weight".to_owned(), "v2"));
    }
    if let Some(weight) = given(io.weight()) {
        let weight = check_weight(weight)?;
        planner.limit(on, "block IO weight", "io.bfq.weight", weight)?.otherwise =
            Some(("io.weight".to_owned(), io_weight(weight).to_string()));
    }
    for device in io.weight_device().iter().flatten() {
        if given(device.leaf_weight()).is_some() {
            return Err(unsupported("block IO leaf weight".to_owned(), "v2"));
        }
        let Some(weight) = given(device.weight()) else { continue };
        let (name, weight) = (format!("{}:{}", device.major(), device.minor()), check_weight(weight)?);
        let write = planner.limit(on, "block IO weight", "io.bfq.weight", format!("{name} {weight}"))?;
        write.otherwise = Some(("io.weight".to_owned(), format!("{name} {}", io_weight(weight))));
    }
    for (_, key, item) in rates(io) {
        let value = format!("{}:{} {key}={}", item.major(), item.minor(), item.rate());
        planner.limit(on, "block IO rate", "io.max", value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_the_known_points() {
        let known =
            [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (512, 59), (2048, 174)];
        for (shares, weight) in known {
            assert_eq!(weight_from_shares(shares), weight, "{shares}");
        }
        assert_eq!([io_weight(10), io_weight(500), io_weight(1000)], [1, 4950, 10_000]);
    }

    #[test]
    fn page_sizes_stay_file_names() {
        assert_eq!(page_size("1GB").unwrap(), "1GB");
        for bad in ["", "MB", "2M", "../../x", "2MB/../"] {
            assert!(page_size(bad).is_err(), "{bad}");
        }
    }
}
