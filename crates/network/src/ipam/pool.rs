//! PURE: subnets and the addresses in them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::record::Pool;

/// The subnets that networks get when none is asked for, in order: Docker's.
pub fn defaults() -> impl Iterator<Item = IpNet> {
    let large = (17..=31).map(|second| net4([172, second, 0, 0], 16));
    let small = (0..16).map(|third| net4([192, 168, third * 16, 0], 20));
    large.chain(small)
}

/// The first default subnet that meets none of those in use.
#[must_use]
pub fn first_free(used: &[IpNet]) -> Option<IpNet> {
    defaults().find(|candidate| !used.iter().any(|other| overlap(*candidate, *other)))
}

/// A unique local /64 (RFC 4193) from random bytes.
#[must_use]
pub fn unique_local(random: [u8; 7]) -> IpNet {
    let mut octets = [0_u8; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

/// Whether two subnets have an address in common.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first address that containers may have, and the last.
#[must_use]
pub fn bounds(subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match subnet {
        // The first address is the network's, the last its broadcast.
        IpNet::V4(net) if net.prefix_len() < 31 => (first + 1, last - 1),
        // The first is the subnet router's (RFC 4291).
        IpNet::V6(net) if net.prefix_len() < 127 => (first + 1, last),
        _ => (first, last),
    }
}

/// Whether containers of the pool may have the address.
#[must_use]
pub fn assignable(pool: &Pool, address: IpAddr) -> bool {
    let (first, last) = bounds(pool.subnet);
    address.is_ipv4() == pool.gateway.is_ipv4()
        && (first..=last).contains(&number(address))
        && address != pool.gateway
}

/// The lowest address of the pool that is not taken.
#[must_use]
pub fn lowest_free(pool: &Pool, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (mut first, mut last) = bounds(pool.subnet);
    if let Some(range) = pool.range {
        first = first.max(number(range.network()));
        last = last.min(number(range.broadcast()));
    }
    // At most one more than are taken, and the gateway, has to be looked at.
    (first..=last)
        .map(|number| address(number, pool.gateway.is_ipv6()))
        .find(|one| *one != pool.gateway && !taken.contains(one))
}

/// The address with a number; of IPv4 the low 32 bits count.
#[must_use]
pub fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from((number & 0xffff_ffff) as u32).into() }
}

/// An address as a number.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn net4(octets: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(octets), prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(subnet: &str, gateway: &str) -> Pool {
        Pool { subnet: subnet.parse().unwrap(), gateway: gateway.parse().unwrap(), range: None }
    }

    #[test]
    fn first_free_passes_over_what_is_used() {
        assert_eq!(first_free(&[]), Some("172.17.0.0/16".parse().unwrap()));
        let used = ["172.16.0.0/15".parse().unwrap(), "172.18.4.0/24".parse().unwrap()];
        assert_eq!(first_free(&used), Some("172.19.0.0/16".parse().unwrap()));
        assert_eq!(first_free(&["0.0.0.0/0".parse().unwrap()]), None);
    }

    #[test]
    fn lowest_free_full_pool_is_none() {
        let pool = pool("10.0.0.0/30", "10.0.0.1");
        let mut taken = BTreeSet::new();
        let only: IpAddr = "10.0.0.2".parse().unwrap();
        assert_eq!(lowest_free(&pool, &taken), Some(only));
        taken.insert(only);
        assert_eq!(lowest_free(&pool, &taken), None);
    }

    #[test]
    fn lowest_free_range_is_respected() {
        let mut pool = pool("10.0.0.0/16", "10.0.0.1");
        pool.range = Some("10.0.5.0/24".parse().unwrap());
        assert_eq!(lowest_free(&pool, &BTreeSet::new()), Some("10.0.5.0".parse().unwrap()));
    }

    #[test]
    fn assignable_excludes_network_broadcast_gateway() {
        let pool = pool("10.1.2.0/24", "10.1.2.1");
        for bad in ["10.1.2.0", "10.1.2.255", "10.1.2.1", "10.1.3.4", "fd00::2"] {
            assert!(!assignable(&pool, bad.parse().unwrap()), "{bad}");
        }
        assert!(assignable(&pool, "10.1.2.254".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn lowest_free_is_assignable_and_new(
            base in any::<u32>(), prefix in 20_u8..=30, taken in proptest::collection::btree_set(0_u32..64, 0..40)
        ) {
            let subnet = Ipv4Net::new(base.into(), prefix).unwrap().trunc();
            let gateway = IpAddr::V4(Ipv4Addr::from(u32::from(subnet.network()) + 1));
            let pool = Pool { subnet: subnet.into(), gateway, range: None };
            let taken: BTreeSet<IpAddr> = taken.into_iter()
                .map(|n| IpAddr::V4(Ipv4Addr::from(u32::from(subnet.network()).wrapping_add(n)))).collect();
            if let Some(found) = lowest_free(&pool, &taken) {
                prop_assert!(assignable(&pool, found));
                prop_assert!(!taken.contains(&found));
            }
        }
    }
}
