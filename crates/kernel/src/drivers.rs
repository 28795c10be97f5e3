//! The drivers that a guest cannot do without, those it may use, and how to tell what a kernel offers.

use crate::error::{Error, Result};
use crate::image::{Kernel, find};
use crate::modules::{Module, Offer, Tree};

/// A driver that a guest may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// The module's name.
    pub module: &'static str,
    /// What it is for, as a listing says it.
    pub purpose: &'static str,
    /// Without it no container can run.
    needed: bool,
    /// Text in a kernel that has it built in, ended by a zero: the name it registers.
    evidence: &'static str,
}

const fn driver(module: &'static str, purpose: &'static str, needed: bool, evidence: &'static str) -> Driver {
    Driver { module, purpose, needed, evidence }
}

/// Every driver that goes into an initramfs, in the order in which they are loaded.
pub const DRIVERS: [Driver; 14] = [
    driver("virtio_mmio", "the bus of our own monitor", false, "virtio-mmio"),
    driver("virtio_pci", "the bus of QEMU", false, "virtio-pci"),
    driver("virtio_console", "the channel to the guest", true, "virtio_console"),
    driver("virtio_net", "network", true, "virtio_net"),
    driver("virtiofs", "the root file system and shared directories", true, "virtiofs"),
    driver("virtio_blk", "disks", false, "virtio_blk"),
    driver("virtio_balloon", "returning memory", false, "virtio_balloon"),
    driver("virtio_rng", "random numbers", false, "virtio_rng"),
    driver("vmw_vsock_virtio_transport", "sockets to the host", false, "vmw_vsock_virtio_transport"),
    driver("overlay", "layers inside the guest", false, "overlay"),
    driver("erofs", "layers as disks", false, "erofs"),
    driver("ext4", "disks of machines", false, "ext4"),
    driver("loop", "disks inside the guest", false, "loop"),
    driver("af_packet", "raw packets", false, "af_packet"),
];

/// What the engine in a machine needs besides: bridges and their members, the firewall, addresses translated. What a
/// kernel lacks of these is said when it is missed.
const FURTHER: [&str; 16] = [
    "bridge",
    "veth",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_masq",
    "nft_nat",
    "dummy",
    "tun",
];

/// What a kernel offers for a guest, and the modules it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Each of [`DRIVERS`], and how it is there.
    pub offers: Vec<(&'static str, Offer)>,
    /// To be loaded, in this order.
    pub modules: Vec<Module>,
    /// Behind those, in a machine with the engine in it.
    pub further: Vec<Module>,
}

/// What `kernel` offers, with its modules if there are any.
///
/// # Errors
/// [`Error::NoDriver`] for one that no guest can do without; a damaged module.
pub fn fit(kernel: &Kernel, tree: Option<&Tree>) -> Result<Fit> {
    let offers: Vec<(&'static str, Offer)> =
        DRIVERS.iter().map(|driver| (driver.module, offer(driver, kernel, tree))).collect();
    let version = kernel.version.clone().unwrap_or_default();
    let none = |name: &str| offers.iter().any(|(module, offer)| *module == name && *offer == Offer::None);
    let lacking = |driver: &str| Error::NoDriver { kernel: version.clone(), driver: driver.to_owned() };
    if let Some(driver) = DRIVERS.iter().find(|driver| driver.needed && none(driver.module)) {
        return Err(lacking(driver.module));
    }
    if none("virtio_mmio") && none("virtio_pci") {
        return Err(lacking("virtio_mmio or virtio_pci"));
    }
    let wanted: Vec<&str> =
        offers.iter().filter(|(_, offer)| *offer == Offer::Module).map(|(module, _)| *module).collect();
    let modules = tree.map_or_else(|| Ok(Vec::new()), |tree| tree.resolve(&wanted))?;
    let further = tree.map_or_else(|| Ok(Vec::new()), |tree| further(tree, &wanted))?;
    Ok(Fit { offers, modules, further })
}

fn further(tree: &Tree, wanted: &[&str]) -> Result<Vec<Module>> {
    let more = FURTHER.into_iter().filter(|name| tree.offer(name) == Offer::Module);
    let all: Vec<&str> = wanted.iter().copied().chain(more).collect();
    let first = tree.resolve(wanted)?.len();
    Ok(tree.resolve(&all)?.split_off(first))
}

fn offer(driver: &Driver, kernel: &Kernel, tree: Option<&Tree>) -> Offer {
    if let Some(tree) = tree {
        return tree.offer(driver.module);
    }
    // Without its tables a kernel still holds the names that its drivers register.
    let needle: Vec<u8> = driver.evidence.bytes().chain([0]).collect();
    if find(&kernel.bytes, &needle).is_some() { Offer::Builtin } else { Offer::None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Arch;

    fn kernel(text: &[u8]) -> Kernel {
        Kernel { arch: Arch::Amd64, bytes: text.to_vec(), version: Some("6.9.1".to_owned()) }
    }

    #[test]
    fn fit_without_modules_goes_by_names_in_the_kernel() {
        let all = kernel(b"\0virtio-mmio\0virtio_console\0virtio_net\0virtiofs\0");
        let fit = fit(&all, None).unwrap();
        assert_eq!(fit.offers[0], ("virtio_mmio", Offer::Builtin));
        assert_eq!(fit.offers[1], ("virtio_pci", Offer::None));
        assert!(fit.modules.is_empty());
    }

    #[test]
    fn fit_without_a_needed_driver_names_it() {
        let said = |text: &[u8]| fit(&kernel(text), None).unwrap_err().to_string();
        let no =
            |driver| format!("the kernel 6.9.1 has no driver {driver}, neither built in nor as a module");
        assert_eq!(said(b"\0virtio-mmio\0virtio_console\0virtio_net\0"), no("virtiofs"));
        assert_eq!(said(b"\0virtiofs\0virtio_console\0virtio_net\0"), no("virtio_mmio or virtio_pci"));
    }
}
