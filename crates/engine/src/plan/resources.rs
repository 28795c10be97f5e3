//! PURE: limits as the OCI specification writes them, and the checks Docker makes of them.

use cata_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};

use crate::error::Error;
use crate::host::Host;
use crate::request::{BlockLimitKind, Resources};

/// Below this the kernel cannot start a process reliably; Docker's limit since 20.10.
const MEMORY_MIN: u64 = 6 * 1024 * 1024;

/// Checks what does not depend on a cgroup version.
///
/// # Errors
/// [`Error::Invalid`] with Docker's words.
pub fn check(wanted: &Resources, host: &Host) -> Result<(), Error> {
    let fail = |text: String| Err(Error::Invalid(text));
    if let Some(memory) = wanted.memory {
        if memory != 0 && memory < MEMORY_MIN {
            return fail("Minimum memory limit allowed is 6MB".to_owned());
        }
        if let Some(reservation) = wanted.memory_reservation
            && reservation > memory
        {
            return fail(
                "Minimum memory limit can not be less than memory reservation limit, see usage".to_owned(),
            );
        }
        if let Some(swap) = wanted.memory_swap
            && swap > 0
            && swap.unsigned_abs() < memory
        {
            return fail("Minimum memoryswap limit should be larger than memory limit, see usage".to_owned());
        }
    } else if wanted.memory_swap.is_some_and(|swap| swap > 0) {
        return fail(
            "You should always set the Memory limit when using Memoryswap limit, see usage".to_owned(),
        );
    }
    if let Some(nano) = wanted.nano_cpus {
        let most = u64::from(host.cpus) * 1_000_000_000;
        if nano > most {
            return fail(format!(
                "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
                host.cpus
            ));
        }
        if nano != 0 && nano < 10_000_000 {
            return fail("range of CPUs starts at 0.01".to_owned());
        }
        if wanted.cpu_quota.is_some() || wanted.cpu_period.is_some() {
            return fail("Conflicting options: CPUs and CPU quota or period cannot both be set".to_owned());
        }
    }
    if let Some(weight) = wanted.blkio_weight
        && weight != 0
        && !(10..=1000).contains(&weight)
    {
        return fail("Range of blkio weight is from 10 to 1000".to_owned());
    }
    Ok(())
}

/// A [`crate::request::BlockLimit`] whose device was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// What is limited.
    pub kind: BlockLimitKind,
    /// The device.
    pub major: u32,
    /// The device.
    pub minor: u32,
    /// As asked.
    pub value: u64,
}

/// The limits as the runtime takes them.
///
/// # Errors
/// [`Error::Invalid`] when a number does not fit the kernel's type.
pub fn oci(
    wanted: &Resources,
    devices: Vec<LinuxDeviceCgroup>,
    block: &[Block],
) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices);
    if let Some(memory) = memory(wanted)? {
        resources = resources.memory(memory);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(nano) = wanted.nano_cpus.filter(|&n| n > 0) {
        // --cpus 1.5 is 150 ms of every 100 ms, as Docker writes it.
        cpu = cpu.period(100_000_u64).quota(signed(nano / 10_000)?);
    }
    if let Some(quota) = wanted.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = wanted.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(shares) = wanted.cpu_shares.filter(|&s| s > 0) {
        cpu = cpu.shares(shares);
    }
    if let Some(cpus) = &wanted.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if let Some(mems) = &wanted.cpuset_mems {
        cpu = cpu.mems(mems.clone());
    }
    resources = resources.cpu(cpu.build().map_err(internal)?);
    if let Some(pids) = wanted.pids.filter(|&p| p != 0) {
        resources = resources.pids(LinuxPidsBuilder::default().limit(pids).build().map_err(internal)?);
    }
    if let Some(io) = block_io(wanted.blkio_weight.filter(|&w| w > 0), block)? {
        resources = resources.block_io(io);
    }
    resources.build().map_err(internal)
}

fn block_io(weight: Option<u16>, limits: &[Block]) -> Result<Option<LinuxBlockIo>, Error> {
    if weight.is_none() && limits.is_empty() {
        return Ok(None);
    }
    let of = |kind| limits.iter().filter(move |limit| limit.kind == kind);
    let rates = |kind| {
        let one = |limit: &Block| {
            let device = LinuxThrottleDeviceBuilder::default();
            device.major(limit.major).minor(limit.minor).rate(limit.value).build().map_err(internal)
        };
        of(kind).map(one).collect::<Result<Vec<_>, _>>()
    };
    let weights = of(BlockLimitKind::Weight).map(|limit| {
        let weight = u16::try_from(limit.value).map_err(internal)?;
        let device = LinuxWeightDeviceBuilder::default();
        device.major(limit.major).minor(limit.minor).weight(weight).build().map_err(internal)
    });
    let mut io = LinuxBlockIoBuilder::default()
        .weight_device(weights.collect::<Result<Vec<_>, _>>()?)
        .throttle_read_bps_device(rates(BlockLimitKind::ReadBytes)?)
        .throttle_write_bps_device(rates(BlockLimitKind::WriteBytes)?)
        .throttle_read_iops_device(rates(BlockLimitKind::ReadOperations)?)
        .throttle_write_iops_device(rates(BlockLimitKind::WriteOperations)?);
    if let Some(weight) = weight {
        io = io.weight(weight);
    }
    io.build().map(Some).map_err(internal)
}

fn memory(wanted: &Resources) -> Result<Option<cata_spec::runtime::LinuxMemory>, Error> {
    if wanted.memory.is_none()
        && wanted.memory_reservation.is_none()
        && wanted.swappiness.is_none()
        && !wanted.oom_kill_disable
    {
        return Ok(None);
    }
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = wanted.memory.filter(|&m| m > 0) {
        memory = memory.limit(signed(limit)?);
        // Docker's default: as much swap again as memory.
        let swap = match wanted.memory_swap {
            None | Some(0) => signed(limit.saturating_mul(2))?,
            Some(swap) => swap,
        };
        memory = memory.swap(swap);
    }
    if let Some(reservation) = wanted.memory_reservation {
        memory = memory.reservation(signed(reservation)?);
    }
    if let Some(swappiness) = wanted.swappiness {
        memory = memory.swappiness(swappiness);
    }
    if wanted.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    Ok(Some(memory.build().map_err(internal)?))
}

fn signed(value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|_| Error::Invalid(format!("{value} is too large")))
}

fn internal<E: std::fmt::Display>(error: E) -> Error {
    Error::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { cpus: 2, ..Host::for_tests() }
    }

    #[test]
    fn memory_below_six_megabytes_is_refused_in_dockers_words() {
        let wanted = Resources { memory: Some(4 << 20), ..Resources::default() };
        assert_eq!(check(&wanted, &host()).unwrap_err().to_string(), "Minimum memory limit allowed is 6MB");
    }

    #[test]
    fn more_cpus_than_the_host_has_are_refused() {
        let wanted = Resources { nano_cpus: Some(3_000_000_000), ..Resources::default() };
        assert!(check(&wanted, &host()).unwrap_err().to_string().contains("only 2 CPUs"));
    }

    #[test]
    fn memory_without_swap_gets_twice_as_memsw() {
        let wanted = Resources { memory: Some(64 << 20), ..Resources::default() };
        let oci = oci(&wanted, Vec::new(), &[]).unwrap();
        let memory = oci.memory().as_ref().unwrap();
        assert_eq!(memory.limit(), Some(64 << 20));
        assert_eq!(memory.swap(), Some(128 << 20));
    }

    #[test]
    fn cpus_become_quota_of_a_100_ms_period() {
        let wanted = Resources { nano_cpus: Some(1_500_000_000), ..Resources::default() };
        let oci = oci(&wanted, Vec::new(), &[]).unwrap();
        let cpu = oci.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
    }
}
