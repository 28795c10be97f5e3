//! Published ports: from everywhere they should be reached, and from nowhere else.

use crate::world::{ask_tcp, ask_udp, is_closed, run, tcp, udp, world};

#[test]
fn published_port_is_reached_from_everywhere() {
    world("publish::published_port_is_reached_from_everywhere", |world| {
        world.create("other", |_| {});
        let server = world.connect(
            "web",
            &["bridge"],
            &[tcp(None, 8080, 80), udp(None, 5353, 53), tcp(Some("192.0.2.1"), 81, 80)],
        );
        server.serve_tcp("0.0.0.0:80");
        server.serve_udp("0.0.0.0:53");
        let neighbour = world.connect("client", &["bridge"], &[]);
        let stranger = world.connect("stranger", &["other"], &[]);

        for address in ["127.0.0.1:8080", "192.0.2.1:8080", "192.0.2.1:81", "127.0.0.2:8080"] {
            assert!(
                ask_tcp(address).is_ok(),
                "{address}: {:?}\n{}",
                ask_tcp(address),
                run("nft list ruleset; ip a; ip r")
            );
        }
        for address in ["127.0.0.1:5353", "192.0.2.1:5353"] {
            assert!(ask_udp(address).is_ok(), "{address}");
        }
        assert!(is_closed("127.0.0.1:81"));
        for client in [&neighbour, &server, &stranger] {
            client.inside(|| {
                assert!(ask_tcp("192.0.2.1:8080").is_ok());
                assert!(ask_tcp("192.0.2.1:81").is_ok());
                assert!(ask_udp("192.0.2.1:5353").is_ok());
                // The container's own loopback is nobody else's.
                assert!(is_closed("127.0.0.1:8080"));
            });
        }
        let direct = format!("{}:80", server.v4());
        neighbour.inside(|| assert!(ask_tcp(&direct).is_ok()));
        stranger.inside(|| assert!(is_closed(&direct)));

        server.end();
        assert!(is_closed("127.0.0.1:8080"));
        let left = run("nft list map inet catamaran ports4; nft list map inet catamaran ports4_at");
        assert!(!left.contains("elements"), "{left}");
    });
}

#[test]
fn published_port_is_reached_over_ipv6() {
    world("publish::published_port_is_reached_over_ipv6", |world| {
        world.create("six", |request| request.ipv6 = true);
        let server =
            world.connect("web", &["six"], &[tcp(None, 8080, 80), udp(Some("2001:db8:1::1"), 53, 53)]);
        server.serve_tcp("[::]:80");
        server.serve_udp("[::]:53");
        let families: Vec<bool> = server.connected.ports.iter().map(|port| port.host_ip.is_ipv6()).collect();
        assert_eq!(families, [false, true, true]);
        let neighbour = world.connect("client", &["six"], &[]);
        assert!(ask_tcp("[2001:db8:1::1]:8080").is_ok(), "{}", run("nft list ruleset; ip -6 a; ip -6 r"));
        assert!(ask_tcp("127.0.0.1:8080").is_ok());
        assert!(ask_udp("[2001:db8:1::1]:53").is_ok());
        for client in [&neighbour, &server] {
            client.inside(|| {
                assert!(ask_tcp("[2001:db8:1::1]:8080").is_ok());
                assert!(ask_tcp("192.0.2.1:8080").is_ok());
            });
        }
        let direct = format!("[{}]:80", server.v6());
        neighbour.inside(|| assert!(ask_tcp(&direct).is_ok()));
    });
}

#[test]
fn unpublished_port_is_closed_to_the_outside() {
    world("publish::unpublished_port_is_closed_to_the_outside", |world| {
        let server =
            world.connect("web", &["bridge"], &[tcp(Some("127.0.0.1"), 8080, 80), tcp(None, 9090, 90)]);
        server.serve_tcp("0.0.0.0:80");
        server.serve_tcp("0.0.0.0:90");
        // A machine on the host's network, that routes to the containers through the host.
        run("ip netns add neighbour");
        run("ip link add uplink type veth peer name eth0 netns neighbour");
        run("ip addr add 198.51.100.1/24 dev uplink; ip link set uplink up");
        run("ip -n neighbour addr add 198.51.100.2/24 dev eth0; ip -n neighbour link set eth0 up");
        run("ip -n neighbour link set lo up; ip -n neighbour route add default via 198.51.100.1");
        let neighbour = std::fs::File::open("/run/netns/neighbour").unwrap().into();
        let direct = format!("{}:80", server.v4());
        crate::world::inside(&neighbour, || {
            assert!(ask_tcp("198.51.100.1:9090").is_ok());
            assert_eq!(ask_tcp("198.51.100.1:9090").unwrap(), "198.51.100.2");
            assert!(is_closed(&direct));
            assert!(is_closed("198.51.100.1:8080"));
        });
        // A container reaches the world with the host's address; the world does not reach others through us.
        let listener =
            crate::world::inside(&neighbour, || std::net::TcpListener::bind("0.0.0.0:70").unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let _ = std::io::Write::write_all(&mut stream, peer.to_string().as_bytes());
            }
        });
        server.inside(|| assert_eq!(ask_tcp("198.51.100.2:70").unwrap(), "198.51.100.1"));
    });
}

#[test]
fn spoofed_loopback_is_dropped() {
    world("publish::spoofed_loopback_is_dropped", |world| {
        let container = world.connect("evil", &["bridge"], &[]);
        let secret = std::net::TcpListener::bind("127.0.0.1:7777").unwrap();
        // With route_localnet on the bridge, a crafted route would reach the host's loopback.
        container.inside(|| {
            run("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 172.17.0.1 dev eth0");
            assert!(is_closed("127.0.0.1:7777"));
        });
        drop(secret);
    });
}

#[test]
fn administrators_chain_goes_first_and_stays() {
    world("publish::administrators_chain_goes_first_and_stays", |world| {
        let server = world.connect("web", &["bridge"], &[tcp(None, 8080, 80)]);
        server.serve_tcp("0.0.0.0:80");
        world.create("other", |_| {});
        let client = world.connect("client", &["other"], &[]);
        client.inside(|| assert!(ask_tcp("192.0.2.1:8080").is_ok()));
        run("nft add rule inet catamaran catamaran-admin tcp dport 80 drop");
        client.inside(|| assert!(is_closed("192.0.2.1:8080")));
        // Another network makes the rules be written again.
        world.create("third", |_| {});
        let _third = world.connect("third", &["third"], &[]);
        client.inside(|| assert!(is_closed("192.0.2.1:8080")));
    });
}
