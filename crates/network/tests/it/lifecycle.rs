//! Networks come, go, survive reboots and kills.

use cata_network::{Error, Kind};

use crate::world::{ask_tcp, create_request, is_closed, request, run, tcp, world};

#[test]
fn create_list_inspect_remove() {
    world("lifecycle::create_list_inspect_remove", |world| {
        let networks = &world.networks;
        let names =
            || networks.list(|_, _| {}).unwrap().iter().map(|n| n.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(), ["bridge", "host", "none"]);
        let made = world.create("web", |request| request.labels = vec![("a".into(), "b".into())]);
        assert_eq!(names(), ["bridge", "host", "none", "web"]);
        assert!(matches!(networks.create(&create_request("web")), Err(Error::NetworkExists(_))));
        assert!(matches!(networks.create(&create_request("host")), Err(Error::NetworkExists(_))));
        assert_eq!(networks.inspect(&made.id[..12]).unwrap().network, made);
        assert_eq!(networks.inspect("nope").unwrap_err().kind(), Kind::NotFound);
        assert!(matches!(networks.remove("bridge"), Err(Error::Predefined(_))));

        let container = world.connect("box", &["web"], &[]);
        let error = networks.remove("web").unwrap_err();
        assert_eq!(error.to_string(), "network web has active endpoints (name:\"box\")");
        let seen = networks.inspect("web").unwrap().endpoints;
        assert_eq!(seen[0].endpoint, container.connected.endpoints[0]);
        container.end();
        assert!(run("ip -o link").contains(&made.interface));
        assert!(run("nft list set inet catamaran bridges").contains(&made.interface));
        networks.remove("web").unwrap();
        assert!(!run("ip -o link").contains(&made.interface));
        assert!(!run("nft list table inet catamaran").contains(&made.interface));
        assert_eq!(names(), ["bridge", "host", "none"]);
        assert!(matches!(networks.connect(&request("late", &["web"], &[])), Err(Error::UnknownNetwork(_))));
    });
}

#[test]
fn port_in_use_is_refused_and_leaves_nothing() {
    world("lifecycle::port_in_use_is_refused_and_leaves_nothing", |world| {
        let first = world.connect("first", &["bridge"], &[tcp(None, 5432, 5432)]);
        let error =
            world.networks.connect(&request("second", &["bridge"], &[tcp(None, 5432, 5432)])).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:5432 failed: port is already allocated");
        assert_eq!(error.kind(), Kind::Conflict);
        let somebody = std::net::TcpListener::bind("127.0.0.1:6000").unwrap();
        let error =
            world.networks.connect(&request("third", &["bridge"], &[tcp(None, 6000, 1)])).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:6000 failed: port is already allocated");
        let error = world
            .networks
            .connect(&request("x4", &["bridge"], &[tcp(Some("203.0.113.9"), 1, 1)]))
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot bind 203.0.113.9:1");
        drop(somebody);
        assert_eq!(world.networks.inspect("bridge").unwrap().endpoints.len(), 1);
        assert_eq!(std::fs::read_dir(world.directory("bridge").join("leases")).unwrap().count(), 1);
        // And the other way round: a program of the host cannot take a published port.
        assert!(std::net::TcpListener::bind("0.0.0.0:5432").is_err());
        first.end();
        assert!(std::net::TcpListener::bind("0.0.0.0:5432").is_ok());
    });
}

#[test]
fn killed_supervisor_is_released_but_not_its_successors_port() {
    world("lifecycle::killed_supervisor_is_released_but_not_its_successors_port", |world| {
        world.create("web", |_| {});
        let dead = world.connect("dead", &["web"], &[tcp(None, 80, 80), tcp(None, 81, 81)]);
        let id = dead.id.clone();
        // kill -9: descriptors are closed, nothing is undone.
        drop(dead);
        let successor = world.connect("next", &["web"], &[tcp(None, 80, 80)]);
        successor.serve_tcp("0.0.0.0:80");
        assert!(ask_tcp("127.0.0.1:80").is_ok());
        let alive = successor.id.clone();
        let released = world.networks.release_dead(|container| *container == alive).unwrap();
        assert_eq!(released, std::slice::from_ref(&id));
        assert!(ask_tcp("127.0.0.1:80").is_ok());
        let map = run("nft list map inet catamaran ports4");
        assert!(map.contains("tcp . 80 ") && !map.contains("tcp . 81 "), "{map}");
        let left = run(&format!(
            "grep -rl {id} {0} || true; ls {0}/names {0}/leases",
            world.directory("web").display()
        ));
        assert!(!left.contains(&id.as_str()[..12]), "{left}");
        world.networks.release(&id).unwrap();
        successor.end();
        world.networks.remove("web").unwrap();
    });
}

const VICTIM: &str = "CATA_NETWORK_VICTIM";

/// Not a test by itself: connects without end, until it is killed.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let networks = cata_network::Networks::open(root.as_ref(), root.as_ref()).unwrap();
    loop {
        let wish = request("victim", &["web"], &[tcp(None, 4000, 80), tcp(Some("192.0.2.1"), 4001, 80)]);
        let connected = networks.connect(&wish).unwrap();
        let all = crate::world::Box { connected, id: wish.who.container };
        all.end();
    }
}

#[test]
fn killed_in_the_middle_leaves_nothing_after_release() {
    world("lifecycle::killed_in_the_middle_leaves_nothing_after_release", |world| {
        world.create("web", |request| request.ipv6 = true);
        let directory = world.directory("web");
        let count = |name: &str| std::fs::read_dir(directory.join(name)).unwrap().count();
        let mut caught = 0;
        let begin = std::time::Instant::now();
        for delay in 0.. {
            // A loaded machine may take longer than any of these moments to get anywhere.
            if delay >= 40 && (caught > 0 || begin.elapsed() > crate::world::WAIT * 2) {
                break;
            }
            let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["lifecycle::victim", "--exact"])
                .env(VICTIM, world.root.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // The first connection is under way somewhere between these.
            std::thread::sleep(std::time::Duration::from_micros(5_000 + delay * 1_370 % 20_000));
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while delay >= 40 && count("leases") == 0 && std::time::Instant::now() < end {}
            victim.kill().unwrap();
            assert_eq!(victim.wait().unwrap().code(), None, "the victim ended by itself");
            caught += usize::from(count("leases") > 0);
            world.networks.release_dead(|_| false).unwrap();
            assert_eq!((count("leases"), count("names"), count("endpoints")), (0, 0, 0));
        }
        println!("\nmeasured: {caught} were killed while connected");
        assert!(caught > 0);
        let rules = run("nft list table inet catamaran");
        assert!(!rules.contains("400"), "{rules}");
        let server = world.connect("web", &["web"], &[tcp(None, 4000, 80)]);
        server.serve_tcp("0.0.0.0:80");
        assert!(ask_tcp("127.0.0.1:4000").is_ok());
    });
}

#[test]
fn two_roots_share_a_host() {
    world("lifecycle::two_roots_share_a_host", |world| {
        let root = tempfile::tempdir().unwrap();
        let others = cata_network::Networks::open(root.path(), root.path()).unwrap();
        let one = world.connect("one", &["bridge"], &[tcp(None, 8080, 80)]);
        let wish = request("two", &["bridge"], &[tcp(None, 8081, 80)]);
        let two = crate::world::Box { connected: others.connect(&wish).unwrap(), id: wish.who.container };
        assert_eq!((one.v4().to_string(), two.v4().to_string()), ("172.17.0.2".into(), "172.18.0.2".into()));
        for (container, port) in [(&one, 8080), (&two, 8081)] {
            container.serve_tcp("0.0.0.0:80");
            assert!(ask_tcp(&format!("127.0.0.1:{port}")).is_ok());
        }
        one.inside(|| assert!(is_closed(&format!("{}:80", two.v4()))));
    });
}

#[test]
fn flushed_firewall_and_lost_bridge_are_made_again() {
    world("lifecycle::flushed_firewall_and_lost_bridge_are_made_again", |world| {
        let server = world.connect("web", &["bridge"], &[tcp(None, 8080, 80)]);
        server.serve_tcp("0.0.0.0:80");
        assert!(ask_tcp("127.0.0.1:8080").is_ok());
        run("nft flush ruleset");
        assert!(is_closed("127.0.0.1:8080"));
        let _next = world.connect("next", &["bridge"], &[]);
        assert!(ask_tcp("127.0.0.1:8080").is_ok());
        // As after a reboot.
        run("nft flush ruleset; ip link del cata0");
        let again = world.connect("again", &["bridge"], &[]);
        again.serve_tcp("0.0.0.0:80");
        assert!(ask_tcp(&format!("{}:80", again.v4())).is_ok());
    });
}

#[test]
fn default_pool_avoids_the_hosts_subnets() {
    world("lifecycle::default_pool_avoids_the_hosts_subnets", |world| {
        run("ip addr add 172.17.5.1/24 dev outside; ip route add 172.18.0.0/15 via 192.0.2.9");
        let bridge = world.networks.inspect("bridge").unwrap().network;
        assert_eq!(bridge.pools[0].subnet.to_string(), "172.20.0.0/16");
        assert_eq!(bridge.interface, "cata0");
        let mut wish = create_request("bad");
        wish.subnets = vec!["172.17.5.0/25".into()];
        assert!(matches!(world.networks.create(&wish), Err(Error::PoolOverlap { .. })));
    });
}

#[test]
fn ruleset_is_what_is_documented() {
    world("lifecycle::ruleset_is_what_is_documented", |world| {
        let _container =
            world.connect("web", &["bridge"], &[tcp(None, 8080, 80), tcp(Some("127.0.0.1"), 82, 80)]);
        let text = run("nft list table inet catamaran");
        let expected = include_str!("ruleset.nft");
        assert_eq!(text.trim(), expected.trim(), "\n{text}");
    });
}
