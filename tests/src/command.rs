//! Programs run with a deadline, their results, and the assertions on them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use serde_json::Value;

use crate::world::World;

/// How long a command may take unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A patience for the machine that this is: `CATA_TEST_SLOWNESS` says how many times slower than a real one it
/// is (20 for an emulated one).
#[must_use]
pub fn scaled(patience: Duration) -> Duration {
    let slowness = std::env::var("CATA_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok());
    patience * slowness.unwrap_or(1)
}

/// The `cata` under test: `$CATA_BIN`, else beside this program's target directory.
///
/// # Panics
/// When there is none, with the command that builds it.
#[must_use]
pub fn cata_binary() -> PathBuf {
    binary("CATA_BIN", "cata")
}

/// The `cata-runtime` under test: `$CATA_RUNTIME`, else as [`cata_binary`].
///
/// # Panics
/// When there is none.
#[must_use]
pub fn runtime_binary() -> PathBuf {
    binary("CATA_RUNTIME", "cata-runtime")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let exe = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/it-… or target/<profile>/xtask
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no `{name}` above {}: run `cargo xtask build`", exe.display()))
}

/// A program about to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    words: Vec<OsString>,
    input: Option<Vec<u8>>,
    patience: Duration,
}

impl Run {
    /// `program args…`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let words = vec![program.as_ref().to_owned()];
        Self { command: Command::new(program), words, input: None, patience: PATIENCE }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.words.push(arg.as_ref().to_owned());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self = self.arg(arg);
        }
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads; `/dev/null` otherwise.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or takes too long.
    #[must_use]
    pub fn done(self) -> Done {
        let patience = self.patience;
        self.start().done(patience)
    }

    /// Starts it and goes on. Output goes to memory files, not pipes: a daemon that kept our pipe open
    /// would otherwise hold the test, and what a killed program printed is still there.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Running {
        let words =
            self.words.iter().map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        let [out, err, mut input] = ["stdout", "stderr", "stdin"].map(|name| {
            let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).expect("a memory file");
            File::from(memory)
        });
        match self.input {
            Some(bytes) => {
                input.write_all(&bytes).and_then(|()| input.seek(SeekFrom::Start(0))).expect("a memory file");
                self.command.stdin(input);
            }
            None => {
                self.command.stdin(Stdio::null());
            }
        }
        self.command
            .stdout(out.try_clone().expect("a duplicate"))
            .stderr(err.try_clone().expect("a duplicate"));
        let child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start `{words}`: {error}"));
        Running { words, child, out, err, ended: false }
    }
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    words: String,
    child: Child,
    out: File,
    err: File,
    ended: bool,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        content(&self.out)
    }

    /// What it printed so far on standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        content(&self.err)
    }

    /// Its exit status if it has ended.
    ///
    /// # Panics
    /// When the kernel does not know it.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("our own child");
        self.ended |= status.is_some();
        status
    }

    /// SIGKILL, and waits for it to be gone.
    ///
    /// # Panics
    /// When the kernel does not know it.
    pub fn kill(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            self.child.wait().expect("our own child");
            self.ended = true;
        }
    }

    /// Sends it a signal by `kill`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than `patience` from now.
    #[must_use]
    pub fn done(mut self, patience: Duration) -> Done {
        let patience = scaled(patience);
        // From now on: what the test did in the meantime is not the program's time.
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.poll() {
                break status;
            }
            if asked.elapsed() > patience {
                self.kill();
                panic!(
                    "`{}` took longer than {patience:?}\nstdout: {}\nstderr: {}\nprocesses:\n{}",
                    self.words,
                    self.stdout(),
                    self.stderr(),
                    crate::world::processes()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Done { words: self.words.clone(), status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a memory file that somebody else may be appending to, without moving the offset both share.
fn content(file: &File) -> String {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; file.metadata().map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(0))];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(length);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command as one would type it.
    pub words: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Done {
    /// The exit code as a shell shows it: 128+n for a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Asserts success.
    ///
    /// # Panics
    /// Otherwise, with all it printed.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts the exit code.
    ///
    /// # Panics
    /// Otherwise, with all it printed.
    #[must_use]
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code() == code, "expected exit code {code}, got {}\n{self}", self.code());
        self
    }

    /// Asserts the exit code and that standard error has all these texts, whatever their case.
    ///
    /// # Panics
    /// Otherwise, with all it printed.
    #[track_caller]
    pub fn fails(self, code: i32, texts: &[&str]) {
        let this = self.exits(code);
        let said = this.stderr.to_lowercase();
        for text in texts {
            assert!(said.contains(&text.to_lowercase()), "standard error lacks {text:?}\n{this}");
        }
    }

    /// Asserts that standard output has this text.
    ///
    /// # Panics
    /// Otherwise, with all it printed.
    #[must_use]
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "standard output lacks {text:?}\n{self}");
        self
    }

    /// Standard output of a success, without the white space around it.
    ///
    /// # Panics
    /// When it did not succeed.
    #[must_use]
    #[track_caller]
    pub fn text(self) -> String {
        self.ok().stdout.trim().to_owned()
    }

    /// Standard output of a success, line by line.
    ///
    /// # Panics
    /// When it did not succeed.
    #[must_use]
    #[track_caller]
    pub fn lines(self) -> Vec<String> {
        self.ok().stdout.lines().map(str::to_owned).collect()
    }

    /// Standard output of a success as JSON.
    ///
    /// # Panics
    /// When it did not succeed or is no JSON.
    #[must_use]
    #[track_caller]
    pub fn json(self) -> Value {
        let this = self.ok();
        serde_json::from_str(&this.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{this}"))
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}\nstdout: {}\nstderr: {}", self.words, self.status, self.stdout, self.stderr)
    }
}

/// A word as one would type it in a shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+{}".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else if word.contains('\'') && !word.contains(['"', '$', '`', '\\']) {
        format!("\"{word}\"")
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl World {
    /// `cata args…`, not yet started. `CATA_ROOT` and `CATA_STATE` make it the world's own engine.
    #[must_use]
    pub fn cata_run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let mut run = Run::new(cata_binary()).args(args);
        run.words[0] = "cata".into();
        run
    }

    /// `cata args…`, to its end.
    #[must_use]
    #[track_caller]
    pub fn cata(&self, args: &[&str]) -> Done {
        self.cata_run(args).done()
    }

    /// One value out of `cata inspect`, as a Go template gives it.
    ///
    /// # Panics
    /// When `inspect` fails.
    #[must_use]
    #[track_caller]
    pub fn field(&self, container: &str, template: &str) -> String {
        self.cata(&["inspect", "--format", template, container]).text()
    }

    /// The first element of `cata inspect`'s JSON.
    ///
    /// # Panics
    /// When `inspect` fails.
    #[must_use]
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        self.cata(&["inspect", container]).json()[0].take()
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none for `patience`.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let patience = scaled(patience);
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < patience, "still not, after {patience:?}: {what}");
        // Asking takes the processor too, in the lab a second of it: most of it is left to what is waited for.
        let pause = (asked.elapsed() * 3).clamp(Duration::from_millis(20), Duration::from_secs(3));
        std::thread::sleep(pause);
    }
}

/// Reads a whole stream; for sockets in tests.
///
/// # Panics
/// When reading fails.
#[must_use]
pub fn read_all(mut from: impl std::io::Read) -> String {
    let mut text = String::new();
    let _ = from.by_ref().read_to_string(&mut text).expect("readable text");
    text
}
