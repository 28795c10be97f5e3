//! Networks: addresses, names, published ports, who reaches whom.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(bridge_gives_an_address_and_a_way_out),
        test!(none_has_loopback_only),
        test!(host_is_the_hosts),
        test!(published_port_from_everywhere),
        test!(published_port_from_another_host),
        test!(published_port_udp).images(&["debian"]),
        test!(published_port_on_one_address),
        test!(published_port_any_and_all),
        test!(published_port_of_a_range),
        test!(published_udp_port_forgets_old_flows).images(&["busybox", "debian"]),
        test!(published_port_goes_with_the_container),
        test!(port_in_use_is_refused),
        test!(names_on_a_user_network),
        test!(names_not_on_the_default_bridge),
        test!(names_follow_a_rename),
        test!(networks_are_apart),
        test!(networks_of_a_running_container),
        test!(networks_of_a_resting_container),
        test!(network_changes_survive_being_killed),
        test!(network_commands),
        test!(network_with_ipv6),
        test!(network_internal_has_no_way_out),
        test!(addresses_are_given_back),
        test!(address_on_request),
        test!(files_of_names),
        test!(administrators_rules_come_first).needs(&["nft"]),
    ]
}

/// A container that answers each connection to port 80 with `word`.
fn server(w: &World, name: &str, word: &str, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    let script = format!("while :; do echo {word} | nc -l -p 80; done");
    args.extend(["busybox", "sh", "-c", &script]);
    let _ = w.cata(&args).ok();
}

fn ask(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then(|| text.trim().to_owned())
}

#[track_caller]
fn answers(address: &str, word: &str) {
    eventually(address, PATIENCE, || (ask(address)? == word).then_some(()));
}

/// A script that tells what the server says. Between two clients it does not listen for a moment.
fn asking(host: &str, port: u16) -> String {
    format!(
        "i=0; while [ $i -lt 150 ]; do said=$(nc -w 2 {host} {port} < /dev/null); [ -n \"$said\" ] && break; \
         i=$((i+1)); sleep 0.2; done; echo $said"
    )
}

/// A script that succeeds once there is an echo: the first may be late on a loaded host.
fn echoing(ip: &str) -> String {
    format!("for i in 1 2 3 4 5 6 7 8 9; do ping -c 1 -W 3 {ip} && exit 0; done; exit 1")
}

fn inside(w: &World, options: &[&str], script: &str) -> cata_tests::command::Done {
    let mut args = vec!["run", "--rm"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    w.cata(&args)
}

fn address(w: &World, container: &str, network: &str) -> String {
    w.field(container, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

fn bridge_gives_an_address_and_a_way_out(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sleep", "600"]).ok();
    let ip = address(w, "cc", "bridge");
    let shown = w.cata(&["exec", "cc", "ip", "-4", "-o", "addr", "show", "eth0"]).text();
    assert!(shown.contains(&format!("inet {ip}/")), "{shown}");
    let gateway = w.field("cc", "{{(index .NetworkSettings.Networks \"bridge\").Gateway}}");
    let route = w.cata(&["exec", "cc", "ip", "route"]).text();
    assert!(route.contains(&format!("default via {gateway} dev eth0")), "{route}");
    let _ = w.cata(&["exec", "cc", "sh", "-c", &echoing(&gateway)]).ok();
    let _ = inside(w, &[], &echoing(&ip)).ok();
}

fn none_has_loopback_only(w: &World) {
    let links = inside(w, &["--network", "none"], "ls /sys/class/net; ip -4 -o addr").text();
    assert!(links.starts_with("lo\n") && links.contains("127.0.0.1/8") && !links.contains("eth"), "{links}");
}

fn host_is_the_hosts(w: &World) {
    let listener = TcpListener::bind("127.0.0.1:4444").unwrap();
    let asked =
        w.cata_run(["run", "--rm", "--network", "host", "busybox", "nc", "127.0.0.1", "4444"]).start();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"from the host\n").unwrap();
    drop(stream);
    assert_eq!(asked.done(PATIENCE).text(), "from the host");
    // There is nothing to publish: Docker warns and goes on.
    let _ = w.cata(&["run", "--rm", "--network", "host", "-p", "80:80", "busybox", "true"]).ok();
}

fn published_port_from_everywhere(w: &World) {
    let _ = Run::new("ip").args(["link", "add", "wan0", "type", "bridge"]).done().ok();
    let _ = Run::new("ip").args(["addr", "add", "198.51.100.7/24", "dev", "wan0"]).done().ok();
    let _ = Run::new("ip").args(["link", "set", "wan0", "up"]).done().ok();
    server(w, "cc", "deck", &["-p", "8080:80"]);
    answers("127.0.0.1:8080", "deck");
    answers("198.51.100.7:8080", "deck");
    answers(&format!("{}:80", address(w, "cc", "bridge")), "deck");
    // From another container, at the host's address; and from itself, round by the host.
    let script = asking("198.51.100.7", 8080);
    assert_eq!(inside(w, &[], &script).text(), "deck");
    assert_eq!(w.cata(&["exec", "cc", "sh", "-c", &script]).text(), "deck");
    assert_eq!(w.cata(&["port", "cc"]).lines(), ["80/tcp -> 0.0.0.0:8080"]);
    assert_eq!(w.cata(&["port", "cc", "80"]).lines()[0], "0.0.0.0:8080");
    assert!(w.cata(&["ps"]).ok().stdout.contains("0.0.0.0:8080->80/tcp"));
    let _ = w.cata(&["rm", "-f", "cc"]).ok();
    let _ = Run::new("ip").args(["link", "del", "wan0"]).done().ok();
}

fn published_port_udp(w: &World) {
    let script = r#"$s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die; $s->send("drop\n") while $s->recv($b, 64)"#;
    let run = ["run", "-d", "--name", "udp", "-p", "127.0.0.1:5353:53/udp", "debian"];
    let _ = w.cata_run(run.into_iter().chain(["perl", "-MIO::Socket::INET", "-e", script])).done().ok();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 16];
    eventually("an answer", PATIENCE, || {
        socket.send_to(b"?", "127.0.0.1:5353").ok()?;
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        (&buffer[..length] == b"drop\n" && from.port() == 5353).then_some(())
    });
}

fn published_port_on_one_address(w: &World) {
    let _ = Run::new("ip").args(["addr", "add", "127.0.0.9/8", "dev", "lo"]).done();
    server(w, "aa", "nine", &["-p", "127.0.0.9:8080:80"]);
    server(w, "bb", "one", &["-p", "127.0.0.1:8080:80"]);
    answers("127.0.0.9:8080", "nine");
    answers("127.0.0.1:8080", "one");
    assert_eq!(w.cata(&["port", "aa", "80/tcp"]).text(), "127.0.0.9:8080");
}

fn published_port_any_and_all(w: &World) {
    server(w, "aa", "any", &["-p", "80"]);
    let port = w.cata(&["port", "aa", "80"]).lines()[0].rsplit(':').next().unwrap().to_owned();
    assert!(port.parse::<u16>().unwrap() >= 1024);
    answers(&format!("127.0.0.1:{port}"), "any");
    server(w, "bb", "all", &["-P", "--expose", "80"]);
    let port = w.cata(&["port", "bb", "80"]).lines()[0].rsplit(':').next().unwrap().to_owned();
    answers(&format!("127.0.0.1:{port}"), "all");
    server(w, "rr", "range", &["-p", "9000-9001:80-81"]);
    answers("127.0.0.1:9000", "range");
}

fn published_port_of_a_range(w: &World) {
    server(w, "aa", "first", &["-p", "9100-9101:80"]);
    server(w, "bb", "second", &["-p", "9100-9101:80"]);
    assert_eq!(w.cata(&["port", "aa", "80"]).text(), "0.0.0.0:9100");
    answers("127.0.0.1:9101", "second");
    assert_eq!(w.field("bb", "{{(index .HostConfig.PortBindings \"80/tcp\" 0).HostPort}}"), "9100-9101");
    w.cata(&["run", "--rm", "-p", "9100-9101:80", "busybox", "true"]).fails(125, &["9101"]);
    // What became free is taken again, and a start asks anew.
    let _ = w.cata(&["rm", "-f", "aa"]).ok();
    let _ = w.cata(&["restart", "-t", "0", "bb"]).ok();
    server(w, "cc", "third", &["-p", "9100-9101:80"]);
    let taken = ["bb", "cc"].map(|name| w.cata(&["port", name, "80"]).text());
    assert_ne!(taken[0], taken[1]);
}

/// A client that goes on sending keeps its flow alive; the flow must not outlive where it led.
fn published_udp_port_forgets_old_flows(w: &World) {
    let _ = w.cata(&["network", "create", "--subnet", "10.77.0.0/24", "sea"]).ok();
    let serve = |name: &str, ip: &str, port: &str| {
        let script = format!(
            r#"$s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die; $s->send("{name}\n") while $s->recv($b, 64)"#
        );
        let run = ["run", "-d", "--name", name, "--network", "sea", "--ip", ip, "-p", port, "debian"];
        let _ = w.cata_run(run.into_iter().chain(["perl", "-MIO::Socket::INET", "-e", &script])).done().ok();
    };
    // The rules are there before the first packet, so that its flow is remembered.
    serve("other", "10.77.0.9", "127.0.0.1:5454:53/udp");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = socket.send_to(b"?", "127.0.0.1:5353");
    let mut buffer = [0; 16];
    for (name, ip) in [("one", "10.77.0.50"), ("two", "10.77.0.60")] {
        serve(name, ip, "5353:53/udp");
        let answer = format!("{name}\n");
        eventually(&format!("{name} answers"), PATIENCE, || {
            socket.send_to(b"?", "127.0.0.1:5353").ok()?;
            let (length, _) = socket.recv_from(&mut buffer).ok()?;
            (buffer[..length] == *answer.as_bytes()).then_some(())
        });
        let _ = w.cata(&["rm", "-f", name]).ok();
        // Whoever gets the address next is not reached through a port that is no longer published.
        let listen = r#"$| = 1; $s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die; print "ready\n"; print "heard $b\n" while $s->recv($b, 64)"#;
        let run = ["run", "-d", "--name", "next", "--network", "sea", "--ip", ip, "debian"];
        let _ = w.cata_run(run.into_iter().chain(["perl", "-MIO::Socket::INET", "-e", listen])).done().ok();
        eventually("the next listens", PATIENCE, || {
            w.cata(&["logs", "next"]).ok().stdout.contains("ready").then_some(())
        });
        for _ in 0..3 {
            let _ = socket.send_to(b"late", "127.0.0.1:5353");
            let _ = socket.recv_from(&mut buffer);
        }
        assert_eq!(w.cata(&["logs", "next"]).text(), "ready", "after {name}");
        let _ = w.cata(&["rm", "-f", "next"]).ok();
    }
}

fn published_port_goes_with_the_container(w: &World) {
    for word in ["first", "second"] {
        server(w, "cc", word, &["-p", "8080:80"]);
        answers("127.0.0.1:8080", word);
        let _ = w.cata(&["stop", "-t", "0", "cc"]).ok();
        assert!(ask("127.0.0.1:8080").is_none());
        // The port is the next one's at once, and comes back with a start.
        drop(TcpListener::bind("127.0.0.1:8080").unwrap());
        let _ = w.cata(&["start", "cc"]).ok();
        answers("127.0.0.1:8080", word);
        let _ = w.cata(&["rm", "-f", "cc"]).ok();
    }
}

fn port_in_use_is_refused(w: &World) {
    server(w, "aa", "first", &["-p", "8080:80"]);
    let taken = ["run", "-d", "--name", "bb", "-p", "8080:80", "busybox", "true"];
    w.cata(&taken).fails(125, &["8080", "container aa has published it"]);
    let _listener = TcpListener::bind("0.0.0.0:8081").unwrap();
    w.cata(&["run", "--rm", "-p", "8081:80", "busybox", "true"]).fails(125, &["8081"]);
    answers("127.0.0.1:8080", "first");
}

fn names_on_a_user_network(w: &World) {
    let _ = w.cata(&["network", "create", "sea"]).ok();
    server(w, "web", "found", &["--network", "sea", "--network-alias", "www"]);
    let ip = address(w, "web", "sea");
    for name in ["web", "www", &w.field("web", "{{.Id}}")[..12]] {
        let said = inside(w, &["--network", "sea"], &asking(name, 80));
        assert_eq!(said.text(), "found", "{name}");
    }
    let said = inside(w, &["--network", "sea"], "cat /etc/resolv.conf; nslookup web 127.0.0.11").ok().stdout;
    assert!(said.contains("nameserver 127.0.0.11") && said.contains(&ip), "{said}");
    let unknown = inside(w, &["--network", "sea"], "nslookup nobody");
    assert_ne!(unknown.code(), 0, "{unknown}");
    // A name goes with its container.
    let _ = w.cata(&["rm", "-f", "web"]).ok();
    assert_ne!(inside(w, &["--network", "sea"], "nslookup web").code(), 0);
}

fn names_follow_a_rename(w: &World) {
    let _ = w.cata(&["network", "create", "sea"]).ok();
    server(w, "web", "found", &["--network", "sea", "--network-alias", "www"]);
    let ip = address(w, "web", "sea");
    let _ = w.cata(&["rename", "web", "site"]).ok();
    let ask = |name: &str| inside(w, &["--network", "sea"], &format!("nslookup {name} 127.0.0.11"));
    for name in ["site", "www"] {
        let said = ask(name).ok().stdout;
        assert!(said.contains(&ip), "{name}: {said}");
    }
    assert_ne!(ask("web").code(), 0);
    let back = ask(&ip).ok().stdout;
    assert!(back.contains("site.sea"), "{back}");
    assert!(w.field("site", "{{json .NetworkSettings.Networks.sea.Aliases}}").contains("www"));
    // The old name is free for another, whom the first one's end does not touch.
    let _ =
        w.cata(&["run", "-d", "--rm", "--name", "aa", "--network", "sea", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["rename", "aa", "bb"]).ok();
    server(w, "aa", "other", &["--network", "sea"]);
    let _ = w.cata(&["stop", "-t", "0", "bb"]).ok();
    assert_eq!(w.field("aa", "{{.Name}}"), "/aa");
    assert!(ask("aa").ok().stdout.contains(&address(w, "aa", "sea")));
    let _ = w.cata(&["rm", "-f", "site"]).ok();
    assert_ne!(ask("site").code(), 0);
}

fn names_not_on_the_default_bridge(w: &World) {
    server(w, "web", "x", &[]);
    assert_ne!(inside(w, &[], "ping -c 1 -W 1 web").code(), 0);
}

/// The default route of a container.
fn route(w: &World, container: &str) -> String {
    let routes = w.cata(&["exec", container, "ip", "route"]).lines();
    routes.into_iter().find(|line| line.starts_with("default")).unwrap_or_default()
}

fn networks_of_a_running_container(w: &World) {
    let _ = w.cata(&["network", "create", "--subnet", "10.71.0.0/24", "sea"]).ok();
    let _ = w.cata(&["network", "create", "--subnet", "10.72.0.0/24", "air"]).ok();
    let _ = w.cata(&["network", "create", "--internal", "hold"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "peer", "--network", "air", "busybox", "sleep", "900"]).ok();
    server(w, "web", "deck", &["-p", "8080:80", "--hostname", "ship"]);
    answers("127.0.0.1:8080", "deck");
    let before = route(w, "web");

    // `bridge` comes before `sea`: its route stays. Names are there at once, though the container had none.
    let _ = w.cata(&["network", "connect", "--ip", "10.71.0.7", "--alias", "www", "sea", "web"]).ok();
    assert_eq!(route(w, "web"), before);
    assert_eq!(address(w, "web", "sea"), "10.71.0.7");
    assert_eq!(w.field("web", "{{json .NetworkSettings.Networks.sea.Aliases}}"), r#"["www"]"#);
    assert_eq!(w.field("web", "{{.NetworkSettings.Networks.sea.IPAMConfig.IPv4Address}}"), "10.71.0.7");
    for name in ["web", "www"] {
        assert_eq!(inside(w, &["--network", "sea"], &asking(name, 80)).text(), "deck", "{name}");
    }
    let files = w.cata(&["exec", "web", "cat", "/etc/resolv.conf", "/etc/hosts"]).text();
    assert!(files.contains("nameserver 127.0.0.11") && files.contains("10.71.0.7\tship"), "{files}");

    // `air` comes before `bridge`: the route is its, and so are published ports.
    let _ = w.cata(&["network", "connect", "air", "web"]).ok();
    assert!(route(w, "web").contains("via 10.72.0.1 dev eth2"), "{}", route(w, "web"));
    let peer = address(w, "peer", "air");
    let found = w.cata(&["exec", "web", "nslookup", "peer", "127.0.0.11"]).ok().stdout;
    assert!(found.contains(&peer), "{found}");
    answers("127.0.0.1:8080", "deck");
    let _ = w.cata(&["network", "connect", "hold", "web"]).ok();
    let names = w.field("web", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
    assert_eq!(names.trim(), "air bridge hold sea");
    let on = w.cata(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "air"]).text();
    assert!(on.contains("web") && on.contains("peer"), "{on}");

    w.cata(&["network", "connect", "air", "web"]).fails(1, &["already exists in network air"]);
    w.cata(&["network", "connect", "--ip", "10.72.0.1", "sea", "peer"]).fails(1, &["10.72.0.1"]);
    w.cata(&["network", "connect", "host", "web"]).fails(1, &["host network"]);
    w.cata(&["network", "connect", "none", "web"]).fails(1, &["none"]);
    w.cata(&["network", "disconnect", "sea", "peer"]).fails(1, &["is not connected to network sea"]);
    w.cata(&["network", "rm", "hold"]).fails(1, &["active endpoints", "web"]);

    // A restart keeps them, the supervisor's own and one by stop and start.
    let _ = w.cata(&["restart", "-t", "0", "web"]).ok();
    answers("127.0.0.1:8080", "deck");
    let _ = w.cata(&["stop", "-t", "0", "web"]).ok();
    let _ = w.cata(&["start", "web"]).ok();
    answers("127.0.0.1:8080", "deck");
    assert_eq!(address(w, "web", "sea"), "10.71.0.7");

    // Off again: ports go with the route, until nothing leads out; then they are kept.
    let _ = w.cata(&["network", "disconnect", "air", "web"]).ok();
    assert_eq!(route(w, "web"), before);
    answers("127.0.0.1:8080", "deck");
    assert_ne!(w.cata(&["exec", "peer", "nslookup", "web", "127.0.0.11"]).code(), 0);
    for network in ["bridge", "sea", "hold"] {
        let _ = w.cata(&["network", "disconnect", network, "web"]).ok();
    }
    let links = w.cata(&["exec", "web", "ls", "/sys/class/net"]).text();
    assert!(!links.contains("eth"), "{links}");
    assert_eq!(w.cata(&["port", "web"]).text(), "");
    w.cata(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125, &["8080"]);
    let hosts = w.cata(&["exec", "web", "cat", "/etc/hosts"]).text();
    assert!(!hosts.contains("ship"), "{hosts}");
    // Its address is another's.
    let taken = ["run", "-d", "--name", "next", "--network", "sea", "--ip", "10.71.0.7", "busybox"];
    let _ = w.cata_run(taken.into_iter().chain(["sleep", "900"])).done().ok();
    let _ = w.cata(&["network", "connect", "sea", "web"]).ok();
    answers("127.0.0.1:8080", "deck");
    let _ = w.cata(&["rm", "-f", "web", "next"]).ok();
    assert!(ask("127.0.0.1:8080").is_none());
    let told = w.cata(&["events", "--since", "1h", "--until", "0s", "--filter", "type=network"]).text();
    assert!(told.contains("network connect") && told.contains("network disconnect"), "{told}");
}

fn networks_of_a_resting_container(w: &World) {
    for name in ["sea", "sky"] {
        let _ = w.cata(&["network", "create", name]).ok();
    }
    let create =
        ["create", "--name", "cc", "--network", "name=sea,alias=one,gw-priority=5", "--network", "sky"];
    let _ = w.cata_run(create.into_iter().chain(["busybox", "sleep", "900"])).done().ok();
    let _ = w.cata(&["network", "disconnect", "sky", "cc"]).ok();
    w.cata(&["network", "connect", "--gw-priority", "9", "--alias", "two", "bridge", "cc"])
        .fails(1, &["alias"]);
    let _ = w.cata(&["network", "connect", "--gw-priority", "9", "bridge", "cc"]).ok();
    let names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(w.field("cc", names).trim(), "bridge sea");
    let _ = w.cata(&["start", "cc"]).ok();
    assert_eq!(w.field("cc", names).trim(), "bridge sea");
    let gateway = w.field("cc", "{{(index .NetworkSettings.Networks \"bridge\").Gateway}}");
    assert!(route(w, "cc").contains(&format!("via {gateway} ")));
    // What is by another's network, or none, cannot.
    let _ = w.cata(&["run", "-d", "--name", "hh", "--network", "host", "busybox", "sleep", "900"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "nn", "--network", "none", "busybox", "sleep", "900"]).ok();
    w.cata(&["network", "connect", "sky", "hh"]).fails(1, &["sharing network namespace"]);
    w.cata(&["network", "connect", "sky", "nn"]).fails(1, &["private (none) mode"]);
    w.cata(&["network", "disconnect", "sky", "nobody"]).fails(1, &["nobody"]);
    w.cata(&["network", "disconnect", "-f", "sky", "nobody"]).fails(1, &["nobody"]);
}

/// Whenever a change is killed: the next one goes through, and at the end nothing is left (the harness looks).
fn network_changes_survive_being_killed(w: &World) {
    for name in ["air", "sea"] {
        let _ = w.cata(&["network", "create", name]).ok();
    }
    server(w, "web", "deck", &["--network", "sea", "-p", "8080:80"]);
    for round in 0..12 {
        for verb in ["connect", "disconnect"] {
            let mut change = w.cata_run(["network", verb, "air", "web"]).start();
            std::thread::sleep(Duration::from_millis(round * 2));
            change.kill();
        }
    }
    // Whichever of the changes came through.
    let _ = w.cata(&["network", "connect", "air", "web"]);
    let peer = w.cata(&["run", "--rm", "--network", "air", "busybox", "sh", "-c", &asking("web", 80)]);
    assert_eq!(peer.text(), "deck");
    answers("127.0.0.1:8080", "deck");
    let _ = w.cata(&["network", "disconnect", "air", "web"]).ok();
    answers("127.0.0.1:8080", "deck");
    assert_eq!(w.cata(&["exec", "web", "ls", "/sys/class/net"]).lines(), ["eth0", "lo"]);
    let _ = w.cata(&["network", "rm", "air"]).ok();
}

fn networks_are_apart(w: &World) {
    for name in ["sea", "sky"] {
        let _ = w.cata(&["network", "create", name]).ok();
    }
    server(w, "ship", "x", &["--network", "sea"]);
    let ip = address(w, "ship", "sea");
    let reach = format!("ping -c 1 -W 1 {ip}");
    let _ = inside(w, &["--network", "sea"], &echoing(&ip)).ok();
    assert_ne!(inside(w, &["--network", "sky"], &reach).code(), 0, "from another network");
    assert_ne!(inside(w, &[], &reach).code(), 0, "from the default bridge");
}

fn network_commands(w: &World) {
    let listed = w.cata(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).lines();
    for line in ["bridge bridge", "host host", "none null"] {
        assert!(listed.iter().any(|l| l == line), "{line} not in {listed:?}");
    }
    let id = w
        .cata(&[
            "network",
            "create",
            "--subnet",
            "10.77.0.0/24",
            "--gateway",
            "10.77.0.9",
            "--label",
            "a=b",
            "sea",
        ])
        .text();
    assert_eq!(id.len(), 64);
    let network = w.cata(&["network", "inspect", "sea"]).json()[0].take();
    assert_eq!(network["Id"], id);
    assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "10.77.0.0/24");
    assert_eq!(network["IPAM"]["Config"][0]["Gateway"], "10.77.0.9");
    assert_eq!(network["Labels"]["a"], "b");
    w.cata(&["network", "create", "sea"]).fails(1, &["sea", "exists"]);
    w.cata(&["network", "create", "--subnet", "10.77.0.0/25", "lake"]).fails(1, &["overlap"]);
    w.cata(&["network", "create", "--driver", "warp", "lake"]).fails(1, &["warp"]);
    let _ = w.cata(&["run", "-d", "--name", "cc", "--network", "sea", "busybox", "sleep", "600"]).ok();
    w.cata(&["network", "rm", "sea"]).fails(1, &["sea"]);
    let _ = w.cata(&["rm", "-f", "cc"]).ok();
    assert_eq!(w.cata(&["network", "rm", "sea"]).text(), "sea");
    w.cata(&["network", "rm", "sea"]).fails(1, &["sea", "not found"]);
    w.cata(&["network", "rm", "bridge"]).fails(1, &["bridge"]);
}

fn network_with_ipv6(w: &World) {
    let _ = w.cata(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "sea"]).ok();
    server(w, "web", "six", &["--network", "sea", "-p", "8080:80"]);
    let ip = w.field("web", "{{(index .NetworkSettings.Networks \"sea\").GlobalIPv6Address}}");
    assert!(ip.starts_with("fd00:77::"), "{ip}");
    let _ = inside(w, &["--network", "sea"], &echoing(&format!("-6 {ip}"))).ok();
    // The host's own address; ::1 the kernel cannot redirect.
    let gateway = w.field("web", "{{(index .NetworkSettings.Networks \"sea\").IPv6Gateway}}");
    answers(&format!("[{gateway}]:8080"), "six");
}

fn network_internal_has_no_way_out(w: &World) {
    let _ = w.cata(&["network", "create", "--internal", "cave"]).ok();
    let route = inside(w, &["--network", "cave"], "ip route").ok().stdout;
    assert!(!route.contains("default"), "{route}");
}

fn addresses_are_given_back(w: &World) {
    let _ = w.cata(&["network", "create", "--subnet", "10.77.0.0/29", "small"]).ok();
    // Five addresses besides the gateway's: more than that many, one after the other.
    for _ in 0..8 {
        let _ = inside(w, &["--network", "small"], "true").ok();
    }
    for n in 0..5 {
        let _ = w
            .cata(&["run", "-d", "--name", &format!("c{n}"), "--network", "small", "busybox", "sleep", "600"])
            .ok();
    }
    w.cata(&["run", "--rm", "--network", "small", "busybox", "true"]).fails(125, &["small"]);
}

fn address_on_request(w: &World) {
    let _ = w.cata(&["network", "create", "--subnet", "10.77.0.0/24", "sea"]).ok();
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "cc",
            "--network",
            "sea",
            "--ip",
            "10.77.0.50",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    assert_eq!(address(w, "cc", "sea"), "10.77.0.50");
    w.cata(&["run", "--rm", "--network", "sea", "--ip", "10.77.0.50", "busybox", "true"])
        .fails(125, &["10.77.0.50"]);
    w.cata(&["run", "--rm", "--network", "sea", "--ip", "10.78.0.1", "busybox", "true"])
        .fails(125, &["10.78.0.1"]);
}

fn files_of_names(w: &World) {
    let options =
        ["-h", "ship", "--add-host", "anchor:192.0.2.9", "--dns", "192.0.2.53", "--dns-search", "sea.test"];
    let said = inside(w, &options, "cat /etc/hosts /etc/resolv.conf /etc/hostname").ok().stdout;
    for text in
        ["127.0.0.1\tlocalhost", "192.0.2.9\tanchor", "nameserver 192.0.2.53", "search sea.test", "ship"]
    {
        assert!(said.replace(' ', "\t").contains(&text.replace(' ', "\t")), "{text} not in {said}");
    }
}

/// Another host on a wire to this one: 198.51.100.8 beyond, 198.51.100.7 here.
struct Neighbour;

impl Neighbour {
    fn new() -> Self {
        let ip = |line: &str| {
            let _ = Run::new("ip").args(line.split(' ')).done().ok();
        };
        ip("netns add neighbour");
        ip("link add wan0 type veth peer name eth0 netns neighbour");
        ip("addr add 198.51.100.7/24 dev wan0");
        ip("link set wan0 up");
        ip("-n neighbour addr add 198.51.100.8/24 dev eth0");
        ip("-n neighbour link set eth0 up");
        Self
    }

    fn ask(&self, port: &str) -> String {
        let nc = ["netns", "exec", "neighbour", "busybox", "nc", "-w", "2", "198.51.100.7", port];
        Run::new("ip").args(nc).done().stdout.trim().to_owned()
    }

    /// Between two clients the little server does not listen for a moment.
    fn hears(&self, port: &str, text: &str) {
        eventually(&format!("port {port} answers the neighbour"), PATIENCE, || {
            (self.ask(port) == text).then_some(())
        });
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["link", "del", "wan0"]).done();
        let _ = Run::new("ip").args(["netns", "del", "neighbour"]).done();
    }
}

fn published_port_from_another_host(w: &World) {
    let neighbour = Neighbour::new();
    server(w, "cc", "deck", &["-p", "8080:80"]);
    server(w, "lo", "lock", &["-p", "127.0.0.1:8081:80"]);
    answers("127.0.0.1:8080", "deck");
    answers("127.0.0.1:8081", "lock");
    neighbour.hears("8080", "deck");
    // Published on loopback only, it is not for others.
    assert_eq!(neighbour.ask("8081"), "");
}

fn administrators_rules_come_first(w: &World) {
    let neighbour = Neighbour::new();
    server(w, "cc", "open", &["-p", "8080:80"]);
    answers("127.0.0.1:8080", "open");
    neighbour.hears("8080", "open");
    let rules =
        "table inet admin {\nchain fw {\ntype filter hook forward priority -10\ntcp dport 80 drop\n}\n}\n";
    let _ = Run::new("nft").args(["-f", "-"]).input(rules).done().ok();
    assert_eq!(neighbour.ask("8080"), "", "a published port by-passes the administrator's rules");
}
