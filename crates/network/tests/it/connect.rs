//! Namespaces, addresses, isolation.

use std::collections::BTreeSet;
use std::time::Instant;

use cata_network::Error;

use crate::world::{ask_tcp, is_closed, request, run, tcp, world};

#[test]
fn networks_are_isolated_and_internal_has_no_way_out() {
    world("connect::networks_are_isolated_and_internal_has_no_way_out", |world| {
        world.create("front", |_| {});
        world.create("back", |request| request.internal = true);
        let front = world.connect("front", &["front"], &[tcp(None, 8080, 80)]);
        let back = world.connect("back", &["back"], &[]);
        let both = world.connect("both", &["front", "back"], &[]);
        for container in [&front, &back, &both] {
            container.serve_tcp("0.0.0.0:80");
        }
        let (to_front, to_back) = (format!("{}:80", front.v4()), format!("{}:80", back.v4()));
        both.inside(|| {
            assert!(ask_tcp(&to_front).is_ok());
            assert!(ask_tcp(&to_back).is_ok());
            assert!(ask_tcp("192.0.2.1:8080").is_ok());
        });
        front.inside(|| assert!(is_closed(&to_back)));
        back.inside(|| {
            assert!(is_closed(&to_front));
            assert!(is_closed("192.0.2.1:8080"));
            // Not even with a route of its own.
            run("ip route add default dev eth0");
            assert!(is_closed(&to_front));
        });
        let error = world.networks.connect(&request("nope", &["back"], &[tcp(None, 1234, 80)])).unwrap_err();
        assert_eq!(error.to_string(), "publishing ports on internal networks only is not supported");
    });
}

#[test]
fn namespace_looks_as_with_docker() {
    world("connect::namespace_looks_as_with_docker", |world| {
        let mut wish = request("one", &["bridge"], &[]);
        wish.sysctls = vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())];
        let connected = world.networks.connect(&wish).unwrap();
        let endpoint = &connected.endpoints[0];
        assert_eq!(endpoint.ipv4, Some(("172.17.0.2".parse().unwrap(), 16)));
        assert_eq!(endpoint.mac, [2, 0x42, 172, 17, 0, 2]);
        assert!(connected.dns_sockets.is_empty() && connected.services.names.is_none());
        let text = crate::world::inside(&connected.namespace, || {
            run("ip -o addr; ip route; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip link show eth0")
        });
        for expected in [
            "lo    inet 127.0.0.1/8",
            "eth0    inet 172.17.0.2/16 brd 172.17.255.255",
            "default via 172.17.0.1 dev eth0",
            "\n0\n",
            "02:42:ac:11:00:02",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let mut wish = request("two", &["bridge"], &[]);
        wish.endpoints[0].ipv4 = Some("172.17.9.9".parse().unwrap());
        wish.endpoints[0].mac = Some([2, 1, 1, 1, 1, 1]);
        let two = world.networks.connect(&wish).unwrap();
        assert_eq!(two.endpoints[0].ipv4.unwrap().0.to_string(), "172.17.9.9");
        let mut again = request("three", &["bridge"], &[]);
        again.endpoints[0].ipv4 = wish.endpoints[0].ipv4;
        assert_eq!(
            world.networks.connect(&again).unwrap_err().to_string(),
            "address 172.17.9.9 on network bridge already in use"
        );
        let mut wish = request("four", &["bridge"], &[]);
        wish.sysctls = vec![("net.ipv4.nonsense".into(), "0".into())];
        assert!(matches!(world.networks.connect(&wish), Err(Error::Sysctl { .. })));
        assert!(matches!(
            world.networks.connect(&request("five", &["nowhere"], &[])),
            Err(Error::UnknownNetwork(name)) if name == "nowhere"
        ));
        // What failed left nothing: exactly two leases, endpoints.
        let left = std::fs::read_dir(world.directory("bridge").join("leases")).unwrap().count();
        assert_eq!(left, 2);
        let none = world.networks.connect(&request("none", &[], &[])).unwrap();
        let text = crate::world::inside(&none.namespace, || run("ip -o link; ip -o addr"));
        assert!(text.contains("127.0.0.1/8") && !text.contains("eth0"), "{text}");
    });
}

#[test]
fn hundred_in_parallel_do_not_collide() {
    world("connect::hundred_in_parallel_do_not_collide", |world| {
        world.create("crowd", |request| request.ipv6 = true);
        let connected: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..100)
                .map(|n| {
                    scope.spawn(move || {
                        let wish = request(&format!("c{n}"), &["crowd"], &[tcp(None, 0, 80)]);
                        world.networks.connect(&wish).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let addresses: BTreeSet<_> = connected.iter().map(|one| one.endpoints[0].ipv4.unwrap().0).collect();
        let ports: BTreeSet<_> = connected.iter().map(|one| one.ports[0].host_port).collect();
        assert_eq!((addresses.len(), ports.len()), (100, 100));
        let inspection = world.networks.inspect("crowd").unwrap();
        assert_eq!(inspection.endpoints.len(), 100);
        assert_eq!(run("nft list map inet catamaran ports4").matches(" : ").count(), 101);
    });
}

#[test]
fn connect_time_is_measured() {
    world("connect::connect_time_is_measured", |world| {
        let mut keep = Vec::new();
        for (what, network, ports) in
            [("bridge", "bridge", vec![]), ("bridge and a port", "bridge", vec![tcp(None, 0, 80)])]
        {
            let mut times = Vec::new();
            for n in 0..30 {
                let wish = request(&format!("c{n}"), &[network], &ports);
                let start = Instant::now();
                keep.push(world.networks.connect(&wish).unwrap());
                times.push(start.elapsed());
            }
            let first = times[0];
            times.sort();
            println!(
                "measured: connect to {what}: min {:?} median {:?} first {first:?}",
                times[0], times[15]
            );
        }
        assert_eq!(keep.len(), 60);
    });
}
