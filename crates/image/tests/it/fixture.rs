//! Images, registries and stores for tests.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cata_image::registry::Config;
use cata_image::{Event, Image, ImportRequest, Progress, PushRequest, Store, import};
use cata_spec::Reference;

/// What `htpasswd -nbB user secret` prints.
pub(crate) const HTPASSWD: &str = "user:$2b$04$zPctdoG0E.fvfoN3hgKPVeLDPuDxa0ZpxdO56bLyTmF4DTzqDSrpO\n";

/// Whether root and the programs are there; says what is missing.
pub(crate) fn ready(programs: &[&str]) -> bool {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {test}: needs root");
        return false;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            eprintln!("skipped: {test}: needs {program}");
            return false;
        }
    }
    true
}

pub(crate) fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// What is named like this, all of it, is to be sent.
pub(crate) fn whole(text: &str) -> PushRequest {
    PushRequest { reference: name(text), platform: None, as_it_is: false }
}

/// A configuration that pauses little and knows no logins. Silence is waited for: the machine may be busy.
pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.stall_timeout = Duration::from_secs(60);
    config.retry_pause = Duration::from_millis(10);
    config.docker_config = Some(dir.join("no-login.json"));
    config
}

/// A store in a directory of its own.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root"));
        Self { dir, store }
    }

    pub(crate) fn config(&self) -> Config {
        config(self.dir.path())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    /// Names in a directory of the store, sorted.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// An image whose one layer has `files` and, incompressible, `bulk` bytes.
    pub(crate) fn image(&self, reference: &str, files: &[(&str, &str)], bulk: usize) -> Image {
        let request = ImportRequest {
            reference: Some(name(reference)),
            changes: vec!["CMD [\"sh\"]".to_owned(), "ENV A=b".to_owned()],
            ..ImportRequest::default()
        };
        import(&self.store, &mut tar(files, bulk).as_slice(), &request).unwrap()
    }
}

/// A tar stream.
pub(crate) fn tar(files: &[(&str, &str)], bulk: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    };
    for (path, content) in files {
        add(path, content.as_bytes());
    }
    if bulk > 0 {
        add("bulk", &noise(bulk));
    }
    tar.into_inner().unwrap()
}

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A real registry on loopback; ends with the test.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with("", |_| {})
    }

    /// `extra` is added to its configuration, with `@DIR@` standing for a directory that `prepare` fills.
    pub(crate) fn with(extra: &str, prepare: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = dir.path().display().to_string();
        let tls = if extra.contains("tls:") { extra.replace("@DIR@", &here) } else { String::new() };
        let rest = if tls.is_empty() { extra.replace("@DIR@", &here) } else { String::new() };
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {here}/data}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{tls}{rest}"
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub(crate) fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output: Output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Keeps every event.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Event>>);

impl Progress for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}
