//! A conversation with systemd: over its own socket where there is one, else over the message bus.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::wire::{self, Call, Message, Writer};
use super::{Manager, Property};
use crate::cgroup::CgroupError;

/// How long systemd may take to say anything: it may be starting many other units.
const PATIENCE: Duration = Duration::from_secs(90);

/// Messages about other people's units that are passed over.
const OTHERS_MAX: usize = 100_000;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A connection on which calls can be made.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// There is a message bus between: names have to be said.
    routed: bool,
    /// Jobs that have ended: path and result.
    ended: VecDeque<(String, String)>,
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) enum Refusal {
    /// systemd's: its name and text.
    Told(String, String),
    /// The conversation itself failed.
    Broken(CgroupError),
}

impl From<Refusal> for CgroupError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Told(name, text) => {
                let what = if text.is_empty() { name } else { text };
                Self::Manager { what }
            }
            Refusal::Broken(error) => error,
        }
    }
}

fn broken(what: impl Into<String>) -> CgroupError {
    CgroupError::Manager { what: what.into() }
}

/// Where a manager listens, its own sockets first: `true`, a bus is between.
fn addresses(manager: Manager) -> Vec<(bool, PathOrName)> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = |path: PathBuf| PathOrName::Path(path);
    let mut all = Vec::new();
    match manager {
        Manager::System => {
            all.push((false, path("/run/systemd/private".into())));
            all.extend(variable("DBUS_SYSTEM_BUS_ADDRESS").iter().flat_map(parse_addresses));
            all.push((true, path("/run/dbus/system_bus_socket".into())));
        }
        Manager::User => {
            let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
            all.extend(runtime.iter().map(|dir| (false, path(dir.join("systemd/private")))));
            all.extend(variable("DBUS_SESSION_BUS_ADDRESS").iter().flat_map(parse_addresses));
            all.extend(runtime.iter().map(|dir| (true, path(dir.join("bus")))));
        }
    }
    all
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathOrName {
    Path(PathBuf),
    Name(Vec<u8>),
}

/// `unix:path=/run/bus,guid=…;unix:abstract=name`.
fn parse_addresses(text: &OsString) -> Vec<(bool, PathOrName)> {
    let text = text.to_string_lossy();
    let mut all = Vec::new();
    for address in text.split(';').filter_map(|address| address.strip_prefix("unix:")) {
        for (key, value) in address.split(',').filter_map(|pair| pair.split_once('=')) {
            match key {
                "path" => all.push((true, PathOrName::Path(OsString::from_vec(unescape(value)).into()))),
                "abstract" => all.push((true, PathOrName::Name(unescape(value)))),
                _ => {}
            }
        }
    }
    all
}

/// `%20` and the like.
fn unescape(value: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

impl Bus {
    /// # Errors
    /// Which sockets were tried.
    pub(super) fn connect(manager: Manager) -> Result<Self, CgroupError> {
        let mut tried = Vec::new();
        for (routed, address) in addresses(manager) {
            let (name, stream) = match &address {
                PathOrName::Path(path) => (path.display().to_string(), UnixStream::connect(path)),
                PathOrName::Name(name) => {
                    let stream = SocketAddr::from_abstract_name(name)
                        .and_then(|address| UnixStream::connect_addr(&address));
                    (format!("@{}", String::from_utf8_lossy(name)), stream)
                }
            };
            let opened = stream.and_then(|stream| Self::open(stream, routed));
            match opened {
                Ok(mut bus) => {
                    bus.greet()?;
                    return Ok(bus);
                }
                Err(error) => tried.push(format!("{name}: {error}")),
            }
        }
        let which = if manager == Manager::User { "the user's systemd" } else { "systemd" };
        if tried.is_empty() {
            tried.push("XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set".to_owned());
        }
        Err(broken(format!("{which} does not answer ({})", tried.join("; "))))
    }

    /// Says who this is: the kernel tells the other side, also from inside of a user namespace.
    fn open(mut stream: UnixStream, routed: bool) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let (mut line, mut answers) = (Vec::new(), 0);
        while answers < 2 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.ends_with(b"\r\n") {
                let expected: &[u8] = if answers == 0 { b"DATA" } else { b"OK " };
                if !line.starts_with(expected) {
                    let said = String::from_utf8_lossy(&line).trim().to_owned();
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
                }
                line.clear();
                answers += 1;
            }
            if line.len() > 4096 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(Self { stream, serial: 0, routed, ended: VecDeque::new() })
    }

    /// On a bus: become a member, and ask to be told when jobs end.
    fn greet(&mut self) -> Result<(), CgroupError> {
        if !self.routed {
            return Ok(());
        }
        let bus = |member, body: &[&str]| Call {
            destination: Some("org.freedesktop.DBus"),
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            signature: if body.is_empty() { "" } else { "s" },
            body: texts(body),
        };
        let rule = format!(
            "type='signal',sender='{SYSTEMD}',path='{OBJECT}',interface='{MANAGER}',member='JobRemoved'"
        );
        let _ = self.exchange(bus("Hello", &[]))?;
        let _ = self.exchange(bus("AddMatch", &[&rule]))?;
        let _ = self.call("Subscribe", "", Writer::default())?;
        Ok(())
    }

    /// Calls a method of the manager.
    pub(super) fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message, Refusal> {
        let destination = self.routed.then_some(SYSTEMD);
        self.exchange(Call { destination, path: OBJECT, interface: MANAGER, member, signature, body })
    }

    fn exchange(&mut self, call: Call<'_>) -> Result<Message, Refusal> {
        self.serial += 1;
        let serial = self.serial;
        let failed = |error: io::Error| Refusal::Broken(broken(format!("the connection failed: {error}")));
        self.stream.write_all(&call.bytes(serial)).map_err(failed)?;
        for _ in 0..OTHERS_MAX {
            let message = self.receive().map_err(failed)?;
            match message.kind {
                wire::ANSWER if message.answers == Some(serial) => return Ok(message),
                wire::ERROR if message.answers == Some(serial) => {
                    let text = message.texts.into_iter().next().unwrap_or_default();
                    return Err(Refusal::Told(message.error, text));
                }
                _ => self.notice(message),
            }
        }
        Err(Refusal::Broken(broken("no answer")))
    }

    fn receive(&mut self) -> io::Result<Message> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a D-Bus message");
        let mut begin = [0; 16];
        self.stream.read_exact(&mut begin)?;
        let mut bytes = vec![0; wire::length(&begin).ok_or_else(invalid)?];
        let (head, rest) = bytes.split_at_mut(16);
        head.copy_from_slice(&begin);
        self.stream.read_exact(rest)?;
        wire::parse(&bytes).ok_or_else(invalid)
    }

    fn notice(&mut self, message: Message) {
        if (message.kind, message.member.as_str()) != (wire::SIGNAL, "JobRemoved") {
            return;
        }
        let mut texts = message.texts.into_iter();
        if let (Some(job), Some(_), Some(result)) = (texts.next(), texts.next(), texts.next()) {
            self.ended.push_back((job, result));
        }
    }

    /// Waits until the job that a call has begun is over.
    pub(super) fn finish(&mut self, begun: &Message, unit: &str) -> Result<(), CgroupError> {
        let job = begun.texts.first().ok_or_else(|| broken("an answer without a job"))?.clone();
        for _ in 0..OTHERS_MAX {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| *ended == job) {
                return match result.as_str() {
                    "done" => Ok(()),
                    result => Err(broken(format!("the job for {unit} ended with `{result}`"))),
                };
            }
            let message =
                self.receive().map_err(|error| broken(format!("waiting for the job of {unit}: {error}")))?;
            self.notice(message);
        }
        Err(broken(format!("the job of {unit} does not end")))
    }
}

/// A body of texts alone.
pub(super) fn texts(texts: &[&str]) -> Writer {
    let mut body = Writer::default();
    texts.iter().for_each(|text| body.text(text));
    body
}

/// A list of properties: `a(sv)`.
pub(super) fn properties(body: &mut Writer, properties: &[Property]) {
    body.list(8, |list| {
        for Property { name, value } in properties {
            list.align(8);
            list.text(name);
            list.variant(value);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_bus_writes_them() {
        let text = OsString::from("unix:path=/run/user/1/a%20b,guid=0;tcp:host=x;unix:abstract=/tmp/dbus-1");
        let expected = [
            (true, PathOrName::Path("/run/user/1/a b".into())),
            (true, PathOrName::Name(b"/tmp/dbus-1".to_vec())),
        ];
        assert_eq!(parse_addresses(&text), expected);
        assert_eq!(unescape("100%"), b"100%");
    }
}
