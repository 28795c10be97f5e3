//! A proxy before the registry that cuts, stalls, spoils and answers by itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of one request.
pub(crate) enum Action {
    /// Passed on.
    Forward,
    /// Passed on; the answer is cut after so many bytes of its body.
    Cut(usize),
    /// Passed on; after so many bytes of the body nothing moves any more.
    Stall(usize),
    /// Passed on; one byte of the body is changed.
    Spoil(usize),
    /// Answered here.
    Answer(String),
}

/// Everything up to the empty line, in lower case.
pub(crate) type Head = String;

/// Lives as long as the test process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl Proxy {
    pub(crate) fn start(
        upstream: u16,
        decide: impl Fn(&str, usize) -> Action + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<Head>>> = Arc::default();
        let (kept, decide) = (Arc::clone(&heads), Arc::new(decide));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (kept, decide) = (Arc::clone(&kept), Arc::clone(&decide));
                std::thread::spawn(move || serve(client, upstream, &kept, &*decide));
            }
        });
        Self { port, heads }
    }

    pub(crate) fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    pub(crate) fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

/// One request on each connection: the answer says `connection: close`.
fn serve(
    mut client: TcpStream,
    upstream: u16,
    heads: &Mutex<Vec<Head>>,
    decide: &dyn Fn(&str, usize) -> Action,
) {
    let Some((head, rest)) = read_head(&mut client) else { return };
    let lower = head.to_ascii_lowercase();
    let count = {
        let mut heads = heads.lock().unwrap();
        heads.push(lower.clone());
        heads.len()
    };
    let action = decide(&lower, count);
    if let Action::Answer(text) = &action {
        let _ = client.write_all(text.as_bytes());
        let _ = client.shutdown(Shutdown::Both);
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", upstream)) else { return };
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let _ = server.write_all(head.as_bytes());
    let _ = server.write_all(&rest);
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
    });
    let Some((head, body)) = read_head(&mut server) else { return };
    let _ = client.write_all(head.as_bytes());
    pass(&mut client, &mut server, body, &action);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn pass(client: &mut TcpStream, server: &mut TcpStream, mut piece: Vec<u8>, action: &Action) {
    let mut sent = 0;
    loop {
        match action {
            Action::Cut(at) | Action::Stall(at) if sent + piece.len() >= *at => {
                let _ = client.write_all(&piece[..at - sent]);
                if matches!(action, Action::Stall(_)) {
                    std::thread::sleep(Duration::from_secs(20));
                }
                return;
            }
            Action::Spoil(at) if (sent..sent + piece.len()).contains(at) => piece[at - sent] ^= 0x55,
            _ => {}
        }
        if client.write_all(&piece).is_err() {
            return;
        }
        sent += piece.len();
        piece.resize(64 * 1024, 0);
        match server.read(&mut piece) {
            Ok(n) if n > 0 => piece.truncate(n),
            _ => return,
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    loop {
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, rest));
        }
    }
}
