//! The virtual machine as KVM has it: memory slots, interrupt lines, kicks.
#![expect(unsafe_code, reason = "lending memory to a guest")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::fd;
use crate::error::MachineError;
use crate::layout;
use crate::memory::Ram;

/// One virtual machine. It keeps the memory it was lent.
pub(crate) struct Vm {
    vm: VmFd,
    cpuid: CpuId,
    deadline_timer: bool,
    _ram: Arc<Ram>,
}

/// What cannot be done without.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "interrupt controllers of its own"),
    (Cap::Irqfd, "interrupts by eventfd"),
    (Cap::Ioeventfd, "kicks by eventfd"),
    (Cap::UserMemory, "guest memory of a process"),
    (Cap::SetTssAddr, "a place for its own pages"),
    (Cap::ExtCpuid, "a choice of processor features"),
];

impl Vm {
    pub(crate) fn new(device: OwnedFd, ram: Arc<Ram>, vcpus: u8) -> Result<Vm, MachineError> {
        let kvm = fd::kvm(device);
        check(&kvm, vcpus)?;
        let vm = kvm.create_vm().map_err(MachineError::kvm("create a virtual machine"))?;
        vm.set_identity_map_address(layout::KVM_IDENTITY)
            .map_err(MachineError::kvm("place its identity map"))?;
        vm.set_tss_address(layout::KVM_TSS as usize).map_err(MachineError::kvm("place its task state"))?;
        vm.create_irq_chip().map_err(MachineError::kvm("make interrupt controllers"))?;
        for (slot, region) in ram.map().iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region is mapped as long as `ram`, which is kept beside the machine, and nobody
            // holds Rust references into it.
            unsafe { vm.set_user_memory_region(region) }.map_err(MachineError::kvm("take guest memory"))?;
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(MachineError::kvm("list processor features"))?;
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Vm { vm, cpuid, deadline_timer, _ram: ram })
    }

    pub(crate) fn cpuid(&self) -> &CpuId {
        &self.cpuid
    }

    pub(crate) fn deadline_timer(&self) -> bool {
        self.deadline_timer
    }

    pub(crate) fn vcpu(&self, index: u8) -> Result<VcpuFd, MachineError> {
        self.vm.create_vcpu(u64::from(index)).map_err(MachineError::kvm("create a processor"))
    }

    /// A write to `fd` interrupts the guest on this line, without this process.
    pub(crate) fn interrupt(&self, fd: &EventFd, line: u32) -> Result<(), MachineError> {
        self.vm.register_irqfd(fd, line).map_err(MachineError::kvm("take interrupts by eventfd"))
    }

    /// The guest's write of `value` to this address is a write to `fd`, without this process.
    pub(crate) fn kick(&self, fd: &EventFd, address: u64, value: u32) -> Result<(), MachineError> {
        let address = IoEventAddress::Mmio(address);
        self.vm.register_ioevent(fd, &address, value).map_err(MachineError::kvm("give kicks by eventfd"))
    }
}

fn check(kvm: &Kvm, vcpus: u8) -> Result<(), MachineError> {
    if kvm.get_api_version() != 12 {
        return Err(MachineError::Lacking("the stable interface"));
    }
    if let Some((_, what)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(MachineError::Lacking(what));
    }
    let most = kvm.get_max_vcpus();
    if usize::from(vcpus) > most {
        return Err(MachineError::TooManyVcpus { asked: vcpus, most });
    }
    Ok(())
}
