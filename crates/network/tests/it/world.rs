//! A private world: the test re-executes itself in new network and mount namespaces and plays there.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cata_network::Networks;
use cata_network::request::{
    ConnectRequest, Connected, CreateNetwork, EndpointRequest, PortRequest, Teardown, Transport, Who,
};
use cata_spec::{ContainerId, Name};
use rustix::thread::LinkNameSpaceType;
use tempfile::TempDir;

const MARK: &str = "CATA_NETWORK_WORLD";
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// Long enough for a packet that should not arrive.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// Plays `body` in a world of its own. `test` is the test's path, as `module::name`.
pub(crate) fn world(test: &str, body: impl FnOnce(&World)) {
    if std::env::var(MARK).as_deref() == Ok(test) {
        let world = World::new();
        body(&world);
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {test} needs root");
        return;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| line.starts_with("measured:")) {
        println!("{line}");
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

pub(crate) struct World {
    pub(crate) root: TempDir,
    pub(crate) networks: Networks,
}

/// A running "container": its namespace and what its supervisor would hold.
pub(crate) struct Box {
    pub(crate) connected: Connected,
    pub(crate) id: ContainerId,
}

impl World {
    fn new() -> Self {
        run("ip link set lo up; mount -t tmpfs run /run");
        // The host's address on a network of its own, as other machines see it.
        run("ip link add outside type veth peer name outside-peer; ip link set outside-peer up");
        run("ip addr add 192.0.2.1/24 dev outside");
        run("ip addr add 2001:db8:1::1/64 dev outside nodad");
        run("ip link set outside up");
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::open(root.path(), &root.path().join("state")).unwrap();
        Self { root, networks }
    }

    pub(crate) fn create(
        &self,
        name: &str,
        change: impl FnOnce(&mut CreateNetwork),
    ) -> cata_network::Network {
        let mut request = create_request(name);
        change(&mut request);
        self.networks.create(&request).unwrap()
    }

    pub(crate) fn connect(&self, name: &str, on: &[&str], ports: &[PortRequest]) -> Box {
        let request = request(name, on, ports);
        let id = request.who.container.clone();
        Box { connected: self.networks.connect(&request).unwrap(), id }
    }

    pub(crate) fn directory(&self, network: &str) -> PathBuf {
        self.root.path().join("networks").join(network)
    }
}

impl Box {
    pub(crate) fn v4(&self) -> IpAddr {
        self.connected.endpoints[0].ipv4.unwrap().0.into()
    }

    pub(crate) fn v6(&self) -> IpAddr {
        self.connected.endpoints[0].ipv6.unwrap().0.into()
    }

    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.connected.namespace, body)
    }

    /// Answers every TCP connection to `port` with the peer's address.
    pub(crate) fn serve_tcp(&self, address: &str) {
        let listener = self.inside(|| TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap();
                let _ = write!(stream, "{}", peer.ip());
            }
        });
    }

    /// Answers every datagram with its sender's address.
    pub(crate) fn serve_udp(&self, address: &str) {
        let socket = self.inside(|| UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (_, peer) = socket.recv_from(&mut buffer).unwrap();
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
    }

    /// What the supervisor does at the end.
    pub(crate) fn end(self) {
        for step in &self.connected.teardown {
            match step {
                Teardown::Netlink(protocol, batch) => {
                    cata_sys::netlink::Socket::open(*protocol).unwrap().send(batch).unwrap();
                }
                Teardown::Unlink(path) => std::fs::remove_file(path).unwrap(),
                Teardown::UnlinkEnding(directory, ending) => {
                    for entry in std::fs::read_dir(directory).unwrap().flatten() {
                        if entry.file_name().to_str().unwrap().ends_with(ending) {
                            std::fs::remove_file(entry.path()).unwrap();
                        }
                    }
                }
                // The supervisor's part is the sandbox's to test; here the room's own way does.
                Teardown::NetlinkEach { .. } => {
                    let endpoint = &self.connected.endpoints[0];
                    let target = cata_network::port::Target::of(endpoint);
                    cata_network::conntrack::forget(&self.connected.ports, &target).unwrap();
                }
            }
        }
    }
}

pub(crate) fn inside<T: Send>(namespace: &OwnedFd, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(namespace),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            body()
        };
        scope.spawn(run).join().unwrap()
    })
}

/// What a TCP server says.
pub(crate) fn ask_tcp(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether nothing answers, within [`SILENCE`].
pub(crate) fn is_closed(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().unwrap(), SILENCE).is_err()
}

/// What a UDP server says; asked from any port.
pub(crate) fn ask_udp(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub(crate) fn tcp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        host_port_last: 0,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        container_port,
        transport: Transport::Tcp,
    }
}

pub(crate) fn udp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { transport: Transport::Udp, ..tcp(host_ip, host_port, container_port) }
}

pub(crate) fn create_request(name: &str) -> CreateNetwork {
    CreateNetwork {
        name: Name::parse(name).unwrap(),
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

pub(crate) fn request(name: &str, on: &[&str], ports: &[PortRequest]) -> ConnectRequest {
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    ConnectRequest {
        who: Who {
            container: ContainerId::from_random(random),
            name: Name::parse(name).unwrap(),
            hostname: format!("{name}-host"),
        },
        endpoints: on.iter().map(|network| EndpointRequest::new(Name::parse(network).unwrap())).collect(),
        ports: ports.to_vec(),
        sysctls: Vec::new(),
        dns_upstream: Vec::new(),
        taps: false,
        state_dir: PathBuf::from("/nonexistent"),
        namespace: None,
    }
}
