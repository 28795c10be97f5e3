//! A pseudo-terminal to run a program on, and what it showed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::command::{PATIENCE, eventually};

/// A program on a terminal of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `command` as the leader of a session whose controlling terminal has this size.
    ///
    /// # Panics
    /// When there is no pseudo-terminal to be had, or the program cannot be started.
    #[must_use]
    pub fn run(command: &Command, rows: u16, columns: u16) -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        rustix::pty::grantpt(&master).expect("a pseudo-terminal");
        rustix::pty::unlockpt(&master).expect("a pseudo-terminal");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("a pseudo-terminal has a name");
        let slave: OwnedFd =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
                .expect("open the terminal");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).expect("set the terminal's size");

        // `setsid --ctty` makes standard input the controlling terminal, as a terminal emulator does.
        let mut program = Command::new("setsid");
        program.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => program.env(name, value),
                None => program.env_remove(name),
            };
        }
        program.env("TERM", "xterm");
        let copy = || Stdio::from(slave.try_clone().expect("a duplicate"));
        let child =
            program.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("start on the terminal");
        drop(slave);

        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().expect("a duplicate");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            // EIO: the last process has closed the terminal.
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                sink.lock().expect("no holder panics").extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keyboard, shown }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal is there");
    }

    /// Everything shown so far.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no holder panics")).into_owned()
    }

    /// Waits until this text has been shown.
    ///
    /// # Panics
    /// When it is not, with what was.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(text, PATIENCE, || self.shown().contains(text).then_some(()));
        }));
        assert!(found.is_ok(), "the terminal never showed {text:?}, but:\n{}", self.shown());
    }

    /// Changes the size, as dragging a window's corner does.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keyboard, size).expect("the terminal is there");
    }

    /// Waits for the program's end and returns its exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        let status = eventually("the program on the terminal ends", PATIENCE, || {
            self.child.try_wait().expect("our own child")
        });
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
