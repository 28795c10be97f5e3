//! Connections and datagrams over loopback, with nobody else.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};

use super::*;

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A forwarder on a thread, until it is dropped.
struct Served(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Served {
    fn new(transport: Transport, target: SocketAddr, socket: OwnedFd) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let mut forwarder = Forwarder::new(vec![Forward { transport, target }], vec![socket]).unwrap();
        let thread = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let most = Duration::from_millis(50);
                let wait = forwarder.wait().map_or(most, |wait| wait.min(most));
                let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
                let _ = poll(&mut [PollFd::new(&forwarder.fd(), PollFlags::IN)], Some(&wait));
                forwarder.ready();
            }
        });
        Self(over, Some(thread))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(HERE).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn forwarded(target: SocketAddr) -> (Served, SocketAddr) {
    let (socket, address) = listener();
    socket.set_nonblocking(true).unwrap();
    (Served::new(Transport::Tcp, target, socket.into()), address)
}

#[test]
fn connections_carry_all_bytes_both_ways_and_their_ends() {
    let (server, target) = listener();
    let (_served, address) = forwarded(target);
    // More than any buffer holds, to a reader that begins when all has been said.
    let big: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 251) as u8).collect();
    let expected = big.clone();
    let echo = thread::spawn(move || {
        for _ in 0..3 {
            let (mut client, _) = server.accept().unwrap();
            let mut text = Vec::new();
            client.read_to_end(&mut text).unwrap();
            client.write_all(&text).unwrap();
        }
    });
    for _ in 0..3 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&big).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = Vec::new();
        client.read_to_end(&mut text).unwrap();
        assert!(text == expected, "{} bytes", text.len());
    }
    echo.join().unwrap();
}

#[test]
fn connection_to_nobody_is_reset() {
    let (server, target) = listener();
    drop(server);
    let (_served, address) = forwarded(target);
    let mut client = TcpStream::connect(address).unwrap();
    let mut byte = [0];
    assert_eq!(client.read(&mut byte).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn datagrams_find_their_way_back_to_each_client() {
    let server = UdpSocket::bind(HERE).unwrap();
    let target = server.local_addr().unwrap();
    let socket = UdpSocket::bind(HERE).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let _served = Served::new(Transport::Udp, target, socket.into());
    let clients = [(); 3].map(|()| UdpSocket::bind(HERE).unwrap());
    for (number, client) in (0..).zip(&clients) {
        client.send_to(&[number], address).unwrap();
    }
    for _ in 0..3 {
        let mut byte = [0; 2];
        let (_, from) = server.recv_from(&mut byte).unwrap();
        server.send_to(&[byte[0], 9], from).unwrap();
    }
    for (number, client) in (0..).zip(&clients) {
        let mut answer = [0; 2];
        assert_eq!(client.recv_from(&mut answer).unwrap(), (2, address));
        assert_eq!(answer, [number, 9]);
    }
}
