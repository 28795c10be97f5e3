//! `build`: sources and contexts from afar, by HTTP and by git, from servers inside the world.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cata_tests::command::{Done, PATIENCE, Run, Running, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(files_by_http).needs(&["xz", "bzip2"]),
        test!(private_files_by_http),
        test!(repositories_by_git).needs(&["git"]),
        test!(contexts_from_afar).needs(&["git"]),
    ]
}

/// What lets in to what is private.
const SESAME: &str = "Bearer token-of-the-web";

/// A web server of a directory: entity tags, one date, and what it was asked. What is beneath `private/` is private.
struct Web {
    dir: PathBuf,
    address: String,
    /// Paths and the answers' numbers, in order.
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Web {
    fn start(w: &World) -> Self {
        let dir = w.scratch().join("web");
        fs::create_dir_all(&dir).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<(String, u16)>>> = Arc::default();
        let (serving, said) = (dir.clone(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (dir, said) = (serving.clone(), Arc::clone(&said));
                std::thread::spawn(move || answer(client.unwrap(), &dir, &said));
            }
        });
        Self { dir, address, asked }
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
        format!("{}/{path}", self.address)
    }

    /// What was asked since this was last called.
    fn asked(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request and its answer; whoever hangs up early has what it wanted.
fn answer(client: TcpStream, dir: &Path, said: &Mutex<Vec<(String, u16)>>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.split('?').next()?.trim_start_matches('/').replace("%20", " ");
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let content = fs::read(dir.join(&path));
    let mut hasher = DefaultHasher::new();
    content.as_ref().ok().hash(&mut hasher);
    let tag = format!("\"{:x}\"", hasher.finish());
    let (status, content) = match content {
        _ if path.starts_with("private/")
            && headers.get("authorization").is_none_or(|said| said != SESAME) =>
        {
            (401, b"who are you?".to_vec())
        }
        Ok(_) if headers.get("if-none-match") == Some(&tag) => (304, Vec::new()),
        Ok(content) => (200, content),
        Err(_) => (404, b"nothing here".to_vec()),
    };
    said.lock().unwrap_or_else(PoisonError::into_inner).push((path, status));
    let mut client = client;
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    write!(client, "HTTP/1.1 {status} Said\r\nETag: {tag}\r\nLast-Modified: {date}\r\nConnection: close\r\n")
        .ok()?;
    if status != 304 {
        write!(client, "Content-Length: {}\r\n", content.len()).ok()?;
    }
    client.write_all(b"\r\n").ok()?;
    client.write_all(&content).ok()
}

pub(crate) fn build(w: &World, context: &str, args: &[&str]) -> Done {
    w.cata_run(["build", "--progress", "plain", "--network", "none"])
        .args(args)
        .arg(context)
        .patience(Duration::from_secs(120))
        .done()
}

/// Builds once more: nothing is left to do.
fn all_cached(w: &World, context: &str, says: &str) {
    let done = build(w, context, &[]).ok();
    assert!(done.stderr.contains(says), "{}", done.stderr);
}

pub(crate) fn sh(w: &World, image: &str, script: &str) -> String {
    w.cata(&["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script]).text()
}

/// A context of a Dockerfile alone.
pub(crate) fn dockerfile(w: &World, name: &str, text: &str) -> String {
    let dir = w.scratch().join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), text).unwrap();
    dir.to_str().unwrap().to_owned()
}

fn files_by_http(w: &World) {
    let web = Web::start(w);
    let tool = web.put("tool.sh", "#!/bin/sh\necho tool\n");
    let spaced = web.put("d/a b", "spaced").replace(' ', "%20");
    let inner = w.scratch().join("inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("f"), "f").unwrap();
    let tar = |flag: &str, to: &Path| {
        let _ = Run::new("tar").arg("-C").arg(&inner).args([flag, "-cf"]).arg(to).arg("f").done().ok();
    };
    tar("-J", &web.dir.join("a.tar.xz"));
    let packed = format!("{}/a.tar.xz", web.address);
    let sum = Run::new("sha256sum").arg(web.dir.join("tool.sh")).done().text();
    let sum = &sum[..64];
    let text = format!(
        "FROM busybox\nADD {tool} {spaced} /opt/\nADD --chmod=755 --checksum=sha256:{sum} {tool} /bin/tool\n\
         ADD --unpack=true {packed} /unpacked/\nADD {packed} /packed\nADD local.tar.bz2 local.tar.xz /local/\nRUN tool > /said\n"
    );
    let dir = dockerfile(w, "http", &text);
    tar("-j", &Path::new(&dir).join("local.tar.bz2"));
    tar("-J", &Path::new(&dir).join("local.tar.xz"));
    let _ = build(w, &dir, &["-t", "http"]).ok();
    let said = sh(
        w,
        "http",
        "cat /said '/opt/a b' /unpacked/f /local/f; echo; stat -c '%a %u %Y' /opt/tool.sh /bin/tool; ls /packed",
    );
    assert_eq!(said, "tool\nspacedff\n600 0 784111777\n755 0 784111777\n/packed");
    // Each file was sent once, however often it is named.
    assert_eq!(web.asked().iter().filter(|(_, status)| *status == 200).count(), 3);
    // Asked again, nothing is sent again; what has a checksum is not even asked for.
    all_cached(w, &dir, "6 of 6 steps cached");
    let mut asked = web.asked();
    asked.sort();
    let unchanged = [("a.tar.xz", 304), ("a.tar.xz", 304), ("d/a b", 304), ("tool.sh", 304)];
    assert_eq!(asked, unchanged.map(|(path, status)| (path.to_owned(), status)));
    // A changed file is a changed step, and no longer what the checksum says.
    let _ = web.put("tool.sh", "other");
    build(w, &dir, &[]).fails(1, &["--checksum says", &format!("not sha256:{sum}"), "ADD --chmod=755"]);
    for (text, says) in [
        (format!("FROM scratch\nADD {}/none /\n", web.address), "404"),
        ("FROM scratch\nADD http://127.0.0.1:1/x /\n".to_owned(), "cannot fetch http://127.0.0.1:1/x"),
        (format!("FROM scratch\nADD --checksum=sha256:1 {tool} /\n"), "invalid checksum"),
    ] {
        build(w, &dockerfile(w, "wrong", &text), &[]).fails(1, &[says, "Dockerfile:"]);
    }
    let listed = w.cata(&["builder", "du"]).text();
    assert!(listed.contains("tool.sh"), "{listed}");
    let _ = w.cata(&["builder", "prune", "--all", "--force"]).ok();
    assert!(!w.cata(&["builder", "du"]).text().contains("tool.sh"));
}

fn git(dir: &Path, args: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
    let run = Run::new("git").env("GIT_CONFIG_GLOBAL", "/dev/null").arg("-C").arg(dir).args(identity);
    let date = "2001-02-03T04:05:06Z";
    run.args(args).env("GIT_AUTHOR_DATE", date).env("GIT_COMMITTER_DATE", date).done().text()
}

/// Secrets named by the host let in, and are nowhere afterwards.
fn private_files_by_http(w: &World) {
    let web = Web::start(w);
    let address = web.put("private/f", "private\n");
    let host = web.address.trim_start_matches("http://").to_owned();
    let dir = dockerfile(w, "private", &format!("FROM busybox\nADD {address} /f\n"));
    build(w, &dir, &[]).fails(1, &["401", "private/f"]);
    fs::write(w.scratch().join("token"), "token-of-the-web\n").unwrap();
    let secret = |name: &str| format!("id={name},src={}", w.scratch().join("token").display());
    // Of another host, it is not said to this one.
    build(w, &dir, &["--secret", &secret("HTTP_AUTH_TOKEN_elsewhere:1")]).fails(1, &["401"]);
    let _ = build(w, &dir, &["-t", "p", "--secret", &secret(&format!("HTTP_AUTH_TOKEN_{host}"))]).ok();
    assert_eq!(sh(w, "p", "cat /f"), "private");
    fs::write(w.scratch().join("token"), SESAME).unwrap();
    let header = secret(&format!("HTTP_AUTH_HEADER_{host}"));
    let _ = build(w, &dir, &["--no-cache", "-t", "q", "--secret", &header]).ok();
    assert_eq!(sh(w, "q", "cat /f"), "private");
    let inspected = w.cata(&["image", "inspect", "p", "q"]).text();
    assert!(!inspected.contains("token-of-the-web"), "{inspected}");
}

/// A repository with a tag `v1`, a branch `main` one commit further, and a link that leads out.
pub(crate) fn repository(w: &World) -> PathBuf {
    let dir = w.scratch().join("repositories/r.git");
    fs::create_dir_all(dir.join("sub")).unwrap();
    git(&dir, &["init", "--quiet"]);
    fs::write(dir.join("f"), "one").unwrap();
    fs::write(dir.join("sub/Dockerfile"), "FROM busybox\nCOPY . /c\n").unwrap();
    std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
    git(&dir, &["add", "--all"]);
    git(&dir, &["commit", "--quiet", "--message", "one"]);
    git(&dir, &["tag", "--annotate", "--message", "v1", "v1"]);
    fs::write(dir.join("f"), "two").unwrap();
    git(&dir, &["commit", "--quiet", "--all", "--message", "two"]);
    dir
}

/// The server that comes with git.
fn serve(w: &World) -> (Running, &'static str) {
    let programs = Run::new("git").arg("--exec-path").done().text();
    let base = w.scratch().join("repositories");
    let server = Run::new(format!("{}/git-daemon", programs.trim()))
        .arg(format!("--base-path={}", base.display()))
        .args(["--export-all", "--listen=127.0.0.1", "--port=9418", "--informative-errors"])
        .start();
    eventually("a connection to git's server", PATIENCE, || TcpStream::connect("127.0.0.1:9418").ok());
    (server, "git://127.0.0.1/r.git")
}

fn repositories_by_git(w: &World) {
    let repository = repository(w);
    let (mut server, url) = serve(w);
    let commit = git(&repository, &["rev-parse", "v1^{commit}"]);
    let text = format!(
        "FROM busybox\nADD {url}#v1 /tag\nADD {url} /head/\nADD --keep-git-dir=true {url}#{commit}:sub /sub\n\
         ADD --keep-git-dir=true {url}#main /kept\nADD --checksum={commit} {url}#v1 /checked\n"
    );
    let dir = dockerfile(w, "git", &text);
    let _ = build(w, &dir, &["-t", "git"]).ok();
    let said = sh(
        w,
        "git",
        "cat /tag/f /head/f /kept/f /checked/f; ls -A /tag /sub; ls -d /kept/.git; stat -c '%a %u %Y' /tag/f /tag/sub; readlink /tag/out",
    );
    let expected = "onetwotwoone/sub:\nDockerfile\n\n/tag:\nf\nout\nsub\n/kept/.git\n644 0 981173106\n755 0 981173106\n/etc";
    assert_eq!(said, expected);
    all_cached(w, &dir, "5 of 5 steps cached");
    // A branch that went on is a changed step.
    fs::write(repository.join("f"), "three").unwrap();
    git(&repository, &["commit", "--quiet", "--all", "--message", "three"]);
    let _ = build(w, &dir, &["-t", "git"]).ok();
    assert_eq!(sh(w, "git", "cat /tag/f /head/f"), "onethree");
    // A submodule whose address is relative to the repository's.
    let part = repository.with_file_name("part.git");
    fs::create_dir_all(&part).unwrap();
    git(&part, &["init", "--quiet"]);
    fs::write(part.join("p"), "part").unwrap();
    git(&part, &["add", "--all"]);
    git(&part, &["commit", "--quiet", "--message", "part"]);
    git(
        &repository,
        &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../part.git", "part"],
    );
    git(&repository, &["commit", "--quiet", "--message", "four"]);
    let _ = build(w, &dir, &["-t", "git"]).ok();
    assert_eq!(sh(w, "git", "cat /head/part/p; ls -A /head/part"), "partp");
    for (source, says) in [
        (format!("{url}#none"), "has no branch or tag none"),
        ("git://127.0.0.1/other.git".to_owned(), "git cannot fetch git://127.0.0.1/other.git"),
        (format!("--checksum=0123456 {url}#v1"), "not 0123456 as --checksum says"),
    ] {
        let dir = dockerfile(w, "wrong", &format!("FROM scratch\nADD {source} /\n"));
        build(w, &dir, &[]).fails(1, &[says, "Dockerfile:"]);
    }
    let lone = dockerfile(w, "lone", &format!("FROM scratch\nADD {url}#v1 /\n"));
    let without = w.cata_run(["build", "--no-cache", &lone]).env("PATH", "/nowhere").done();
    without.fails(1, &["the program git", "not installed"]);
    server.kill();
    git_ends_with_a_killed_build(w);
}

/// Git waits for a server that says nothing; whoever asked for it is killed.
fn git_ends_with_a_killed_build(w: &World) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let dir = dockerfile(w, "silent", &format!("FROM scratch\nADD git://127.0.0.1:{port}/r.git#v1 /\n"));
    let mut building = w.cata_run(["build", "--no-cache", &dir]).start();
    let (_asked, _) = silent.accept().unwrap();
    let gits = || {
        let is_git = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim().starts_with("git")
        };
        cata_tests::world::pids().into_iter().filter(is_git).count()
    };
    assert!(gits() > 0, "git does not run");
    building.kill();
    eventually("git has ended", PATIENCE, || (gits() == 0).then_some(()));
}

fn contexts_from_afar(w: &World) {
    let repository = repository(w);
    let (mut server, url) = serve(w);
    let web = Web::start(w);
    // A repository: its Dockerfile, a directory of it, a named context, one given instead of its own.
    let _ = build(w, &format!("{url}#v1:sub"), &["-t", "sub"]).ok();
    assert_eq!(sh(w, "sub", "ls /c"), "Dockerfile");
    let named = format!("src={url}#v1");
    let dir = dockerfile(w, "named", "FROM busybox\nCOPY --from=src f /f\n");
    let _ = build(w, &dir, &["-t", "named", "--build-context", &named]).ok();
    assert_eq!(sh(w, "named", "cat /f"), "one");
    let given = w
        .cata_run(["build", "--network", "none", "-t", "given", "-f", "-", url])
        .input("FROM busybox\nCOPY f /g\n")
        .patience(Duration::from_secs(120));
    let _ = given.done().ok();
    assert_eq!(sh(w, "given", "cat /g"), "two");
    let _ = build(w, &format!("{url}#v1:sub"), &["--check"]).ok().says("no warnings");
    let _ = build(w, &format!("{url}?ref=v1&subdir=sub"), &["--check"]).ok().says("no warnings");
    let _ = build(w, &format!("{url}?tag=v1&subdir=sub&checksum="), &["--check"]).ok().says("no warnings");
    build(w, &format!("{url}?ref=v1&checksum=0123456"), &[]).fails(1, &["is at commit", "not 0123456"]);
    build(w, &format!("{url}?depth=1"), &[]).fails(1, &["?depth=1` is not supported", "subdir"]);
    // A Dockerfile by itself, with a context of this host or of another.
    let lone = web.put("elsewhere/Dockerfile.x", "FROM busybox\nCOPY f /g\n");
    let here = dockerfile(w, "here", "FROM nothing\n");
    fs::write(Path::new(&here).join("f"), "here").unwrap();
    let _ = build(w, &here, &["-t", "lone", "-f", &lone]).ok();
    assert_eq!(sh(w, "lone", "cat /g"), "here");
    let _ = build(w, &format!("{url}#v1"), &["-t", "lone", "-f", &lone]).ok();
    assert_eq!(sh(w, "lone", "cat /g"), "one");
    build(w, &here, &["-f", &format!("{}/none", web.address)]).fails(1, &["404", "none"]);
    build(w, &here, &["-f", url]).fails(125, &["a dockerfile's address is a file's"]);
    build(w, &format!("{url}#v1:out"), &[]).fails(1, &["there is no directory out in git://127.0.0.1/r.git"]);
    build(w, &format!("{url}#v1"), &[]).fails(1, &["failed to read dockerfile"]);
    // The same by a server of plain files, which knows neither depth nor commits.
    git(&repository, &["update-server-info"]);
    let copied = Run::new("cp").arg("-a").arg(repository.join(".git")).arg(web.dir.join("dumb.git")).done();
    let _ = copied.ok();
    let _ = build(w, &format!("{}/dumb.git#v1:sub", web.address), &["-t", "dumb"]).ok();
    assert_eq!(sh(w, "dumb", "ls /c"), "Dockerfile");
    // An archive, and a Dockerfile alone.
    let archive = web.dir.join("context.tar.gz");
    let tar = Run::new("tar").arg("-C").arg(repository.join("sub")).arg("-czf").arg(&archive).arg(".").done();
    let _ = tar.ok();
    let _ = build(w, &format!("{}/context.tar.gz", web.address), &["-t", "archive"]).ok();
    assert_eq!(sh(w, "archive", "ls /c"), "Dockerfile");
    let lone = web.put("lone", "FROM busybox\nRUN echo lone > /lone\n");
    let _ = build(w, &lone, &["-t", "lone"]).ok();
    assert_eq!(sh(w, "lone", "cat /lone"), "lone");
    let noise = web.put("noise", [0, 159, 146, 150]);
    build(w, &noise, &[]).fails(1, &["neither an archive nor a Dockerfile"]);
    build(w, "ftp://127.0.0.1/x", &[]).fails(125, &["ftp://127.0.0.1/x", "not supported"]);
    server.kill();
}
