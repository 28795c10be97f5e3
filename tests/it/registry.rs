//! Pull and push, against Debian's own registry.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cata_tests::archive::{Layer, docker_archive};
use cata_tests::command::Run;
use cata_tests::harness::Test;
use cata_tests::registry::{Registry, Settings};
use cata_tests::world::World;
use serde_json::json;

use crate::test;

const NEEDS: &[&str] = &["docker-registry"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(push_then_pull).needs(NEEDS),
        test!(pull_by_digest).needs(NEEDS),
        test!(run_pulls_what_is_missing).needs(NEEDS),
        test!(pull_policy).needs(NEEDS),
        test!(login_by_docker_config).needs(&["docker-registry", "htpasswd"]),
        test!(login_by_credential_helper).needs(&["docker-registry", "htpasswd"]),
        test!(login_and_logout).needs(&["docker-registry", "htpasswd"]),
        test!(login_into_a_keyring).needs(&["docker-registry", "htpasswd"]),
        test!(tls_with_a_private_authority).needs(&["docker-registry", "openssl"]),
        test!(mirror_serves_docker_io).needs(NEEDS),
        test!(platform_is_chosen_and_forced).needs(&["docker-registry", "skopeo"]),
        test!(cut_connection_is_resumed).needs(NEEDS),
        test!(damaged_blob_is_refused).needs(NEEDS),
        test!(registry_down_is_told),
        test!(pulled_by_skopeo).needs(&["docker-registry", "skopeo"]),
        test!(large_image).needs(NEEDS).images(&["postgres"]),
    ]
}

/// Pushes `busybox` as `name` and forgets it here.
fn publish(w: &World, name: &str) -> String {
    let _ = w.cata(&["tag", "busybox", name]).ok();
    let said = w.cata(&["push", name]).ok().stdout;
    let digest = said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let _ = w.cata(&["rmi", name]).ok();
    digest
}

/// No image at all.
fn forget(w: &World) {
    let _ = w.cata(&["rmi", "-f", "busybox"]).ok();
    assert_eq!(w.cata(&["images", "-q"]).text(), "");
}

fn push_then_pull(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let name = registry.name("some/busybox:v1");
    let id = w.cata(&["images", "-q", "--no-trunc"]).text();
    let digest = publish(w, &name);
    forget(w);
    let said = w.cata(&["pull", &name]).ok().stdout;
    assert!(said.contains(&digest) && said.contains("Downloaded newer image"), "{said}");
    assert_eq!(w.cata(&["images", "-q", "--no-trunc"]).text(), id);
    assert!(w.cata(&["pull", &name]).ok().stdout.contains("Image is up to date"));
    assert_eq!(w.cata(&["pull", "-q", &name]).text(), name);
    assert_eq!(w.cata(&["run", "--rm", &name, "echo", "ran"]).text(), "ran");
    w.cata(&["push", "never/tagged"]).fails(1, &["never/tagged"]);
    // Every tag at once, there and back.
    let repository = registry.name("some/busybox");
    for tag in ["v2", "v3"] {
        let _ = w.cata(&["tag", &name, &format!("{repository}:{tag}")]).ok();
    }
    let _ = w.cata(&["push", "-a", &repository]).ok();
    let _ = w.cata(&["rmi", "--no-prune", &format!("{repository}:v2"), &format!("{repository}:v3")]).ok();
    let said = w.cata(&["pull", "--all-tags", "-q", &repository]).lines();
    assert_eq!(said, ["v1", "v2", "v3"].map(|tag| format!("{repository}:{tag}")));
    w.cata(&["pull", "-a", &name]).fails(1, &["tag can't be used with"]);
    drop(registry);
}

fn pull_by_digest(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let digest = publish(w, &registry.name("busybox"));
    forget(w);
    let name = format!("{}@{digest}", registry.name("busybox"));
    let _ = w.cata(&["pull", &name]).ok();
    assert_eq!(w.cata(&["run", "--rm", &name, "echo", "ran"]).text(), "ran");
    let other = format!("{}@sha256:{}", registry.name("busybox"), "0".repeat(64));
    w.cata(&["pull", &other]).fails(1, &["not found"]);
}

fn run_pulls_what_is_missing(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let name = registry.name("busybox");
    let _ = publish(w, &name);
    forget(w);
    let done = w.cata(&["run", "--rm", &name, "echo", "ran"]).ok();
    // What the container says stays alone on standard output.
    assert_eq!(done.stdout, "ran\n");
    assert!(done.stderr.contains("Unable to find image"), "{done}");
}

fn pull_policy(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let name = registry.name("busybox");
    let _ = publish(w, &name);
    forget(w);
    w.cata(&["run", "--rm", "--pull", "never", &name, "true"]).fails(125, &[&name]);
    let _ = w.cata(&["run", "--rm", "--pull", "always", &name, "true"]).ok();
    drop(registry);
    let _ = w.cata(&["run", "--rm", &name, "true"]).ok();
    w.cata(&["run", "--rm", "--pull", "always", &name, "true"]).fails(125, &["127.0.0.1:5000"]);
}

fn docker_config(w: &World, document: &serde_json::Value) {
    let dir = w.dir.join("home/.docker");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.json"), document.to_string()).unwrap();
}

fn login_by_docker_config(w: &World) {
    let login = Some(("sailor", "sea salt"));
    let registry = Registry::start(w, Settings { login, ..Settings::default() });
    let name = registry.name("busybox");
    let _ = w.cata(&["tag", "busybox", &name]).ok();
    w.cata(&["push", &name]).fails(1, &["push access denied", &name]);
    let auth = |pair: &str| {
        let encoded = Run::new("base64").arg("-w0").input(pair).done().text();
        docker_config(w, &json!({"auths": {"127.0.0.1:5000": {"auth": encoded}}}));
    };
    auth("sailor:wrong");
    w.cata(&["push", &name]).fails(1, &["unauthorized", "127.0.0.1:5000", "push"]);
    auth("sailor:sea salt");
    let _ = w.cata(&["push", &name]).ok();
    let _ = w.cata(&["rmi", &name]).ok();
    forget(w);
    let _ = w.cata(&["pull", &name]).ok();
}

fn login_by_credential_helper(w: &World) {
    let login = Some(("sailor", "sea"));
    let registry = Registry::start(w, Settings { login, ..Settings::default() });
    let name = registry.name("busybox");
    let _ = w.cata(&["tag", "busybox", &name]).ok();
    let bin = w.scratch().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-locker");
    let script = "#!/bin/sh\n[ \"$1\" = get ] && grep -q 127.0.0.1:5000 && echo '{\"Username\":\"sailor\",\"Secret\":\"sea\"}'\n";
    fs::write(&helper, script).unwrap();
    let _ = Run::new("chmod").arg("+x").arg(&helper).done().ok();
    docker_config(w, &json!({"credHelpers": {"127.0.0.1:5000": "locker"}}));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let _ = w.cata_run(["push", &name]).env("PATH", &path).done().ok();
    fs::remove_file(helper).unwrap();
    w.cata_run(["push", &name]).env("PATH", &path).done().fails(1, &["docker-credential-locker"]);
}

fn login_and_logout(w: &World) {
    let login = Some(("sailor", "sea salt"));
    let registry = Registry::start(w, Settings { login, ..Settings::default() });
    let name = registry.name("busybox");
    let _ = w.cata(&["tag", "busybox", &name]).ok();
    let log_in = |password: &str| {
        w.cata_run(["login", "-u", "sailor", "--password-stdin", &registry.address])
            .input(password.as_bytes())
            .done()
    };
    log_in("wrong").fails(1, &["unauthorized", &registry.address]);
    let _ = w.cata(&["push", &name]).exits(1);
    let done = log_in("sea salt\n").ok();
    assert!(done.stdout.contains("Login Succeeded"), "{done}");
    assert!(done.stderr.contains("unencrypted") && done.stderr.contains("config.json"), "{done}");
    let _ = w.cata(&["push", &name]).ok();
    assert_eq!(w.cata(&["login", &registry.address]).text(), "Login Succeeded");
    let _ = w.cata(&["logout", &registry.address]).ok();
    w.cata(&["push", &name]).fails(1, &["access denied"]);
    assert!(w.cata(&["logout", &registry.address]).text().starts_with("Not logged in"));
    w.cata(&["login", "-u", "sailor", &registry.address]).fails(1, &["non TTY"]);
    w.cata_run(["login", "-u", "a", "--password-stdin", "127.0.0.1:9"])
        .input("x")
        .done()
        .fails(1, &["127.0.0.1:9"]);
}

/// With a helper in the login file, the password is nowhere else.
fn login_into_a_keyring(w: &World) {
    let login = Some(("sailor", "sea"));
    let registry = Registry::start(w, Settings { login, ..Settings::default() });
    let name = registry.name("busybox");
    let _ = w.cata(&["tag", "busybox", &name]).ok();
    let bin = w.scratch().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-locker");
    let script = "#!/bin/sh\nlocker=${0%/*}/locker\ncase $1 in\nstore) cat > $locker;;\n\
                  get) [ -e $locker ] && exec cat $locker; echo credentials not found in native keychain; exit 1;;\n\
                  erase) rm $locker;;\nesac\n";
    fs::write(&helper, script).unwrap();
    let _ = Run::new("chmod").arg("+x").arg(&helper).done().ok();
    docker_config(w, &json!({"credsStore": "locker", "detachKeys": "ctrl-x"}));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    w.cata_run(["push", &name]).env("PATH", &path).done().fails(1, &["access denied"]);
    let log_in = ["login", "-u", "sailor", "-p", "sea", &registry.address];
    let done = w.cata_run(log_in).env("PATH", &path).done().ok();
    assert!(!done.stderr.contains("unencrypted"), "{done}");
    let kept = fs::read_to_string(w.dir.join("home/.docker/config.json")).unwrap();
    assert!(kept.contains("detachKeys") && !kept.contains("auth\""), "{kept}");
    assert!(fs::read_to_string(bin.join("locker")).unwrap().contains("\"Secret\":\"sea\""));
    let _ = w.cata_run(["push", &name]).env("PATH", &path).done().ok();
    let _ = w.cata_run(["logout", &registry.address]).env("PATH", &path).done().ok();
    assert!(!bin.join("locker").exists());
    w.cata_run(["push", &name]).env("PATH", &path).done().fails(1, &["access denied"]);
}

fn tls_with_a_private_authority(w: &World) {
    let registry = Registry::start(w, Settings { tls: true, port: 5443, ..Settings::default() });
    let name = registry.name("busybox");
    let _ = w.cata(&["tag", "busybox", &name]).ok();
    let config = |text: &str| {
        fs::create_dir_all("/etc/catamaran").unwrap();
        fs::write("/etc/catamaran/config.toml", text).unwrap();
    };
    let _ = w.cata(&["push", &name]).exits(1);
    fs::create_dir_all("/etc/docker/certs.d/127.0.0.1:5443").unwrap();
    fs::copy(registry.authority.as_ref().unwrap(), "/etc/docker/certs.d/127.0.0.1:5443/ca.crt").unwrap();
    let _ = w.cata(&["push", &name]).ok();
    fs::remove_dir_all("/etc/docker/certs.d").unwrap();
    let _ = w.cata(&["pull", &name]).exits(1);
    config("[registry.\"127.0.0.1:5443\"]\ninsecure = true\n");
    let _ = w.cata(&["pull", &name]).ok();
}

fn mirror_serves_docker_io(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let _ = publish(w, &registry.name("library/busybox:latest"));
    forget(w);
    fs::create_dir_all("/etc/catamaran").unwrap();
    let config = format!("[registry.\"docker.io\"]\nmirrors = [\"http://{}\"]\n", registry.address);
    fs::write("/etc/catamaran/config.toml", config).unwrap();
    assert_eq!(w.cata(&["run", "--rm", "busybox", "echo", "ran"]).text(), "ran");
    assert_eq!(w.cata(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text(), "busybox:latest");
    fs::write("/etc/catamaran/config.toml", "[registry.\"docker.io\"]\nmirror = 7\n").unwrap();
    w.cata(&["pull", "busybox"]).fails(1, &["config.toml"]);
}

/// Puts an index of two images, for amd64 and arm64, into the registry by its own API.
fn publish_index(w: &World, registry: &Registry) {
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let layer = Layer::default().file("architecture", 0o644, architecture).finish();
        let archive = docker_archive("x:latest", &[Layer::busybox(), layer], |config| {
            config["architecture"] = json!(architecture);
        });
        let file = w.file(&format!("{architecture}.tar"), archive);
        let to = format!("docker://{}", registry.name(&format!("multi:{architecture}")));
        let from = format!("docker-archive:{}", file.display());
        let copy =
            Run::new("skopeo").args(["--insecure-policy", "copy", "--dest-tls-verify=false", &from, &to]);
        let _ = copy.done().ok();
        let raw = Run::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &to]).done().ok().stdout;
        let digest = Run::new("sha256sum").input(raw.clone()).done().text();
        entries.push(json!({
            "mediaType": serde_json::from_str::<serde_json::Value>(&raw).unwrap()["mediaType"],
            "size": raw.len(),
            "digest": format!("sha256:{}", &digest[..64]),
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    let body = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).to_string();
    let mut stream = TcpStream::connect(&registry.address).unwrap();
    let head = format!(
        "PUT /v2/multi/manifests/latest HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        registry.address,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn platform_is_chosen_and_forced(w: &World) {
    let registry = Registry::start(w, Settings::default());
    publish_index(w, &registry);
    let name = registry.name("multi");
    let own = cata_tests::archive::architecture();
    assert_eq!(w.cata(&["run", "--rm", &name, "cat", "/architecture"]).text(), own);
    let foreign = if own == "amd64" { "arm64" } else { "amd64" };
    let _ = w.cata(&["pull", "--platform", &format!("linux/{foreign}"), &name]).ok();
    let seen = w.cata(&["image", "inspect", "--format", "{{.Architecture}}", &name]).text();
    assert_eq!(seen, foreign);
    let unknown = ["pull", "--platform", "linux/riscv64", &name];
    w.cata(&unknown).fails(1, &["linux/riscv64", "linux/amd64", "linux/arm64"]);
    w.cata(&["pull", "--platform", "not a platform", &name]).fails(1, &["not a platform"]);
}

/// Forwards to `to`, cutting every connection after `limit` bytes of answer; counts what passed.
fn cutting_proxy(to: String, limit: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&passed);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
                // Counted as it passes: the last connection may outlive the pull.
                let mut allowed = std::io::Read::by_ref(&mut server).take(limit);
                let mut buffer = [0; 8192];
                while let Ok(n @ 1..) = allowed.read(&mut buffer) {
                    counter.fetch_add(n as u64, Ordering::SeqCst);
                    if client.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, passed)
}

fn cut_connection_is_resumed(w: &World) {
    let registry = Registry::start(w, Settings::default());
    // Noise does not compress: the blob is as long as the layer, and longer than any connection lives.
    let noise = Run::new("sh").args(["-c", "head -c 1500000 /dev/urandom | base64 -w0"]).done().text();
    let file = w.file("noise.tar", Layer::default().file("noise", 0o644, &noise).finish());
    let _ = w.cata_run(["import"]).arg(file).arg(registry.name("noise")).done().ok();
    let said = w.cata(&["push", &registry.name("noise")]).ok().stdout;
    let manifest = said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(registry.blob(manifest)).unwrap()).unwrap();
    let size = document["layers"][0]["size"].as_u64().unwrap();
    let _ = w.cata(&["rmi", "-f", &registry.name("noise")]).ok();
    let (address, passed) = cutting_proxy(registry.address.clone(), size / 4);
    let name = format!("{address}/noise");
    let mut tries = 0;
    while w.cata(&["pull", &name]).code() != 0 {
        tries += 1;
        assert!(tries < 12, "the pull never ends");
    }
    let passed = passed.load(Ordering::SeqCst);
    assert!((size..2 * size).contains(&passed), "{passed} bytes for a blob of {size}");
}

fn damaged_blob_is_refused(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let name = registry.name("busybox");
    let manifest = publish(w, &name);
    forget(w);
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(registry.blob(&manifest)).unwrap()).unwrap();
    let layer = document["layers"][0]["digest"].as_str().unwrap();
    let file = registry.blob(layer);
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&file, &damaged).unwrap();
    w.cata(&["pull", &name]).fails(1, &["digest", &layer[7..19]]);
    fs::write(&file, &whole[..middle]).unwrap();
    let _ = w.cata(&["pull", &name]).exits(1);
    assert_eq!(w.cata(&["images", "-aq"]).text(), "");
    assert!(
        fs::read_dir(w.root().join("layers")).map_or(0, Iterator::count) == 0,
        "a layer of a refused blob"
    );
    assert!(!w.root().join("content/blobs/sha256").join(&layer[7..]).exists(), "a refused blob is visible");
    fs::write(&file, &whole).unwrap();
    let _ = w.cata(&["pull", &name]).ok();
}

fn registry_down_is_told(w: &World) {
    w.cata(&["pull", "127.0.0.1:1/x"]).fails(1, &["127.0.0.1:1", "refused"]);
    w.cata(&["run", "--rm", "127.0.0.1:1/x"]).fails(125, &["127.0.0.1:1", "refused"]);
}

fn pulled_by_skopeo(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let digest = publish(w, &registry.name("busybox"));
    let reference = format!("docker://{}", registry.name("busybox"));
    let seen = Run::new("skopeo").args(["inspect", "--tls-verify=false", &reference]).done().json();
    assert_eq!(seen["Digest"], digest);
    let to = format!("dir:{}", w.scratch().join("copied").display());
    let copy =
        Run::new("skopeo").args(["--insecure-policy", "copy", "--src-tls-verify=false", &reference, &to]);
    let _ = copy.done().ok();
}

fn large_image(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let name = registry.name("postgres:15");
    let _ = w.cata(&["tag", "postgres", &name]).ok();
    let slow = std::time::Duration::from_secs(150);
    let _ = w.cata_run(["push", &name]).patience(slow).done().ok();
    let _ = w.cata(&["rmi", "-f", "postgres", &name]).ok();
    let _ = w.cata_run(["pull", &name]).patience(slow).done().ok();
    let version = w.cata(&["run", "--rm", &name, "postgres", "--version"]).text();
    assert!(version.starts_with("postgres (PostgreSQL) 15"), "{version}");
}
