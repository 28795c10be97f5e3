//! `cata serve`: Docker's own client, through the socket, and what becomes of it all when the server is killed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cata_tests::command::{Done, PATIENCE, Run, Running, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::registry::{Registry, Settings};
use cata_tests::terminal::Terminal;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(api_serves_dockers_client),
        test!(api_gives_terminals_and_streams),
        test!(api_manages_images_networks_and_volumes),
        test!(api_is_killed_and_nothing_is_lost),
        test!(api_refuses_by_name),
        test!(api_serves_docker_py),
        test!(api_serves_docker_compose).needs(&["docker-compose"]),
        test!(api_passes_logins_on).needs(&["docker-registry", "htpasswd"]),
        test!(api_is_started_by_its_socket).needs(&["systemd-socket-activate"]),
        test!(api_lets_go_of_who_has_left),
    ]
}

const SOCKET: &str = "/run/catamaran.sock";

/// A server that answers.
fn serve(w: &World) -> Running {
    let server = w.cata_run(["serve"]).start();
    eventually("the server answers", PATIENCE, || {
        ask("GET", "/_ping").filter(|answer| answer.ends_with("OK"))
    });
    server
}

fn docker(w: &World, args: &[&str]) -> Run {
    let run = Run::new("docker").args(args).env("DOCKER_HOST", format!("unix://{SOCKET}"));
    run.env("DOCKER_CONFIG", w.scratch().join("docker-config")).env("DOCKER_BUILDKIT", "0")
}

fn done(w: &World, args: &[&str]) -> Done {
    docker(w, args).done()
}

/// One request, raw; the whole answer, if there is anybody who answers.
fn ask(method: &str, path: &str) -> Option<String> {
    let mut socket = UnixStream::connect(SOCKET).ok()?;
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    Some(text)
}

fn api_serves_dockers_client(w: &World) {
    let mut server = serve(w);
    let version = done(w, &["version", "--format", "{{.Server.Platform.Name}} {{.Server.Version}}"]).text();
    assert!(version.starts_with("Catamaran "), "{version}");
    let run = done(w, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    let big = "0123456789abcde\n".repeat(20_000);
    let sum = Run::new("md5sum").input(big.clone()).done().text();
    assert_eq!(docker(w, &["run", "-i", "--rm", "busybox", "md5sum"]).input(big).done().text(), sum);
    done(w, &["run", "--rm", "busybox", "no-such-program"]).fails(127, &["no-such-program"]);
    assert_eq!(done(w, &["ps", "-aq"]).text(), "");

    let script = "echo started; trap 'echo bye; exit 3' TERM; touch /ready; while :; do sleep 0.05; done";
    let args =
        ["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "-v", "data:/data", "-v", "/tmp:/host:ro"];
    let more = [
        "-e",
        "A=1",
        "-m",
        "64m",
        "--label",
        "tier=front",
        "--hostname",
        "box",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let id = done(w, &[&args[..], &more].concat()).text();
    // The same container, whoever is asked.
    assert_eq!(w.field("web", "{{.Id}}"), id);
    let format = "{{.Names}} {{.Image}} {{.Ports}} {{.State}} {{.Labels}}";
    let line = done(w, &["ps", "--format", format]).text();
    assert_eq!(line, "web busybox 127.0.0.1:8080->80/tcp running tier=front");
    for (filter, count) in
        [("name=^/web$", 1), ("label=tier=back", 0), ("status=exited", 0), ("ancestor=busybox", 1)]
    {
        assert_eq!(done(w, &["ps", "-aq", "--filter", filter]).lines().len(), count, "{filter}");
    }
    let format = "{{.HostConfig.Memory}} {{.Config.Hostname}} {{.State.Running}} {{json .HostConfig.Binds}}";
    let facts = done(w, &["inspect", "-f", format, "web"]).text();
    assert!(facts.starts_with("67108864 box true "), "{facts}");
    // In the client's order, which changes.
    assert!(facts.contains("\"data:/data\"") && facts.contains("\"/tmp:/host:ro\""), "{facts}");
    eventually("it is ready", PATIENCE, || {
        done(w, &["exec", "web", "test", "-f", "/ready"]).status.success().then_some(())
    });
    assert_eq!(
        done(w, &["exec", "web", "sh", "-c", "echo $A; hostname; exit 4"]).exits(4).stdout,
        "1\nbox\n"
    );
    assert_eq!(docker(w, &["exec", "-i", "web", "cat"]).input("typed").done().text(), "typed");
    done(w, &["exec", "web", "no-such-program"]).fails(127, &["no-such-program"]);
    assert_eq!(done(w, &["logs", "web"]).text(), "started");
    assert!(done(w, &["top", "web"]).ok().stdout.contains("touch /ready"), "its processes");
    assert!(
        done(w, &["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"])
            .text()
            .starts_with("web ")
    );
    let file = w.file("file", "content");
    let _ = done(w, &["cp", file.to_str().unwrap(), "web:/data/there"]).ok();
    let back = w.scratch().join("back");
    let _ = done(w, &["cp", "web:/data/there", back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(back).unwrap(), "content");
    assert!(done(w, &["diff", "web"]).lines().contains(&"A /ready".to_owned()));
    for command in ["pause", "unpause"] {
        let _ = done(w, &[command, "web"]).ok();
    }
    let _ = done(w, &["update", "--memory", "128m", "--memory-swap", "-1", "web"]).ok();
    let _ = done(w, &["rename", "web", "www"]).ok();
    done(w, &["rm", "www"]).fails(1, &["stop the container before removing or force remove"]);
    let _ = done(w, &["stop", "www"]).ok();
    let _ = done(w, &["stop", "www"]).ok();
    assert_eq!(done(w, &["wait", "www"]).text(), "3");
    let _ = done(w, &["start", "www"]).ok();
    let _ = done(w, &["restart", "-t", "0", "www"]).ok();
    let _ = done(w, &["kill", "www"]).ok();
    assert_eq!(done(w, &["wait", "www"]).text(), "137");
    let _ = done(w, &["rm", "-f", "-v", "www"]).ok();
    done(w, &["inspect", "www"]).fails(1, &["No such object: www"]);
    devices_by_name(w);
    server.kill();
}

/// `--gpus` of Docker's client: what the Container Device Interface describes.
fn devices_by_name(w: &World) {
    let gpu = r#"{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu",
        "devices":[{"name":"all","containerEdits":{"env":["GPU=here"]}}]}"#;
    std::fs::create_dir_all("/var/run/cdi").unwrap();
    std::fs::write("/var/run/cdi/gpu.json", gpu).unwrap();
    let run = ["run", "--rm", "--gpus", "all", "busybox", "sh", "-c", "echo $GPU"];
    assert_eq!(done(w, &run).text(), "here");
}

fn api_gives_terminals_and_streams(w: &World) {
    let mut server = serve(w);
    let on_terminal = |args: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.args(args).env("DOCKER_HOST", format!("unix://{SOCKET}"));
        command.env("DOCKER_CONFIG", w.scratch().join("docker-config"));
        Terminal::run(&command, 30, 100)
    };
    let mut terminal = on_terminal(&["run", "-it", "--name", "tt", "busybox"]);
    terminal.expect("# ");
    // The size follows the start.
    terminal.type_in("until [ \"$(stty size)\" = '30 100' ]; do sleep 0.1; done; tty; echo it is $((6*7))\n");
    terminal.expect("it is 42");
    terminal.expect("/dev/pts/0");
    terminal.resize(50, 132);
    terminal.type_in("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo now $((6*7))\n");
    terminal.expect("now 42");
    // The keys that detach are the server's business.
    terminal.type_in("\u{10}\u{11}");
    assert_eq!(terminal.exit_code(), 0);
    assert_eq!(w.field("tt", "{{.State.Running}}"), "true");
    let mut exec = on_terminal(&["exec", "-it", "tt", "sh"]);
    exec.expect("# ");
    exec.type_in("tty; echo exec $((6*7)); exit 5\n");
    exec.expect("exec 42");
    assert_eq!(exec.exit_code(), 5);
    let mut again = on_terminal(&["attach", "tt"]);
    again.type_in("echo back $((6*7)); exit 6\n");
    again.expect("back 42");
    assert_eq!(again.exit_code(), 6);
    let _ = done(w, &["rm", "tt"]).ok();

    // What is said is followed, by several at once, and each stream stays its own.
    let _ = done(w, &["run", "-d", "--name", "cc", "busybox", "sleep", "600"]).ok();
    let follower = docker(w, &["logs", "-f", "cc"]).start();
    let output = docker(w, &["attach", "--no-stdin", "cc"]).start();
    let hears = || {
        // Again and again: both may be slow to come.
        let _ = done(w, &["exec", "cc", "sh", "-c", "echo o1 >/proc/1/fd/1; echo e1 >/proc/1/fd/2"]).ok();
        let both = [&follower, &output];
        both.iter().all(|client| client.stdout().contains("o1\n") && client.stderr().contains("e1\n"))
    };
    eventually("they hear", PATIENCE, || hears().then_some(()));
    assert!(!follower.stdout().contains("e1\n") && !output.stdout().contains("e1\n"));
    let _ = done(w, &["kill", "cc"]).ok();
    let _ = follower.done(PATIENCE).ok();
    let _ = output.done(PATIENCE);
    let stamped = done(w, &["logs", "--timestamps", "--tail", "1", "cc"]).ok();
    assert!(stamped.stdout.len() + stamped.stderr.len() > 25, "{stamped}");
    let _ = done(w, &["rm", "cc"]).ok();
    server.kill();
}

fn api_manages_images_networks_and_volumes(w: &World) {
    let mut server = serve(w);
    let follower = docker(w, &["events", "--format", "{{.Type}} {{.Action}}"]).start();
    eventually("it follows", PATIENCE, || {
        let _ = done(w, &["volume", "create", "probe"]).ok();
        let _ = done(w, &["volume", "rm", "probe"]).ok();
        follower.stdout().contains("volume destroy").then_some(())
    });
    let _ = done(w, &["tag", "busybox", "local/other:2"]).ok();
    assert_eq!(done(w, &["images", "-q", "local/*"]).lines().len(), 1);
    let archive = w.scratch().join("saved.tar");
    let _ = done(w, &["save", "-o", archive.to_str().unwrap(), "local/other:2"]).ok();
    assert!(done(w, &["rmi", "local/other:2"]).text().contains("Untagged: local/other:2"));
    assert!(
        done(w, &["load", "-i", archive.to_str().unwrap()]).text().contains("Loaded image: local/other:2")
    );
    let _ = done(w, &["history", "busybox"]).ok();
    let _ = done(w, &["run", "--name", "cc", "busybox", "touch", "/new"]).ok();
    let _ = done(w, &["commit", "-m", "why", "cc", "made:1"]).ok();
    let _ = done(w, &["run", "--rm", "made:1", "test", "-f", "/new"]).ok();
    let exported = w.scratch().join("exported.tar");
    let _ = done(w, &["export", "-o", exported.to_str().unwrap(), "cc"]).ok();
    let _ = done(w, &["import", exported.to_str().unwrap(), "flat:1"]).ok();
    let _ = done(w, &["run", "--rm", "flat:1", "test", "-f", "/new"]).ok();
    let context = w.scratch().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "from the context").unwrap();
    let text =
        "FROM busybox\nARG A\nRUN echo $A > /said && echo heard\nCOPY file /file\nCMD cat /said /file\n";
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    let args = ["build", "-t", "built:1", "--build-arg", "A=word", context.to_str().unwrap()];
    let built = done(w, &args).ok();
    assert!(
        built.stdout.contains("heard") && built.stdout.contains("Successfully tagged built:1"),
        "{built}"
    );
    assert_eq!(done(w, &["run", "--rm", "built:1"]).text(), "word\nfrom the context");
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN exit 9\n").unwrap();
    let failed = done(w, &["build", context.to_str().unwrap()]);
    assert!(!failed.status.success() && failed.stderr.contains("exit code: 9"), "{failed}");
    assert!(done(w, &["container", "prune", "-f"]).text().contains("Total reclaimed space"));

    let _ = done(w, &["network", "create", "--subnet", "10.77.0.0/24", "lan"]).ok();
    let args = [
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "lan",
        "--network-alias",
        "here",
        "busybox",
        "sleep",
        "600",
    ];
    let _ = done(w, &args).ok();
    let address = done(w, &["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "server"]).text();
    assert!(address.starts_with("10.77.0."), "{address}");
    let found = done(w, &["run", "--rm", "--network", "lan", "busybox", "nslookup", "here"]).ok();
    assert!(found.stdout.contains(&address), "{found}");
    done(w, &["network", "rm", "lan"]).fails(1, &["lan"]);
    let _ = done(w, &["rm", "-f", "server"]).ok();
    let _ = done(w, &["network", "rm", "lan"]).ok();
    assert!(!done(w, &["network", "ls", "--format", "{{.Name}}"]).lines().contains(&"lan".to_owned()));
    let _ = done(w, &["volume", "create", "--label", "a=b", "data"]).ok();
    assert_eq!(done(w, &["volume", "ls", "-q", "--filter", "label=a=b"]).text(), "data");
    let mountpoint = done(w, &["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).text();
    assert!(Path::new(&mountpoint).is_dir(), "{mountpoint}");
    let _ = done(w, &["volume", "rm", "data"]).ok();
    let _ = done(w, &["system", "df"]).ok();
    let _ = done(w, &["info"]).ok();
    for event in [
        "image tag",
        "image untag",
        "container create",
        "container die",
        "network connect",
        "network destroy",
    ] {
        eventually(event, PATIENCE, || follower.stdout().lines().any(|line| line == event).then_some(()));
    }
    server.kill();
}

fn api_is_killed_and_nothing_is_lost(w: &World) {
    let mut server = serve(w);
    let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    let _ = done(w, &["run", "-d", "--name", "on", "busybox", "sh", "-c", script]).ok();
    let follower = docker(w, &["logs", "-f", "on"]).start();
    eventually("it follows", PATIENCE, || follower.stdout().contains("1\n").then_some(()));
    let pid = w.field("on", "{{.State.Pid}}");
    server.kill();
    // Who was connected is told by the end of the connection, and the container goes on.
    let _ = follower.done(PATIENCE);
    assert!(ask("GET", "/_ping").is_none());
    let said = w.cata(&["logs", "on"]).lines().len();
    eventually("it goes on", PATIENCE, || (w.cata(&["logs", "on"]).lines().len() > said).then_some(()));
    // Another one, on the dead one's socket.
    let mut server = serve(w);
    assert_eq!(done(w, &["inspect", "-f", "{{.State.Pid}}", "on"]).text(), pid);
    assert_eq!(done(w, &["exec", "on", "echo", "again"]).text(), "again");
    w.cata(&["serve"]).fails(125, &["/run/catamaran.sock is served already"]);
    // It serves one group besides root, if told to.
    server.kill();
    let mut server = w.cata_run(["serve", "-G", "0"]).start();
    eventually("the server answers", PATIENCE, || ask("GET", "/_ping"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(SOCKET).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    let _ = done(w, &["rm", "-f", "on"]).ok();
    server.kill();
    // One that nobody uses ends.
    let idle = w.cata_run(["serve", "--idle", "1s"]).start();
    let _ = idle.done(PATIENCE).ok();
}

fn api_refuses_by_name(w: &World) {
    let mut server = serve(w);
    for (args, text) in [
        (&["run", "--gpus", "all", "busybox"][..], "nvidia.com/gpu=all"),
        (&["run", "--storage-opt", "size=1g", "busybox"], "HostConfig.StorageOpt"),
        (&["run", "--runtime", "kata", "busybox"], "invalid runtime name: kata"),
        (&["run", "--log-driver", "syslog", "busybox"], "the log driver syslog"),
        (&["run", "--link", "x:y", "busybox"], "--link is not supported on the default bridge"),
        (&["run", "--network", "nowhere", "busybox"], "nowhere"),
        (&["swarm", "init"], "POST /swarm/init is not supported by cata"),
        (&["plugin", "ls"], "GET /plugins is not supported by cata"),
        (&["ps", "--filter", "shiny=yes"], "invalid filter 'shiny'"),
        (&["logs", "nobody"], "No such container: nobody"),
    ] {
        let refused = done(w, args);
        assert!(!refused.status.success() && refused.stderr.contains(text), "{args:?}: {refused}");
    }
    assert_eq!(done(w, &["ps", "-aq"]).text(), "");
    for (method, path, status, text) in [
        ("GET", "/v1.41/containers/nope/json", 404, "{\"message\":\"No such container: nope\"}"),
        ("POST", "/v1.41/containers/create", 400, "no image specified"),
        ("GET", "/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.47"),
        ("GET", "/v1.12/info", 400, "client version 1.12 is too old. Minimum supported API version is 1.24"),
        ("POST", "/v1.41/containers/x/attach", 404, "No such container: x"),
        ("GET", "/v1.41/nonsense", 404, "page not found"),
        ("POST", "/v1.41/services/create", 501, "POST /services/create is not supported by cata"),
    ] {
        let answer = ask(method, path).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
    }
    let ping = ask("HEAD", "/_ping").unwrap().to_lowercase();
    assert!(ping.contains("api-version: 1.47") && ping.contains("ostype: linux"), "{ping}");
    server.kill();
    w.cata(&["serve", "-H", "tcp://0.0.0.0:2375"]).fails(125, &["only unix sockets are served"]);
    w.cata(&["serve", "-G", "nobodies"]).fails(125, &["no such group: nobodies"]);
}

/// Two services, as a beginner writes them.
const PROJECT: &str = r#"
version: "2.4"
services:
  web:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; mkdir -p /w; echo $$WORD > /w/index.html; httpd -p 80 -h /w; while :; do sleep 1; done"]
    environment: {WORD: deck}
    ports: ["8080:80"]
    depends_on: [store]
    networks: [front, back]
  store:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1; done"]
    volumes: ["data:/data"]
    networks:
      back:
        aliases: [db]
networks:
  front: {}
  back: {internal: true}
volumes:
  data: {}
"#;

/// The old docker-compose, which is Debian's: what people try first.
fn api_serves_docker_compose(w: &World) {
    let mut server = serve(w);
    std::fs::create_dir_all(w.scratch().join("project")).unwrap();
    let file = w.file("project/docker-compose.yml", PROJECT);
    let compose = |words: &[&str]| {
        let run = Run::new("docker-compose").args(["--no-ansi", "-f"]).arg(&file).args(words);
        run.env("DOCKER_HOST", format!("unix://{SOCKET}")).env("HOME", w.scratch()).done()
    };
    let _ = compose(&["up", "-d"]).ok();
    let shown = compose(&["ps"]).ok().stdout;
    assert!(shown.contains("project_web_1") && shown.contains("0.0.0.0:8080->80/tcp"), "{shown}");
    assert_eq!(shown.matches("Up ").count(), 2, "{shown}");
    eventually("the page", PATIENCE, || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:8080").ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("deck").then_some(())
    });
    for name in ["db", "store"] {
        let found = compose(&["exec", "-T", "web", "nslookup", name, "127.0.0.11"]);
        assert_eq!(found.code(), 0, "{found}");
    }
    eventually("the log", PATIENCE, || {
        compose(&["logs", "store"]).ok().stdout.contains("ready").then_some(())
    });
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(w.field("project_web_1", networks).trim(), "project_back project_front");
    // Nothing has changed: nothing is made anew; then one service is, with what it had.
    let id = w.field("project_web_1", "{{.Id}}");
    let _ = compose(&["up", "-d"]).ok();
    assert_eq!(w.field("project_web_1", "{{.Id}}"), id);
    let _ = compose(&["exec", "-T", "store", "touch", "/data/kept"]).ok();
    let _ = compose(&["up", "-d", "--force-recreate", "store"]).ok();
    let _ = compose(&["exec", "-T", "store", "test", "-e", "/data/kept"]).ok();
    let _ = compose(&["run", "--rm", "-T", "web", "nslookup", "web_1", "127.0.0.11"]).ok();
    let _ = compose(&["stop", "-t", "1"]).ok();
    let _ = compose(&["start"]).ok();
    let _ = compose(&["down", "-v", "-t", "1"]).ok();
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
    assert!(!w.cata(&["network", "ls"]).text().contains("project"));
    server.kill();
}

/// The client has the login, the engine has none.
fn api_passes_logins_on(w: &World) {
    let registry =
        Registry::start(w, Settings { login: Some(("sailor", "sea salt")), ..Settings::default() });
    let mut server = serve(w);
    let name = registry.name("busybox");
    let log_in = |password: &str| {
        docker(w, &["login", "-u", "sailor", "--password-stdin", &registry.address]).input(password).done()
    };
    let _ = done(w, &["tag", "busybox", &name]).ok();
    assert_ne!(done(w, &["push", &name]).code(), 0);
    let refused = log_in("sand");
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(log_in("sea salt").ok().stdout.contains("Login Succeeded"));
    let _ = done(w, &["push", &name]).ok();
    let forget = || {
        let _ = done(w, &["rmi", &name]).ok();
    };
    forget();
    let _ = done(w, &["pull", &name]).ok();
    forget();
    let dockerfile = format!("FROM {name}\nRUN echo built > /word\n");
    let _ = docker(w, &["build", "-t", "own", "-"]).input(dockerfile).done().ok();
    assert_eq!(w.cata(&["run", "--rm", "own", "cat", "/word"]).text(), "built");
    // Nobody has kept it.
    let _ = w.cata(&["rmi", &name]);
    w.cata(&["pull", &name]).fails(1, &["denied"]);
    server.kill();
}

/// As systemd does: the first client starts it.
fn api_is_started_by_its_socket(w: &World) {
    let socket = w.scratch().join("x.sock");
    let server = Run::new("systemd-socket-activate").arg("-l").arg(&socket);
    let server = ["CATA_ROOT", "CATA_STATE", "CATA_SUPERVISOR"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .fold(server, |server, set| server.args(["-E", &set]));
    let mut server = server.arg(cata_binary()).arg("serve").start();
    eventually("the socket", PATIENCE, || socket.exists().then_some(()));
    let host = format!("unix://{}", socket.display());
    let said = Run::new("docker").args(["-H", &host, "run", "--rm", "busybox", "echo", "here"]).done();
    assert_eq!(said.ok().text(), "here");
    assert!(!Path::new(SOCKET).exists());
    server.kill();
}

/// Who follows the log of a silent container and goes is not waited for.
fn api_lets_go_of_who_has_left(w: &World) {
    let mut server = serve(w);
    let _ = w.cata(&["run", "-d", "--name", "silent", "busybox", "sleep", "900"]).ok();
    let pid = server.pid();
    let watches = || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("inotify")).count()
    };
    assert_eq!(watches(), 0);
    let mut follower = docker(w, &["logs", "-f", "silent"]).start();
    eventually("the log is watched", PATIENCE, || (watches() > 0).then_some(()));
    follower.kill();
    eventually("nobody watches it", PATIENCE, || (watches() == 0).then_some(()));
    server.kill();
}

/// What programs do with Docker's library for Python.
const PROGRAM: &str = r#"
import docker, io, tarfile
client = docker.DockerClient(base_url="unix:///run/catamaran.sock", timeout=120)
assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
try:
    client.containers.run("busybox", ["sh", "-c", "exit 4"])
    raise SystemExit("no error")
except docker.errors.ContainerError as error:
    assert error.exit_status == 4
box = client.containers.run("busybox", ["sh", "-c", "echo ready; sleep 600"], detach=True, name="py", labels={"a": "b"})
def run(wanted, command, **options):
    # The library loses what comes before it has looked at the head of the answer, from dockerd too: on a busy host a
    # few tries.
    for attempt in range(50):
        ran = box.exec_run(command, **options)
        if ran == wanted:
            return
    raise SystemExit(f"{command}: {ran}")
run((0, b"hi\n"), ["echo", "hi"])
run((3, (b"out\n", b"err\n")), ["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
assert box.exec_run("nosuch").exit_code == 127
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as archive:
    member = tarfile.TarInfo("note")
    member.size = 4
    archive.addfile(member, io.BytesIO(b"text"))
assert box.put_archive("/tmp", packed.getvalue())
run((0, b"text"), ["cat", "/tmp/note"])
assert next(box.logs(stream=True)) == b"ready\n"
assert [one.name for one in client.containers.list(filters={"label": "a=b"})] == ["py"]
assert box.stats(stream=False)["pids_stats"]["current"] >= 1
box.stop(timeout=0)
assert box.wait()["StatusCode"] == 137
box.remove()
try:
    client.containers.get("py")
    raise SystemExit("still there")
except docker.errors.NotFound:
    pass
network, volume = client.networks.create("pynet"), client.volumes.create("pyvol")
assert client.containers.run("busybox", ["cat", "/v/none"], remove=True, network="pynet",
                             volumes={"pyvol": {"bind": "/v"}}, entrypoint=["echo"]) == b"cat /v/none\n"
network.remove()
volume.remove()
print("done")
"#;

fn api_serves_docker_py(w: &World) {
    let mut server = serve(w);
    let program = w.file("program.py", PROGRAM);
    let python = Run::new("/usr/bin/python3").args([program.as_os_str()]).env("HOME", w.scratch());
    assert_eq!(python.done().ok().text(), "done");
    server.kill();
}
