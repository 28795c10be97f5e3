//! The name service, asked from inside as programs do, with upstream servers in the host's namespace.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cata_network::dns::Resolver;
use cata_network::request::ConnectRequest;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use crate::world::{Box, WAIT, World, request, world};

/// What a supervisor does: serves until told to stop.
struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(container: &mut Box) -> Self {
        let plan = container.connected.services.names.clone().unwrap();
        // Through text, as it travels.
        let plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        let sockets = std::mem::take(&mut container.connected.dns_sockets);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut resolver = Resolver::new(plan, sockets).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let wait = resolver.wait().unwrap_or(Duration::MAX).min(Duration::from_millis(50));
                let timeout = rustix::event::Timespec {
                    tv_sec: wait.as_secs() as i64,
                    tv_nsec: i64::from(wait.subsec_nanos()),
                };
                let fd = resolver.fd();
                let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
                resolver.ready();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new();
    message.set_id(0x1234).set_message_type(MessageType::Query).set_op_code(OpCode::Query);
    message.set_recursion_desired(true).add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    message.to_bytes().unwrap()
}

fn over_udp(name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket.set_read_timeout(Some(WAIT * 2)).unwrap();
    socket.send(&query(name, kind)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_bytes(&buffer[..length]).unwrap()
}

fn exchange(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(message).unwrap();
    read(stream).unwrap()
}

fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn over_tcp(stream: &mut TcpStream, name: &str, kind: RecordType) -> Message {
    Message::from_bytes(&exchange(stream, &query(name, kind))).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers().iter().map(|record| record.data().to_string()).collect();
    all.sort();
    all
}

/// A server of the world: `*.example` is 203.0.113.7, everything else does not exist.
fn upstream(address: &str) {
    fn respond(bytes: &[u8]) -> Vec<u8> {
        let mut message = Message::from_bytes(bytes).unwrap();
        message.set_message_type(MessageType::Response);
        let name = message.queries()[0].name().clone();
        if name.to_utf8().ends_with("example.") {
            let address = rdata::A("203.0.113.7".parse().unwrap());
            message.add_answer(Record::from_rdata(name, 60, RData::A(address)));
        } else {
            message.set_response_code(ResponseCode::NXDomain);
        }
        message.to_bytes().unwrap()
    }
    let udp = UdpSocket::bind(address).unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).unwrap();
            // Something forged comes first: another id, then another question.
            let mut forged = respond(&buffer[..length]);
            forged[0] ^= 0xff;
            udp.send_to(&forged, client).unwrap();
            let mut forged = query("forged.example", RecordType::A);
            forged[..2].copy_from_slice(&buffer[..2]);
            udp.send_to(&respond(&forged), client).unwrap();
            udp.send_to(&respond(&buffer[..length]), client).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            while let Some(message) = read(&mut stream) {
                let reply = respond(&message);
                stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        }
    });
}

fn join(world: &World, name: &str, change: impl FnOnce(&mut ConnectRequest)) -> (Box, Service) {
    let mut wish = request(name, &["web"], &[]);
    wish.dns_upstream = vec!["127.0.0.53".parse().unwrap()];
    change(&mut wish);
    let id = wish.who.container.clone();
    let mut container = Box { connected: world.networks.connect(&wish).unwrap(), id };
    let service = Service::start(&mut container);
    (container, service)
}

#[test]
fn names_are_resolved_both_ways() {
    world("dns::names_are_resolved_both_ways", |world| {
        upstream("127.0.0.53:53");
        world.create("web", |request| request.ipv6 = true);
        let (db, _one) = join(world, "db", |wish| wish.endpoints[0].aliases = vec!["Store".into()]);
        let (second, _two) = join(world, "db-2", |wish| wish.endpoints[0].aliases = vec!["store".into()]);
        let (client, _three) = join(world, "client", |_| {});
        let (db4, db6) = (db.v4().to_string(), db.v6().to_string());
        client.inside(|| {
            for name in ["db.", "DB.", "db.web.", "db-host.", &format!("{}.", db.id.short())] {
                assert_eq!(addresses(&over_udp(name, RecordType::A)), [db4.as_str()], "{name}");
            }
            assert_eq!(addresses(&over_udp("db.", RecordType::AAAA)), [db6.as_str()]);
            let mut both = vec![db4.clone(), second.v4().to_string()];
            both.sort();
            assert_eq!(addresses(&over_udp("store.", RecordType::A)), both);
            let back: Vec<u8> = db4.split('.').rev().map(|part| part.parse().unwrap()).collect();
            let back = format!("{}.{}.{}.{}.in-addr.arpa.", back[0], back[1], back[2], back[3]);
            assert_eq!(addresses(&over_udp(&back, RecordType::PTR)), ["db.web."]);
            assert_eq!(addresses(&over_udp("host.docker.internal.", RecordType::A)), ["172.18.0.1"]);

            let world_answer = over_udp("www.example.", RecordType::A);
            assert_eq!(
                (addresses(&world_answer), world_answer.id()),
                (vec!["203.0.113.7".to_owned()], 0x1234)
            );
            assert_eq!(over_udp("nobody.", RecordType::A).response_code(), ResponseCode::NXDomain);

            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            stream.set_read_timeout(Some(WAIT)).unwrap();
            assert_eq!(addresses(&over_tcp(&mut stream, "db.", RecordType::A)), [db4.as_str()]);
            assert_eq!(addresses(&over_tcp(&mut stream, "www.example.", RecordType::A)), ["203.0.113.7"]);
            assert_eq!(addresses(&over_tcp(&mut stream, "store.", RecordType::A)), both);
        });
        db.inside(|| assert_eq!(addresses(&over_udp("client.", RecordType::A)), [client.v4().to_string()]));
        second.end();
        client.inside(|| assert_eq!(addresses(&over_udp("store.", RecordType::A)), [db4.as_str()]));
    });
}

#[test]
fn dead_and_silent_servers_are_passed_over() {
    world("dns::dead_and_silent_servers_are_passed_over", |world| {
        upstream("127.0.0.53:53");
        let silent = UdpSocket::bind("127.0.0.55:53").unwrap();
        world.create("web", |_| {});
        let servers = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let (hopeful, _one) = join(world, "hopeful", |wish| {
            wish.dns_upstream = servers(&["127.0.0.54", "127.0.0.55", "127.0.0.53"]);
        });
        let (alone, _two) = join(world, "alone", |wish| wish.dns_upstream = servers(&["127.0.0.54"]));
        let (deaf, _three) = join(world, "deaf", |wish| wish.dns_upstream = servers(&["127.0.0.55"]));
        hopeful.inside(|| {
            assert_eq!(addresses(&over_udp("www.example.", RecordType::A)), ["203.0.113.7"]);
            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            assert_eq!(addresses(&over_tcp(&mut stream, "www.example.", RecordType::A)), ["203.0.113.7"]);
        });
        alone.inside(|| {
            assert_eq!(over_udp("www.example.", RecordType::A).response_code(), ResponseCode::ServFail);
            assert_eq!(over_udp("nobody.", RecordType::A).response_code(), ResponseCode::NXDomain);
        });
        deaf.inside(|| {
            // Within the time that is waited for an answer.
            assert_eq!(over_udp("nobody.", RecordType::A).response_code(), ResponseCode::NXDomain);
        });
        drop(silent);
    });
}

#[test]
fn container_may_have_a_name_server_of_its_own() {
    world("dns::container_may_have_a_name_server_of_its_own", |world| {
        upstream("127.0.0.53:53");
        world.create("web", |_| {});
        let (container, _service) = join(world, "pihole", |_| {});
        container.inside(|| {
            let _own = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _tcp = TcpListener::bind("0.0.0.0:53").unwrap();
            assert_eq!(addresses(&over_udp("www.example.", RecordType::A)), ["203.0.113.7"]);
        });
    });
}

#[test]
fn many_questions_at_once_are_all_answered() {
    world("dns::many_questions_at_once_are_all_answered", |world| {
        upstream("127.0.0.53:53");
        world.create("web", |_| {});
        let (container, _service) = join(world, "busy", |_| {});
        container.inside(|| {
            let sockets: Vec<UdpSocket> = (0..100)
                .map(|n| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.set_read_timeout(Some(WAIT)).unwrap();
                    let name = if n % 2 == 0 { format!("n{n}.example.") } else { "busy.".to_owned() };
                    socket.send_to(&query(&name, RecordType::A), "127.0.0.11:53").unwrap();
                    socket
                })
                .collect();
            for socket in sockets {
                let mut buffer = [0; 512];
                let length = socket.recv(&mut buffer).unwrap();
                assert_eq!(Message::from_bytes(&buffer[..length]).unwrap().answer_count(), 1);
            }
        });
    });
}
