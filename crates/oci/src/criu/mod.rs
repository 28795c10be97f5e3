//! CRIU, a program of others that freezes processes into files and makes them anew from these: started as
//! `criu swrk` and talked to by the messages of its `rpc.proto`.
//!
//! It ends by itself when this program does: its next question is not answered, so it undoes what it did.

pub(crate) mod outside;
pub(crate) mod wire;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::io::FdFlags;

use crate::World;
use crate::args::{Flag, Given, switch, value};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use wire::{Message, Value};

/// `criu_opts` of `rpc.proto`: the fields used here.
pub(crate) mod option {
    pub(crate) const IMAGES_DIR_FD: u32 = 1;
    pub(crate) const PID: u32 = 2;
    pub(crate) const LEAVE_RUNNING: u32 = 3;
    pub(super) const EXT_UNIX_SK: u32 = 4;
    pub(super) const TCP_ESTABLISHED: u32 = 5;
    pub(crate) const EVASIVE_DEVICES: u32 = 6;
    pub(super) const SHELL_JOB: u32 = 7;
    pub(super) const FILE_LOCKS: u32 = 8;
    pub(super) const LOG_LEVEL: u32 = 9;
    pub(super) const LOG_FILE: u32 = 10;
    pub(crate) const PAGE_SERVER: u32 = 11;
    pub(super) const NOTIFY_SCRIPTS: u32 = 12;
    pub(crate) const ROOT: u32 = 13;
    pub(crate) const PARENT_IMG: u32 = 14;
    pub(crate) const TRACK_MEM: u32 = 15;
    pub(super) const AUTO_DEDUP: u32 = 16;
    pub(super) const WORK_DIR_FD: u32 = 17;
    pub(crate) const LINK_REMAP: u32 = 18;
    pub(crate) const EXT_MNT: u32 = 23;
    pub(crate) const CG_ROOT: u32 = 25;
    pub(crate) const RST_SIBLING: u32 = 26;
    pub(crate) const INHERIT_FD: u32 = 27;
    pub(super) const MANAGE_CGROUPS_MODE: u32 = 34;
    pub(crate) const EXTERNAL: u32 = 37;
    pub(super) const EMPTY_NS: u32 = 38;
    pub(crate) const JOIN_NS: u32 = 39;
    pub(crate) const FREEZE_CGROUP: u32 = 44;
    pub(crate) const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub(super) const LAZY_PAGES: u32 = 48;
    pub(crate) const STATUS_FD: u32 = 49;
    pub(super) const ORPHAN_PTS_MASTER: u32 = 50;
    pub(super) const CONFIG_FILE: u32 = 51;
    pub(crate) const LSM_PROFILE: u32 = 53;
    pub(crate) const LSM_MOUNT_CONTEXT: u32 = 63;
    pub(super) const NETWORK_LOCK: u32 = 64;
}

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;

/// A message from CRIU is smaller than that.
const MESSAGE_MAX: usize = 64 << 10;

pub(crate) const IMAGE_PATH: Flag = value("image-path", "", "DIR", "where the checkpoint is (./checkpoint)");
pub(crate) const WORK_PATH: Flag =
    value("work-path", "", "DIR", "where CRIU's log is written (as the checkpoint)");
pub(crate) const TCP_ESTABLISHED: Flag = switch("tcp-established", "", "with open TCP connections");
pub(crate) const EXT_UNIX_SK: Flag = switch("ext-unix-sk", "", "with unix sockets to processes outside");
pub(crate) const SHELL_JOB: Flag = switch("shell-job", "", "with a terminal or session of a shell outside");
pub(crate) const FILE_LOCKS: Flag = switch("file-locks", "", "with locks on files");
pub(crate) const CGROUPS_MODE: Flag =
    value("manage-cgroups-mode", "", "MODE", "`soft` (as without it), `full`, `strict` or `ignore`");
pub(crate) const EMPTY_NS: Flag =
    value("empty-ns", "", "KIND", "make this namespace, but nothing in it: only `network`");
pub(crate) const AUTO_DEDUP: Flag = switch("auto-dedup", "", "keep pages once that several checkpoints have");
pub(crate) const LAZY_PAGES: Flag =
    switch("lazy-pages", "", "memory is fetched when it is used, from `criu lazy-pages`");

/// CRIU's directories, open as long as it works.
#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) images: PathBuf,
    images_fd: OwnedFd,
    work: Option<(PathBuf, OwnedFd)>,
    log: &'static str,
}

impl Directories {
    /// Those that were asked for, made where they are missing (`make`).
    pub(crate) fn open(given: &Given, make: bool, log: &'static str) -> Result<Self> {
        let open = |path: &Path, make: bool| -> Result<OwnedFd> {
            if make {
                fs::create_dir_all(path).map_err(Error::io("create", path))?;
            }
            File::open(path).map(OwnedFd::from).map_err(Error::io("open", path))
        };
        let set = |name| given.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let images = set("image-path").unwrap_or_else(|| "checkpoint".into());
        let images_fd = open(&images, make)?;
        let work = set("work-path").map(|path| open(&path, true).map(|fd| (path, fd))).transpose()?;
        Ok(Self { images, images_fd, work, log })
    }

    fn log_path(&self) -> PathBuf {
        self.work.as_ref().map_or(&self.images, |(path, _)| path).join(self.log)
    }

    /// The options that both directions have.
    pub(crate) fn options(&self, given: &Given, bundle: &Bundle) -> Result<Message> {
        let mode = match given.get("manage-cgroups-mode").unwrap_or_default() {
            "" | "soft" => 3,
            "full" => 4,
            "strict" => 5,
            "ignore" => 0,
            other => {
                return Err(Error::usage(format!(
                    "--manage-cgroups-mode: `{other}` is not `soft`, `full`, `strict` or `ignore`"
                )));
            }
        };
        let own = bundle.spec.annotations().as_ref().and_then(|all| all.get("org.criu.config"));
        let config = own.map_or("/etc/criu/runc.conf", String::as_str);
        let mut options = Message::default()
            .number(option::IMAGES_DIR_FD, self.images_fd.as_raw_fd().into())
            .number(option::LOG_LEVEL, 4)
            .text(option::LOG_FILE, self.log)
            .flag(option::NOTIFY_SCRIPTS, true)
            .flag(option::ORPHAN_PTS_MASTER, true)
            .number(option::MANAGE_CGROUPS_MODE, mode)
            .flag(option::EXT_UNIX_SK, given.on("ext-unix-sk"))
            .flag(option::TCP_ESTABLISHED, given.on("tcp-established"))
            .flag(option::SHELL_JOB, given.on("shell-job"))
            .flag(option::FILE_LOCKS, given.on("file-locks"))
            .flag(option::AUTO_DEDUP, given.on("auto-dedup"))
            .flag(option::LAZY_PAGES, given.on("lazy-pages"));
        if !config.is_empty() {
            options = options.text(option::CONFIG_FILE, config);
        }
        if let Some((_, work)) = &self.work {
            options = options.number(option::WORK_DIR_FD, work.as_raw_fd().into());
        }
        for kind in given.all("empty-ns") {
            if kind != "network" {
                return Err(Error::usage(format!("--empty-ns: `{kind}` is not `network`")));
            }
            options = options.number(option::EMPTY_NS, rustix::thread::UnshareFlags::NEWNET.bits().into());
        }
        // Without iptables, which it uses by itself to keep packets out meanwhile.
        if !is_in_path("iptables-restore") {
            options = options.number(option::NETWORK_LOCK, 2);
        }
        Ok(options)
    }
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// What CRIU says while it works.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    pub(crate) script: String,
    pub(crate) pid: i32,
    pub(crate) descriptor: Option<OwnedFd>,
}

/// A running CRIU.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
}

impl Criu {
    /// Started with this program's standard streams, waiting for a request.
    pub(crate) fn start(world: &World) -> Result<Self> {
        let failed = |e| Error::new(format!("talk to criu: {}", std::io::Error::from(e)));
        let (ours, theirs) = cata_sys::message::pair().map_err(failed)?;
        pass_on(&theirs)?;
        let program = world.criu.as_deref().unwrap_or("criu");
        let child = Command::new(program).arg("swrk").arg(theirs.as_raw_fd().to_string()).spawn();
        let child = child.map_err(|error| {
            let hint = if error.kind() == ErrorKind::NotFound { " (Debian package criu)" } else { "" };
            Error::new(format!("checkpoints are CRIU's work, and `{program}`{hint} cannot be run: {error}"))
        })?;
        Ok(Self { child, socket: ours })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Has a request done; what CRIU says meanwhile is answered by `hear`.
    pub(crate) fn perform(
        mut self,
        request: Request,
        options: &Message,
        directories: &Directories,
        hear: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<()> {
        let message = Message::default().number(1, request as i64).message(2, options);
        let done = self.send(&message).and_then(|()| self.converse(hear));
        drop(self.socket);
        // It is waited for whatever it did: this program's next child must not be taken for it.
        let _ = self.child.wait();
        done.map_err(|said| said.unwrap_or_else(|| Error::new(reason(&directories.log_path()))))
    }

    fn send(&self, message: &Message) -> std::result::Result<(), Option<Error>> {
        // It may have ended already, and has written why.
        cata_sys::message::send(self.socket.as_fd(), message.encoded(), &[]).map_err(|_| None)
    }

    /// Until the answer. `None`: it failed, and its log says why.
    fn converse(&self, hear: &mut dyn FnMut(Notice) -> Result<()>) -> std::result::Result<(), Option<Error>> {
        loop {
            let received = cata_sys::message::receive(self.socket.as_fd(), MESSAGE_MAX, 4);
            let Ok(Some((bytes, descriptors))) = received else { return Err(None) };
            let fields = wire::fields(&bytes).ok_or(None)?;
            let number = |wanted: u32| {
                fields.iter().rev().find_map(|(field, value)| match value {
                    Value::Number(number) if *field == wanted => Some(*number),
                    _ => None,
                })
            };
            if number(2) != Some(1) {
                return Err(None);
            }
            if number(1) != Some(NOTIFY) {
                return Ok(());
            }
            let notice = fields.iter().find_map(|(field, value)| match value {
                Value::Bytes(bytes) if *field == 5 => Some(notice(bytes)),
                _ => None,
            });
            let mut notice = notice.flatten().ok_or(None)?;
            notice.descriptor = descriptors.into_iter().next();
            let heard = hear(notice);
            let answer = Message::default().number(1, 6).number(3, i64::from(heard.is_ok()));
            let sent = self.send(&answer);
            heard.map_err(Some)?;
            sent?;
        }
    }
}

fn notice(bytes: &[u8]) -> Option<Notice> {
    let mut notice = Notice::default();
    for (field, value) in wire::fields(bytes)? {
        match (field, value) {
            (1, Value::Bytes(script)) => notice.script = String::from_utf8_lossy(script).into_owned(),
            (2, Value::Number(pid)) => notice.pid = i32::try_from(pid).ok()?,
            _ => {}
        }
    }
    Some(notice)
}

/// A descriptor that programs started from now on have too.
pub(crate) fn pass_on(fd: &OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty())
        .map_err(|e| Error::new(format!("hand a descriptor to criu: {e}")))
}

/// CRIU's own words for what went wrong: the first few, for later ones are mostly consequences.
fn reason(log: &Path) -> String {
    const FEW: usize = 3;
    let text = fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    // `(00.012345)     77: Error (criu/file.c:12): what`
    let said: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Error (")?.1.split_once("): ").map(|(_, what)| what.trim()))
        .take(FEW)
        .collect();
    let said = if said.is_empty() { "it does not say why".to_owned() } else { said.join("; ") };
    format!("criu failed: {said} (its log is {})", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_what_the_log_says_first() {
        let dir = std::env::temp_dir().join(format!("criu-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let log = dir.join("dump.log");
        assert!(reason(&log).contains("does not say why"));
        fs::write(&log, "(00.01) fine\n(00.02)     7: Error (criu/x.c:1): no such thing\n(00.03) Error (criu/y.c:2): so it ends\n").unwrap();
        let said = reason(&log);
        assert!(said.contains("no such thing; so it ends") && said.contains("dump.log"), "{said}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
