//! PURE: from `network create` to a network: its subnets, gateways, options.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cata_spec::Name;
use ipnet::IpNet;

use crate::Error;
use crate::ipam::pool;
use crate::record::{Driver, Network, Pool, VERSION};
use crate::request::CreateNetwork;

/// What only the world knows: chance, the clock, and what is in use.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// 64 hexadecimal characters.
    pub id: String,
    /// The bridge's address.
    pub mac: [u8; 6],
    /// For a unique local IPv6 subnet.
    pub random: [u8; 7],
    /// Nanoseconds since 1970.
    pub now_ns: u64,
    /// Subnets of other networks.
    pub networks: Vec<(Name, IpNet)>,
    /// Subnets that the host uses.
    pub host: Vec<IpNet>,
}

/// Decides a network.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Unsupported`], [`Error::PoolOverlap`], [`Error::NoFreePool`].
pub fn plan(request: &CreateNetwork, world: &Circumstances) -> Result<Network, Error> {
    if request.driver != "bridge" {
        return Err(Error::Unsupported(format!("network driver `{}`", request.driver)));
    }
    let options = Options::parse(&request.options)?;
    let mut network = Network {
        version: VERSION,
        id: world.id.clone(),
        name: request.name.clone(),
        driver: Driver::Bridge,
        created_ns: world.now_ns,
        internal: request.internal,
        ipv6: false,
        pools: pools(request, world)?,
        interface: options.interface.unwrap_or_else(|| format!("cata-{}", &world.id[..10])),
        mac: world.mac,
        mtu: options.mtu,
        masquerade: options.masquerade,
        host_binding: options.host_binding,
        labels: request.labels.iter().cloned().collect(),
        options: request.options.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    network.ipv6 = network.pool(true).is_some();
    Ok(network)
}

/// `host` and `none`.
#[must_use]
pub fn builtin(name: Name, driver: Driver, id: String, now_ns: u64) -> Network {
    Network {
        version: VERSION,
        id,
        name,
        driver,
        created_ns: now_ns,
        internal: false,
        ipv6: false,
        pools: Vec::new(),
        interface: String::new(),
        mac: [0; 6],
        mtu: None,
        masquerade: false,
        host_binding: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

fn pools(request: &CreateNetwork, world: &Circumstances) -> Result<Vec<Pool>, Error> {
    let mut pools: Vec<Pool> = Vec::new();
    for text in &request.subnets {
        let net: IpNet = parse("subnet", text)?;
        let too_small = if net.addr().is_ipv4() { net.prefix_len() > 30 } else { net.prefix_len() > 126 };
        if net.trunc() != net || too_small || net.prefix_len() < 8 {
            let reason = if too_small { "too small" } else { "not a network address" };
            return Err(invalid("subnet", text, reason));
        }
        if pools.iter().any(|other| other.gateway.is_ipv4() == net.addr().is_ipv4()) {
            return Err(Error::Unsupported("more than one subnet of a family".to_owned()));
        }
        unused(net, world)?;
        pools.push(Pool { subnet: net, gateway: first(net), range: None });
    }
    let families = |v6: bool| pools.iter().any(|pool| pool.gateway.is_ipv6() == v6);
    let (has4, has6) = (families(false), families(true));
    if !has4 {
        let used: Vec<IpNet> =
            world.host.iter().copied().chain(world.networks.iter().map(|(_, net)| *net)).collect();
        let net = pool::first_free(&used).ok_or(Error::NoFreePool)?;
        pools.insert(0, Pool { subnet: net, gateway: first(net), range: None });
    }
    if request.ipv6 && !has6 {
        let net = pool::unique_local(world.random);
        pools.push(Pool { subnet: net, gateway: first(net), range: None });
    }
    for text in &request.gateways {
        let gateway: IpAddr = parse("gateway", text)?;
        let fits = |pool: &&mut Pool| {
            let (first, last) = pool::bounds(pool.subnet);
            pool.subnet.contains(&gateway) && (first..=last).contains(&pool::number(gateway))
        };
        let pool =
            pools.iter_mut().find(fits).ok_or_else(|| invalid("gateway", text, "no matching subnet"))?;
        pool.gateway = gateway;
    }
    for text in &request.ip_ranges {
        let range: IpNet = parse("ip-range", text)?;
        let pool = pools
            .iter_mut()
            .find(|pool| pool.subnet.contains(&range))
            .ok_or_else(|| invalid("ip-range", text, "no matching subnet"))?;
        pool.range = Some(range.trunc());
    }
    Ok(pools)
}

fn unused(net: IpNet, world: &Circumstances) -> Result<(), Error> {
    let overlap = |other: String| Err(Error::PoolOverlap { subnet: net.to_string(), other });
    if let Some((name, other)) = world.networks.iter().find(|(_, other)| pool::overlap(net, *other)) {
        return overlap(format!("{other} of network {name}"));
    }
    match world.host.iter().find(|other| pool::overlap(net, **other)) {
        Some(other) => overlap(format!("{other} of this host")),
        None => Ok(()),
    }
}

fn first(net: IpNet) -> IpAddr {
    pool::address(pool::bounds(net).0, net.addr().is_ipv6())
}

struct Options {
    interface: Option<String>,
    mtu: Option<u32>,
    masquerade: bool,
    host_binding: Option<std::net::Ipv4Addr>,
}

impl Options {
    fn parse(options: &[(String, String)]) -> Result<Self, Error> {
        let mut parsed = Self { interface: None, mtu: None, masquerade: true, host_binding: None };
        for (key, value) in options {
            match key.as_str() {
                "com.docker.network.bridge.name" => {
                    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
                    if value.is_empty()
                        || value.len() > 15
                        || !value.bytes().all(allowed)
                        || value.starts_with('.')
                    {
                        return Err(invalid("bridge name", value, "not an interface name"));
                    }
                    parsed.interface = Some(value.clone());
                }
                "com.docker.network.driver.mtu" => {
                    let mtu = parse("mtu", value)?;
                    if !(1280..=65535).contains(&mtu) {
                        return Err(invalid("mtu", value, "must be 1280 to 65535"));
                    }
                    parsed.mtu = Some(mtu);
                }
                "com.docker.network.bridge.enable_ip_masquerade" => {
                    parsed.masquerade = parse("enable_ip_masquerade", value)?;
                }
                "com.docker.network.bridge.host_binding_ipv4" => {
                    parsed.host_binding = Some(parse("host_binding_ipv4", value)?);
                }
                _ => return Err(Error::Unsupported(format!("network option `{key}`"))),
            }
        }
        Ok(parsed)
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| invalid(field, text, &error.to_string()))
}

fn invalid(field: &'static str, value: &str, reason: &str) -> Error {
    Error::Invalid { field, value: value.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateNetwork {
        CreateNetwork {
            name: Name::parse("web").unwrap(),
            driver: "bridge".to_owned(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            ip_ranges: Vec::new(),
            internal: false,
            ipv6: false,
            labels: Vec::new(),
            options: Vec::new(),
        }
    }

    fn world() -> Circumstances {
        Circumstances {
            id: "a1".repeat(32),
            mac: [2; 6],
            random: [7; 7],
            now_ns: 1,
            networks: vec![(Name::parse("bridge").unwrap(), "172.17.0.0/16".parse().unwrap())],
            host: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    #[test]
    fn plan_without_wishes_takes_next_pool() {
        let network = plan(&request(), &world()).unwrap();
        assert_eq!(network.interface, "cata-a1a1a1a1a1");
        assert_eq!(network.pools[0].subnet.to_string(), "172.18.0.0/16");
        assert_eq!(network.pools[0].gateway.to_string(), "172.18.0.1");
        assert!(!network.ipv6);
    }

    #[test]
    fn plan_ipv6_adds_unique_local_subnet() {
        let network = plan(&CreateNetwork { ipv6: true, ..request() }, &world()).unwrap();
        assert_eq!(network.pool(true).unwrap().subnet.to_string(), "fd07:707:707:707::/64");
        assert!(network.ipv6);
    }

    #[test]
    fn plan_explicit_subnet_gateway_range() {
        let network = plan(
            &CreateNetwork {
                subnets: vec!["192.168.7.0/24".into(), "fd00:9::/64".into()],
                gateways: vec!["192.168.7.254".into()],
                ip_ranges: vec!["192.168.7.128/25".into()],
                ..request()
            },
            &world(),
        )
        .unwrap();
        assert_eq!(network.pools[0].gateway.to_string(), "192.168.7.254");
        assert_eq!(network.pools[0].range.unwrap().to_string(), "192.168.7.128/25");
        assert_eq!(network.pools[1].gateway.to_string(), "fd00:9::1");
    }

    #[test]
    fn plan_bad_input_is_named() {
        let bad = |change: fn(&mut CreateNetwork)| {
            let mut request = request();
            change(&mut request);
            plan(&request, &world()).unwrap_err().to_string()
        };
        let cases = [
            bad(|r| r.driver = "overlay".into()),
            bad(|r| r.subnets = vec!["10.1.0.0/16".into()]),
            bad(|r| r.subnets = vec!["172.17.9.0/24".into()]),
            bad(|r| r.subnets = vec!["192.168.7.1/24".into()]),
            bad(|r| r.subnets = vec!["nonsense".into()]),
            bad(|r| r.gateways = vec!["9.9.9.9".into()]),
            bad(|r| r.options = vec![("x.y".into(), "1".into())]),
        ];
        assert_eq!(
            cases,
            [
                "network driver `overlay` is not supported",
                "pool overlaps with other one on this address space: 10.1.0.0/16 and 10.0.0.0/8 of this host",
                "pool overlaps with other one on this address space: 172.17.9.0/24 and 172.17.0.0/16 of network bridge",
                "invalid subnet `192.168.7.1/24`: not a network address",
                "invalid subnet `nonsense`: invalid IP address syntax",
                "invalid gateway `9.9.9.9`: no matching subnet",
                "network option `x.y` is not supported",
            ]
        );
    }
}
