//! `--ssh`: agents that steps may ask which keys there are, and to sign with them, and nothing else.
//!
//! A step never gets the agent's own socket: [`Forward`] listens on one of its own, with the owner and mode that the
//! mount asks for, and hands on the two requests that read. An agent of this user's answers no other user; the one who
//! asks it here is this process. Keys given as files are held by an agent of this build's alone ([`KeyAgent`]).

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::BuildError;
use super::cache::{Cache, Shared};
use crate::container::names;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Larger than any message of the protocol.
const MESSAGE_MAX: u32 = 256 << 10;
/// What is handed on: the list of keys, and a signature.
const ALLOWED: [u8; 2] = [11, 13];
/// The answer to everything else.
const REFUSED: [u8; 5] = [0, 0, 0, 1, 5];
/// What ends an agent: the end of its input, which is the end of this process. The program is set-group-ID, so that a
/// signal at the death of its parent cannot be asked for.
const LIFE: &str = "cat >/dev/null; kill \"$SSH_AGENT_PID\"";
/// How long an agent may take to start.
const START: Duration = Duration::from_secs(30);

/// An agent's socket as one step sees it; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Forward {
    path: PathBuf,
    shared: Arc<Line>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Line {
    agent: PathBuf,
    ended: AtomicBool,
    /// Ends of what is under way.
    open: Mutex<Vec<UnixStream>>,
}

impl Forward {
    /// Listens at `path` for a step, on behalf of `agent`.
    pub(super) fn new(
        path: PathBuf,
        agent: &Path,
        (uid, gid, mode): (u32, u32, u32),
    ) -> std::result::Result<Self, BuildError> {
        let io = |e: io::Error| BuildError::io("make", &path, e);
        let listener = UnixListener::bind(&path).map_err(io)?;
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(io)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io)?;
        let shared =
            Arc::new(Line { agent: agent.to_owned(), ended: AtomicBool::new(false), open: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let listening = std::thread::spawn(move || {
            for client in listener.incoming() {
                if theirs.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let ours = Arc::clone(&theirs);
                std::thread::spawn(move || {
                    // Who asks finds out by the end of the connection.
                    let _ = ours.serve(client);
                });
            }
        });
        Ok(Self { path, shared, listening: Some(listening) })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // The one who waits for a client gets one. If that fails, nobody is waiting.
        if UnixStream::connect(&self.path).is_ok()
            && let Some(listening) = self.listening.take()
        {
            let _ = listening.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Line {
    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut agent = UnixStream::connect(&self.agent)?;
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.extend([client.try_clone()?, agent.try_clone()?]);
        }
        while !self.ended.load(Ordering::SeqCst) {
            let request = message(&mut client)?;
            if request.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
                agent.write_all(&request)?;
                let answer = message(&mut agent)?;
                client.write_all(&answer)?;
            } else {
                client.write_all(&REFUSED)?;
            }
        }
        Ok(())
    }
}

/// A message with its length in front.
fn message(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length);
    if size > MESSAGE_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut text = length.to_vec();
    from.take(size.into()).read_to_end(&mut text)?;
    if text.len() as u64 != u64::from(size) + 4 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    Ok(text)
}

/// An agent that holds keys given as files. It ends when this is dropped, or its process dies.
#[derive(Debug)]
pub struct KeyAgent {
    child: Child,
    dir: PathBuf,
    /// While it is held, no build takes the directory for a dead one's.
    _lease: Shared,
}

impl KeyAgent {
    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent")
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Engine {
    /// Starts an agent for one build with these keys.
    ///
    /// # Errors
    /// A key that cannot be read or has a passphrase; no `ssh-agent`.
    pub fn key_agent(&self, keys: &[PathBuf]) -> Result<KeyAgent> {
        let (_, lease) = Cache::open(self)?;
        let dir = self.paths.state.join("build").join(names::random_id().short());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(Error::file("make", &dir))?;
        let mut command = Command::new("ssh-agent");
        command.arg("-a").arg(dir.join("agent")).args(["sh", "-c", LIFE]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A key that interrupts the build reaches this process, and by its end them.
        command.process_group(0);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                let _ = fs::remove_dir_all(&dir);
                return Err(missing("ssh-agent", e));
            }
        };
        let mut agent = KeyAgent { child, dir, _lease: lease };
        let started = Instant::now();
        while UnixStream::connect(agent.socket()).is_err() {
            let ended = agent.child.try_wait().ok().flatten().is_some();
            if ended || started.elapsed() > START {
                return Err(Error::Invalid(
                    "ssh-agent, which holds keys given as files, did not start".to_owned(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        keys.iter().try_for_each(|key| agent.add(key)).map(|()| agent)
    }
}

impl KeyAgent {
    fn add(&self, key: &Path) -> Result<()> {
        let text = fs::read(key).map_err(Error::file("read the key", key))?;
        if is_sealed(&text) {
            return Err(Error::Invalid(format!(
                "the key {} has a passphrase: add it to an agent with ssh-add, and give --ssh that agent",
                key.display()
            )));
        }
        let mut child = Command::new("ssh-add")
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", self.socket())
            // Nobody is asked for anything.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| missing("ssh-add", e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it does not want to read, its status says why.
            let _ = stdin.write_all(&text);
        }
        let output = child.wait_with_output().map_err(Error::file("wait for", Path::new("ssh-add")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or_default();
        Err(Error::Invalid(format!("{} is no private key that ssh-add takes: {said}", key.display())))
    }
}

fn missing(program: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::Unsupported {
            what: format!("the program {program}, which holds keys given as files, is not installed"),
            hint: "install the package openssh-client".to_owned(),
        };
    }
    Error::file("start", Path::new(program))(error)
}

/// Whether a private key has a passphrase.
fn is_sealed(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if text.contains("Proc-Type: 4,ENCRYPTED") || text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        return true;
    }
    let inner = text.lines().skip_while(|line| !line.contains("BEGIN OPENSSH PRIVATE KEY")).skip(1);
    let inner: String = inner.take_while(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(inner) else { return false };
    // After the mark and a length comes the name of the cipher.
    let Some(rest) = bytes.strip_prefix(b"openssh-key-v1\0") else { return false };
    rest.get(4..).is_some_and(|cipher| !cipher.starts_with(b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_a_passphrase_are_told_apart() {
        let key = |cipher: &[u8]| {
            let mut bytes = b"openssh-key-v1\0".to_vec();
            bytes.extend_from_slice(&u32::try_from(cipher.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(cipher);
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
        };
        assert!(!is_sealed(key(b"none").as_bytes()) && is_sealed(key(b"aes256-ctr").as_bytes()));
        assert!(is_sealed(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_sealed(b"something else"));
    }

    #[test]
    fn only_what_reads_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let agent = UnixListener::bind(dir.path().join("agent")).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut client, _) = agent.accept().unwrap();
            let mut asked = Vec::new();
            while let Ok(request) = message(&mut client) {
                asked.push(request[4]);
                client.write_all(&[0, 0, 0, 1, 12]).unwrap();
            }
            asked
        });
        let path = dir.path().join("step");
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), 0o600);
        let forward = Forward::new(path.clone(), &dir.path().join("agent"), owner).unwrap();
        let mut step = UnixStream::connect(&path).unwrap();
        // A list, all keys removed, a key added, a signature.
        for (request, answer) in [(11, 12), (19, 5), (17, 5), (13, 12)] {
            step.write_all(&[0, 0, 0, 1, request]).unwrap();
            assert_eq!(message(&mut step).unwrap(), [0, 0, 0, 1, answer], "{request}");
        }
        drop(step);
        drop(forward);
        assert_eq!(answering.join().unwrap(), [11, 13]);
        assert!(!path.exists());
    }
}
