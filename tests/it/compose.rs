//! `cata compose`: projects by their files, without a server.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use cata_tests::command::{Done, PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use rustix::process::Signal;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(compose_project_from_up_to_down),
        test!(compose_in_the_foreground_and_killed),
        test!(compose_of_what_peoples_files_have),
        test!(compose_says_what_is_wrong),
    ]
}

/// Services that wait for each other, of two files with variables.
const PROJECT: &str = r#"
name: fleet
x-ship: &ship
  image: busybox
  init: true
services:
  web:
    <<: *ship
    command: ["sh", "-c", "mkdir -p /w; echo $$WORD > /w/index.html; exec httpd -f -p 80 -h /w"]
    environment: {WORD: "${WORD:-deck}"}
    ports: ["8080:80"]
    depends_on:
      store: {condition: service_healthy, restart: true}
      setup: {condition: service_completed_successfully}
    networks: [front, back]
    secrets: [token]
    deploy: {resources: {limits: {memory: 64M}}}
  store:
    <<: *ship
    command: sh -c "echo ready; touch /ready; exec sleep 1000"
    healthcheck: {test: [CMD, test, -e, /ready], interval: 100ms, retries: 300}
    volumes: ["data:/data", "/scratch"]
    networks: {back: {aliases: [db], ipv4_address: 10.87.0.9}}
  setup:
    <<: *ship
    command: [sh, -c, "echo made > /data/made"]
    volumes: ["data:/data"]
    network_mode: none
  tools:
    <<: *ship
    profiles: [debug]
    command: [sleep, "1000"]
volumes: {data: {}}
secrets: {token: {file: ./token}}
networks:
  front: {}
  back: {internal: true, ipam: {config: [{subnet: 10.87.0.0/24}]}}
"#;

fn compose(w: &World, file: &Path, words: &[&str]) -> Done {
    running(w, file, words).done()
}

fn running(w: &World, file: &Path, words: &[&str]) -> Run {
    w.cata_run(["compose", "-f"]).arg(file).args(words)
}

fn page() -> Option<String> {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:8080").ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.lines().last()?.to_owned())
}

fn project(w: &World) -> std::path::PathBuf {
    std::fs::create_dir_all(w.scratch().join("fleet")).unwrap();
    let _ = w.file("fleet/token", "salt");
    w.file("fleet/compose.yaml", PROJECT)
}

fn compose_project_from_up_to_down(w: &World) {
    let file = project(w);
    let compose = |words: &[&str]| compose(w, &file, words);
    let said = compose(&["up", "-d"]).ok().stderr;
    for line in
        ["Network fleet_back  Created", "Volume fleet_data  Created", "Container fleet-web-1  Started"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    eventually("the page", PATIENCE, || (page()? == "deck").then_some(()));
    let _ = compose(&["exec", "-T", "web", "nslookup", "db", "127.0.0.11"]).ok().says("10.87.0.9");
    assert_eq!(compose(&["exec", "-T", "web", "cat", "/run/secrets/token"]).text(), "salt");
    assert_eq!(compose(&["exec", "-T", "store", "cat", "/data/made"]).text(), "made");
    assert_eq!(w.field("fleet-web-1", "{{.HostConfig.Memory}}"), "67108864");
    assert_eq!(compose(&["ps", "--services"]).lines(), ["store", "web"]);
    assert_eq!(compose(&["port", "web", "80"]).text(), "0.0.0.0:8080");
    let _ = compose(&["logs", "store"]).ok().says("store-1  | ready");
    let _ = w.cata(&["compose", "ls"]).ok().says("exited(1), running(2)");
    // Nothing has changed: nothing is made anew. Then one service is: it, and who is to be restarted with it.
    let ids = || ["fleet-web-1", "fleet-store-1"].map(|name| w.field(name, "{{.Id}}"));
    let before = ids();
    let _ = compose(&["up", "-d"]).ok();
    assert_eq!(ids(), before);
    let up = running(w, &file, &["up", "-d"]).env("WORD", "mast").done().ok();
    assert!(up.stderr.contains("fleet-web-1  Recreated"), "{up}");
    let after = ids();
    assert!(after[0] != before[0] && after[1] == before[1], "{before:?} {after:?}");
    eventually("the other page", PATIENCE, || (page()? == "mast").then_some(()));
    // Volumes without a name go on with the service.
    let _ = compose(&["exec", "-T", "store", "touch", "/scratch/kept"]).ok();
    for _ in 0..2 {
        let up =
            running(w, &file, &["up", "-d", "--force-recreate", "store"]).env("WORD", "mast").done().ok();
        assert!(up.stderr.contains("fleet-store-1  Recreated"), "{up}");
    }
    let _ = compose(&["exec", "-T", "store", "test", "-e", "/scratch/kept"]).ok();
    // One of `run` has no ports and another name; a profile is taken when its service is named.
    let _ = compose(&["run", "--rm", "-T", "--no-deps", "web", "nslookup", "web", "127.0.0.11"]).ok();
    let _ = compose(&["up", "-d", "--scale", "tools=2", "tools"]).ok();
    assert_eq!(compose(&["--profile", "debug", "ps", "--services"]).lines(), ["store", "tools", "web"]);
    let _ = compose(&["--profile", "debug", "stop", "-t", "1"]).ok();
    assert_eq!(compose(&["ps", "-q"]).text(), "");
    let _ = compose(&["start"]).ok();
    assert_eq!(compose(&["ps", "--services"]).lines(), ["store", "web"]);
    // Without a profile `down` takes those of all: they are the project's.
    let down = compose(&["down", "-v", "-t", "1"]).ok();
    assert!(down.stderr.contains("Volume fleet_data  Removed"), "{down}");
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
    assert!(!w.cata(&["network", "ls"]).text().contains("fleet"));
}

fn compose_in_the_foreground_and_killed(w: &World) {
    let file = project(w);
    // In the foreground: lines with names, and the end when it is asked for.
    let mut up = running(w, &file, &["up", "-t", "1"]).start();
    eventually("the log", PATIENCE, || up.stdout().contains("store-1  | ready").then_some(()));
    eventually("the page", PATIENCE, || (page()? == "deck").then_some(()));
    // Until it watches signals, one would end it: the page can be there before.
    eventually("the end", PATIENCE, || {
        up.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
        up.poll()
    });
    eventually("nothing runs", PATIENCE, || {
        let _ = compose(w, &file, &["stop", "-t", "1"]).ok();
        compose(w, &file, &["ps", "-q"]).text().is_empty().then_some(())
    });
    // Killed anywhere on its way, the next one comes to the same.
    for round in 0..8 {
        let mut up = running(w, &file, &["up", "-d", "--force-recreate", "-t", "1"]).start();
        std::thread::sleep(Duration::from_millis(round * 25));
        up.kill();
    }
    let _ = compose(w, &file, &["up", "-d", "-t", "1"]).ok();
    let names = w.cata(&["ps", "-a", "--format", "{{.Names}}"]).lines();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["fleet-setup-1", "fleet-store-1", "fleet-web-1"]);
    eventually("the page", PATIENCE, || (page()? == "deck").then_some(()));
    let _ = compose(w, &file, &["down", "-v", "-t", "1"]).ok();
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
    // What the killed ones had taken along without a name is nobody's any more.
    let _ = w.cata(&["volume", "prune", "-f"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
}

/// Files of several places, texts that become files, hooks, another service's network, and what is watched.
const YARD: &str = r#"
name: yard
include: [parts/db.yaml]
services:
  app:
    extends: {file: base.yaml, service: base}
    command: [sh, -c, "trap 'exit 7' TERM; sleep 1000 & wait"]
    label_file: labels
    secrets: [{source: key, target: key, mode: 0400}]
    configs: [{source: motd, target: /etc/motd}]
    volumes: [{type: volume, source: data, target: /sub, volume: {subpath: inner}}]
    depends_on: [db]
    post_start: [{command: "sh -c 'echo $$WHO > /started'", environment: {WHO: hook}}]
    pre_stop: [{command: [touch, /data/stopped]}]
    develop:
      watch:
        - {path: ./src, action: sync+exec, target: /srv, ignore: ["*.tmp"], exec: {command: "touch /synced"}}
  side:
    image: busybox
    network_mode: "service:app"
    command: [sleep, "1000"]
secrets: {key: {environment: YARD_KEY}}
configs: {motd: {content: "welcome ${WHO:-all}\n"}}
"#;

const PARTS: [(&str, &str); 5] = [
    (
        "yard/base.yaml",
        "services: {base: {image: busybox, init: true, env_file: env, volumes: ['data:/data']}}\n",
    ),
    ("yard/labels", "from=file\n"),
    ("yard/env", "BASE=yes\n"),
    (
        "yard/parts/db.yaml",
        "services:\n  db:\n    image: busybox\n    command: [sh, -c, 'mkdir -p /data/inner; cat /f; exec sleep 1000']\n    \
         volumes: ['./file:/f', 'data:/data']\n    environment: [PART]\n    healthcheck: {test: test -d /data/inner, interval: 100ms}\nvolumes: {data: {}}\n",
    ),
    ("yard/parts/.env", "PART=own\n"),
];

fn compose_of_what_peoples_files_have(w: &World) {
    for directory in ["parts", "src/deep"] {
        std::fs::create_dir_all(w.scratch().join("yard").join(directory)).unwrap();
    }
    for (name, text) in PARTS {
        let _ = w.file(name, text);
    }
    let _ = w.file("yard/parts/file", "beside its own file\n");
    let file = w.file("yard/compose.yaml", YARD);
    // Several containers, one after the other, at each of them.
    let run =
        |words: &[&str]| running(w, &file, words).env("YARD_KEY", "s3cret").patience(PATIENCE * 5).done();
    compose(w, &file, &["config"]).fails(1, &["secrets.key.environment", "YARD_KEY is not"]);
    let said = run(&["up", "-d", "--wait"]).ok();
    assert!(said.stderr.contains("Container yard-side-1  Started"), "{said}");
    let inside = |service: &str, script: &str| run(&["exec", "-T", service, "sh", "-c", script]).text();
    assert_eq!(
        inside("app", "cat /run/secrets/key /etc/motd /started; echo $BASE"),
        "s3cretwelcome all\nhook\nyes"
    );
    assert_eq!(inside("app", "stat -c %a /run/secrets/key; test -d /data/inner && ls -d /sub"), "400\n/sub");
    assert_eq!(
        w.field("yard-app-1", "{{.Config.Labels.from}} {{json .HostConfig.Binds}}").split(' ').next(),
        Some("file")
    );
    let record = std::fs::read_to_string(
        w.root().join("containers").join(w.field("yard-app-1", "{{.Id}}")).join("record.json"),
    );
    assert!(!record.unwrap().contains("s3cret"), "a secret is on record");
    let _ = run(&["logs", "db"]).ok().says("beside its own file");
    assert_eq!(inside("db", "echo $PART"), "own");
    let address = "ip -4 -o addr show eth0 | awk '{print $4}'";
    assert_eq!(inside("side", address), inside("app", address));
    // Other commands of Docker's.
    let _ = run(&["cp", "app:/etc/motd", w.scratch().join("got").to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(w.scratch().join("got")).unwrap(), "welcome all\n");
    let _ = run(&["scale", "--no-deps", "db=2"]).ok();
    assert_eq!(run(&["ps", "-q", "db"]).lines().len(), 2);
    let _ = run(&["stats", "--no-stream", "app"]).ok().says("yard-app-1");
    let _ = run(&["events", "--since", "10m", "--until", "0s", "app"]).ok().says("container start");
    // A changed text is a changed container; what has not changed is left.
    let before = ["app", "db"].map(|name| w.field(&format!("yard-{name}-1"), "{{.Id}}"));
    let again = running(w, &file, &["up", "-d"]).env("YARD_KEY", "other").patience(PATIENCE * 5).done().ok();
    assert!(again.stderr.contains("yard-app-1  Recreated"), "{again}");
    let after = ["app", "db"].map(|name| w.field(&format!("yard-{name}-1"), "{{.Id}}"));
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");
    assert_eq!(inside("app", "cat /run/secrets/key; ls /data/stopped"), "other/data/stopped");
    // Files that change go where they belong.
    let run =
        |words: &[&str]| running(w, &file, words).env("YARD_KEY", "other").patience(PATIENCE * 5).done();
    let inside = |script: &str| run(&["exec", "-T", "app", "sh", "-c", script]);
    let mut watch = running(w, &file, &["watch", "--no-up"]).env("YARD_KEY", "other").start();
    eventually("it watches", PATIENCE, || watch.stderr().contains("Watch enabled").then_some(()));
    let _ = w.file("yard/src/deep/page", "first");
    let _ = w.file("yard/src/no.tmp", "");
    eventually("the page", PATIENCE, || {
        let read = inside("cat /srv/deep/page && ls /synced");
        (read.code() == 0 && read.text() == "first/synced").then_some(())
    });
    std::fs::create_dir(w.scratch().join("yard/src/new")).unwrap();
    let _ = w.file("yard/src/new/more", "more");
    std::fs::remove_file(w.scratch().join("yard/src/deep/page")).unwrap();
    eventually("what is new, and not what is gone", PATIENCE, || {
        let read = inside("cat /srv/new/more && ls /srv/deep /srv");
        (read.code() == 0 && !read.stdout.contains("page") && !read.stdout.contains("tmp")).then_some(())
    });
    watch.kill();
    let _ = run(&["down", "-v", "-t", "1"]).ok();
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
}

fn compose_says_what_is_wrong(w: &World) {
    for (text, wanted) in [
        ("services:\n  a:\n    imge: x\n", "3: unknown key services.a.imge (did you mean image?)"),
        ("services:\n  a:\n    image: x\n    runtime: y\n", "4: services.a.runtime is not supported yet"),
        ("services:\n  a:\n    image: x\n    ports: [what]\n", "invalid"),
        ("services:\n  a: {image: x, depends_on: [b]}\n", "service a refers to the service b"),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n",
            "in a circle: a -> b -> a",
        ),
        ("services:\n  a: {image: x, volumes: ['v:/v']}\n", "refers to the volume v, which is not defined"),
        ("services:\n  a: {image: \"${X:?say it}\"}\n", "2: required variable X is missing a value: say it"),
        ("services: {a: {image: x}\n", "compose.yaml:"),
        ("services: {}\n", "there are no services"),
    ] {
        let file = w.file("compose.yaml", text);
        compose(w, &file, &["config", "-q"]).fails(1, &[wanted]);
    }
    w.cata(&["compose", "-f", "/nowhere.yaml", "up"]).fails(1, &["/nowhere.yaml", "no such file"]);
    let file = w.file("compose.yaml", "services: {a: {image: 'never/there:1'}}\n");
    compose(w, &file, &["up", "-d", "--pull", "never"]).fails(1, &["service a", "never/there:1"]);
    compose(w, &file, &["up", "-d", "b"]).fails(1, &["no such service: b"]);
    // Laid over each other, and printed as it is understood.
    let over = w.file("over.yaml", "services: {a: {environment: [X=1], command: 'echo \"a b\"'}}\n");
    let shown = w.cata_run(["compose", "-p", "both", "-f"]).arg(&file).arg("-f").arg(&over);
    let shown = shown.args(["config", "--format", "json"]).done().json();
    assert_eq!(shown["services"]["a"]["environment"][0], "X=1");
    assert_eq!((&shown["name"], &shown["services"]["a"]["image"]), (&"both".into(), &"never/there:1".into()));
}
