//! `build`: repositories that let nobody in without a token or a key.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::build_sources::{build, dockerfile, repository, sh};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(repositories_with_a_token_or_a_key).needs(&["git", "ssh-keygen", "/usr/sbin/sshd"])]
}

const TOKEN: &str = "token-that-nobody-sees";

/// Git's own program for web servers, behind one that asks for the token. Returns the address of its repositories.
fn guarded(repositories: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pair = base64(&format!("x-access-token:{TOKEN}"));
    let (dir, wanted) = (repositories.to_owned(), Arc::new(format!("basic {pair}")));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (dir, wanted) = (dir.clone(), Arc::clone(&wanted));
            std::thread::spawn(move || answer(client.unwrap(), &dir, &wanted));
        }
    });
    address
}

fn base64(text: &str) -> String {
    Run::new("base64").args(["-w", "0"]).input(text).done().text()
}

/// One request; whoever hangs up early has what it wanted.
fn answer(mut client: TcpStream, dir: &PathBuf, wanted: &str) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    if header("authorization") != wanted {
        let ask = "WWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\nConnection: close\r\n";
        return write!(client, "HTTP/1.1 401 Unauthorized\r\n{ask}\r\n").ok();
    }
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", dir)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let written = backend.stdin.take().map(|mut stdin| stdin.write_all(&body));
    let said = backend.wait_with_output().ok()?.stdout;
    written?.ok()?;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    write!(client, "HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n").ok()?;
    client.write_all(&said[end + 4..]).ok()
}

fn repositories_with_a_token_or_a_key(w: &World) {
    let repository = repository(w);
    by_token(w, &repository);
    by_key(w, &repository);
}

fn by_token(w: &World, repository: &Path) {
    let address = guarded(repository.parent().unwrap());
    let url = format!("http://{address}/r.git/.git");
    let dir = dockerfile(w, "token", &format!("FROM busybox\nADD {url}#v1 /tag\n"));
    let secret = |name: &str, content: &str| {
        let path = w.scratch().join("secret");
        fs::write(&path, format!("{content}\n")).unwrap();
        format!("id={name},src={}", path.display())
    };
    build(w, &dir, &[]).fails(1, &["git cannot fetch", "Authentication failed", "Dockerfile:2"]);
    let wrong = secret("GIT_AUTH_TOKEN", "wrong");
    build(w, &dir, &["--secret", &wrong]).fails(1, &["Authentication failed"]);
    // A token is said to its own host alone.
    let elsewhere = secret("GIT_AUTH_TOKEN.example.com", TOKEN);
    build(w, &dir, &["--secret", &elsewhere]).fails(1, &["Authentication failed"]);
    let right = secret("GIT_AUTH_TOKEN", TOKEN);
    let done = build(w, &dir, &["-t", "token", "--secret", &right]).ok();
    assert_eq!(sh(w, "token", "cat /tag/f"), "one");
    let own = secret(&format!("GIT_AUTH_TOKEN.{address}"), TOKEN);
    let context = build(w, &format!("{url}#v1:sub"), &["-t", "context", "--secret", &own]).ok();
    assert_eq!(sh(w, "context", "ls /c"), "Dockerfile");
    for said in [done.stderr, context.stderr, w.cata(&["history", "--no-trunc", "token"]).ok().stdout] {
        assert!(!said.contains(TOKEN) && !said.contains(&base64(TOKEN)), "{said}");
    }
    let found = Run::new("grep").args(["-rlF", TOKEN]).arg(w.root()).done();
    assert_eq!((found.code(), &*found.stdout), (1, ""), "the token is kept");
}

fn by_key(w: &World, repository: &Path) {
    let key = |name: &str| {
        let path = w.scratch().join(name);
        let _ = Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).done().ok();
        path
    };
    let (host, user) = (key("host"), key("user"));
    let open = user.with_extension("pub");
    // `/run` and `/etc` are the world's. An account that is locked lets nobody in, whatever the key.
    fs::create_dir_all("/run/sshd").unwrap();
    let shadow = fs::read_to_string("/etc/shadow").unwrap();
    let unlocked = shadow.lines().map(|line| match line.strip_prefix("root:") {
        Some(rest) => format!("root:*:{}\n", rest.split_once(':').unwrap().1),
        None => format!("{line}\n"),
    });
    fs::write("/etc/shadow", unlocked.collect::<String>()).unwrap();
    let config = w.scratch().join("sshd_config");
    let text = format!(
        "ListenAddress 127.0.0.1:2222\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
         PermitRootLogin yes\nPasswordAuthentication no\n",
        host.display(),
        open.display()
    );
    fs::write(&config, text).unwrap();
    let mut server = Run::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(&config).start();
    eventually("a connection to sshd", PATIENCE, || TcpStream::connect("127.0.0.1:2222").ok());
    let url = format!("ssh://root@127.0.0.1:2222{}#v1", repository.display());
    let ssh = format!("default={}", user.display());
    let context = format!("{url}:sub");
    build(w, &context, &["--ssh", &ssh]).fails(1, &["Host key verification failed"]);
    let public = fs::read_to_string(host.with_extension("pub")).unwrap();
    fs::create_dir_all("/etc/ssh").unwrap();
    fs::write("/etc/ssh/ssh_known_hosts", format!("[127.0.0.1]:2222 {public}")).unwrap();
    build(w, &context, &[]).fails(1, &["Permission denied"]);
    let _ = build(w, &context, &["-t", "context", "--ssh", &ssh]).ok();
    assert_eq!(sh(w, "context", "ls /c"), "Dockerfile");
    let dir = dockerfile(w, "key", &format!("FROM busybox\nADD {url} /tag\n"));
    let _ = build(w, &dir, &["-t", "key", "--ssh", &ssh]).ok();
    assert_eq!(sh(w, "key", "cat /tag/f"), "one");
    server.kill();
}
