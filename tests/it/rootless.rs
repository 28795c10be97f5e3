//! `cata` of somebody who is not root, beside what `oci_rootless` has: networks, published ports, builds.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;
use std::time::Duration;

use cata_tests::command::{Done, PATIENCE, Run, eventually, scaled};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::oci_rootless::{ID, User};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(networks_of_a_user).needs(&["slirp4netns"]),
        test!(builds_of_a_user),
        test!(limits_of_a_user).also_in_lab_for(35),
        test!(ids_of_a_user_are_kept),
    ]
}

/// Whoever a user is on this machine, he may open `/dev/net/tun` on every other.
fn open_tun() {
    fs::create_dir_all("/dev/net").unwrap();
    let _ = Run::new("mount").args(["-t", "tmpfs", "tmpfs", "/dev/net"]).done().ok();
    let _ = Run::new("mknod").args(["-m", "666", "/dev/net/tun", "c", "10", "200"]).done().ok();
}

/// What a server of the world's says once.
fn fetch(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(scaled(Duration::from_secs(10)))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("\r\n\r\n").then_some(text)
}

/// Says a word to everybody who connects.
fn host_server(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = (&client).write_all(b"the host\n");
        }
    });
}

fn holder(alice: &User) -> (PathBuf, String) {
    let file = alice.home.join("run/catamaran/user/holder");
    let pid = fs::read_to_string(&file).unwrap();
    (file, pid)
}

fn kill(pid: &str) {
    let _ = Run::new("kill").args(["-KILL", pid]).done().ok();
    let gone = || {
        // A zombie holds nothing any more.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, after)| after.trim().starts_with('Z')).then_some(())
    };
    eventually("its end", PATIENCE, gone);
}

/// The only process with this name.
fn pid_of(name: &str) -> Option<String> {
    let pids = Run::new("pgrep").args(["-x", name]).done();
    pids.stdout.lines().next().map(str::to_owned)
}

fn networks_of_a_user(w: &World) {
    open_tun();
    let alice = User::new();
    let cata = alice.engine(w);
    let run = |words: &[&str]| -> Done { alice.command(&cata).args(words).done() };
    // The world's way to others, and one of them.
    for words in [
        "link add outer type bridge",
        "addr add 198.51.100.1/24 dev outer",
        "link set outer up",
        "route add default via 198.51.100.1",
    ] {
        let _ = Run::new("ip").args(words.split(' ')).done().ok();
    }
    host_server("198.51.100.1:9999");
    host_server("127.0.0.1:9998");
    let own = fs::read_link("/proc/self/ns/net").unwrap();

    // Her first commands, all at once: they come to be in one user namespace.
    std::thread::scope(|scope| {
        for name in ["aa", "bb", "cc"] {
            let run = &run;
            scope.spawn(move || run(&["run", "-d", "--name", name, "busybox", "sleep", "600"]).ok());
        }
    });
    let users = ["aa", "bb", "cc"].map(|name| {
        let pid = run(&["inspect", "--format", "{{.State.Pid}}", name]).text();
        fs::read_link(format!("/proc/{pid}/ns/user")).unwrap()
    });
    assert!(users.iter().all(|one| *one == users[0]), "{users:?}");
    let _ = run(&["rm", "-f", "aa", "bb", "cc"]).ok();

    // Names, addresses, a way out; the host's loopback is the host's own.
    let _ = run(&["network", "create", "sea"]).ok();
    let script = "mkdir /w && echo deck > /w/index.html && exec httpd -f -p 80 -h /w";
    let server =
        ["run", "-d", "--name", "web", "--network", "sea", "--network-alias", "www", "-p", "8080:80"];
    let _ = run(&[&server[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let client = |script: &str| run(&["run", "--rm", "--network", "sea", "busybox", "sh", "-c", script]);
    eventually("the server by its name", PATIENCE, || {
        (client("wget -qO- http://www/").stdout == "deck\n").then_some(())
    });
    assert_eq!(client("nc 198.51.100.1 9999").ok().stdout, "the host\n");
    assert_ne!(client("nc -w 5 10.0.2.2 9998").code(), 0);
    let inside = run(&["run", "--rm", "busybox", "nc", "198.51.100.1", "9999"]).ok();
    assert_eq!((inside.stdout.as_str(), inside.stderr.as_str()), ("the host\n", ""));

    // Published: on the host, and nothing of it is in the host's firewall or among its links.
    eventually("the published port", PATIENCE, || fetch("127.0.0.1:8080").filter(|t| t.ends_with("deck\n")));
    assert_eq!(run(&["port", "web"]).text(), "80/tcp -> 0.0.0.0:8080");
    assert_eq!(Run::new("nft").args(["list", "tables"]).done().text(), "");
    let links = Run::new("ip").args(["-o", "link"]).done().text();
    assert!(!links.contains("veth") && !links.contains("cata"), "{links}");
    run(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125, &["8080", "already allocated"]);
    run(&["run", "--rm", "-p", "81:80", "busybox", "true"]).fails(125, &["81", "ip_unprivileged_port_start"]);
    // Nobody listens inside: the client is told so.
    let _ = run(&["run", "-d", "--name", "deaf", "-p", "8081:80", "busybox", "sleep", "600"]).ok();
    assert_eq!(fetch("127.0.0.1:8081"), None);

    what_is_killed_comes_back(&alice, &run, &client);

    // The last container takes everything along.
    let _ = run(&["rm", "-f", "web", "deaf"]).ok();
    eventually("the end of the holder and of the way out", PATIENCE, || {
        (pid_of("slirp4netns").is_none() && pid_of("cata-supervisor").is_none()).then_some(())
    });
    assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), own);
    // Without the program there is everything but the way out, and it is said what is missing.
    let bare = alice.command("env").arg("PATH=/nowhere").arg(&cata);
    let bare = bare.args(["run", "--rm", "--network", "sea", "busybox", "ip", "-o", "link"]).done().ok();
    assert!(bare.stdout.contains("eth0"), "{bare:?}");
    assert!(
        bare.stderr.contains("no way out") && bare.stderr.contains("Debian package slirp4netns"),
        "{bare:?}"
    );
    let _ = run(&["network", "rm", "sea"]).ok();
}

fn what_is_killed_comes_back(alice: &User, run: &dyn Fn(&[&str]) -> Done, client: &dyn Fn(&str) -> Done) {
    // The way out: the next container makes it again, for all.
    kill(&pid_of("slirp4netns").unwrap());
    assert_eq!(client("nc 198.51.100.1 9999").ok().stdout, "the host\n");
    assert_eq!(run(&["exec", "web", "nc", "198.51.100.1", "9999"]).ok().stdout, "the host\n");
    // The holder: the next command makes one of the namespaces that the containers are in.
    let (_, first) = holder(alice);
    kill(&first);
    eventually("the published port", PATIENCE, || fetch("127.0.0.1:8080").filter(|t| t.ends_with("deck\n")));
    assert_eq!(run(&["ps", "-q"]).lines().len(), 2);
    assert_eq!(client("wget -qO- http://web/; nc 198.51.100.1 9999").ok().stdout, "deck\nthe host\n");
    let (file, second) = holder(alice);
    assert_ne!(first, second, "{}", file.display());
    // A container: its port is free, its name is gone.
    let pid = run(&["inspect", "--format", "{{.State.Pid}}", "deaf"]).text();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    kill(status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim());
    eventually("its start", PATIENCE, || (run(&["start", "deaf"]).code() == 0).then_some(()));
}

fn builds_of_a_user(w: &World) {
    let alice = User::new();
    let cata = alice.engine(w);
    let run = |words: &[&str]| -> Done { alice.command(&cata).args(words).done() };
    // Devices are nobody's to make but root's: the image is there without them.
    let root = alice.root(w, "root");
    let _ = Run::new("mknod").arg(root.join("device")).args(["c", "1", "3"]).done().ok();
    let _ = Run::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(alice.home.join("devices.tar"))
        .arg(".")
        .done()
        .ok();
    let _ = run(&["import", "devices.tar", "devices"]).ok();
    let script = "test ! -e /device && test -e /bin/sh && echo begun";
    let begun = run(&["run", "--rm", "--network", "none", "devices", "sh", "-c", script]);
    assert_eq!(begun.text(), "begun");
    let context = alice.home.join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("file"), "of the context\n").unwrap();
    let dockerfile = "FROM busybox AS one\n\
        RUN mkdir -p /d/below && echo old > /d/below/f && echo old > /d/g && chown 33:34 /d/g\n\
        FROM one\n\
        RUN rm -r /d && mkdir /d && echo new > /d/new && id -u > /who\n\
        COPY --chown=5:6 file /d/file\n\
        COPY --from=one /d/g /g\n\
        RUN --mount=type=cache,target=/cache --network=none ls /sys/class/net > /links\n\
        CMD cat /d/file\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let build = || run(&["build", "--network", "none", "-t", "built", context.to_str().unwrap()]);
    let _ = build().ok();
    assert!(build().ok().stderr.contains("5 of 5 steps cached"));
    assert_eq!(run(&["run", "--rm", "built"]).text(), "of the context");
    let look = "ls /d; stat -c %u:%g /d/file /g; cat /who /links";
    let looked = |image: &str| run(&["run", "--rm", image, "sh", "-c", look]).text();
    let expected = "file\nnew\n5:6\n33:34\n0\nlo";
    assert_eq!(looked("built"), expected);
    // What hides a directory of a layer below travels, and comes back.
    let _ = run(&["save", "-o", "built.tar", "built"]).ok();
    let _ = run(&["rmi", "-f", "built"]).ok();
    let _ = run(&["system", "prune", "-af"]).ok();
    let _ = run(&["load", "-i", "built.tar"]).ok();
    assert_eq!(looked("built"), expected);
    // The same in a container, and what it has become is committed.
    let script = "rm -r /d && mkdir /d && touch /d/only";
    let _ = run(&["run", "--name", "changed", "built", "sh", "-c", script]).ok();
    assert!(run(&["diff", "changed"]).ok().stdout.contains("/d/only"));
    let _ = run(&["commit", "changed", "last"]).ok();
    assert_eq!(run(&["run", "--rm", "last", "ls", "/d"]).text(), "only");
    let _ = run(&["rm", "changed"]).ok();
}

/// What the image says belongs to root belongs to an id of `/etc/subuid`, and her own id is hers inside, too: no
/// file of the store is changed for it.
fn ids_of_a_user_are_kept(w: &World) {
    let alice = User::new();
    let cata = alice.engine(w);
    let run = |words: &[&str]| -> Done { alice.command(&cata).args(words).done() };
    // An image with what is hard to copy.
    let script = "rm /bin/wget && mkdir /s && echo text > /s/a && chown 33:34 /s/a && ln /s/a /s/b && ln -s a /s/link && \
        mkfifo /s/pipe && cp /bin/true /s/su && chmod 4755 /s/su && mkdir -m 1777 /s/t && rm -r /root && mkdir /root";
    let _ = run(&["run", "--name", "maker", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let _ = run(&["commit", "maker", "made"]).ok();
    let once = |options: &[&str], script: &str| {
        run(&[&["run", "--rm", "--network", "none"], options, &["made", "sh", "-c", script]].concat())
            .ok()
            .lines()
    };
    let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");

    // Several at once that need the same layers for the first time.
    let look = "id -u; id -g; stat -c '%a %u:%g %F' / /s/a /s/link /s/pipe /s/su /s/t /root /etc/hosts; cat /s/b; \
        test ! -e /bin/wget && ! touch /mine 2>/dev/null && touch /s/t/mine && stat -c %u:%g /s/t/mine; stat -c %h /s/a";
    let expected = [
        "4242",
        "4242",
        "755 0:0 directory",
        "644 33:34 regular file",
        "777 0:0 symbolic link",
        "644 0:0 fifo",
        "4755 0:0 regular file",
        "1777 0:0 directory",
        "755 0:0 directory",
        "644 0:0 regular file",
        "text",
        "4242:4242",
        "2",
    ];
    let images = || run(&["system", "df", "--format", "{{.Type}} {{.Size}}"]).ok().lines().remove(0);
    let before = images();
    std::thread::scope(|scope| {
        let seen: Vec<_> = (0..3).map(|_| scope.spawn(|| once(&["--userns", "keep-id"], look))).collect();
        for seen in seen {
            assert_eq!(seen.join().unwrap(), expected);
        }
    });
    assert!(
        before.starts_with("Images ") && images() != before,
        "layers that were made again take room: {before}"
    );
    called_by_her_name(&run, &once);
    let map = once(&["--userns", "keep-id"], "cat /proc/self/uid_map");
    assert_eq!(map.iter().map(words).collect::<Vec<_>>(), ["0 1 4242", "4242 0 1", "4243 4243 61294"]);

    // What is hers on the host is hers inside, under the id that she wants; by `nomap` it is nobody's.
    let home = alice.home.join("data");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(ID), Some(ID)).unwrap();
    let bind = format!("{}:/data", home.display());
    let ids = ["--userns", "keep-id:uid=33,gid=34", "-v", &bind];
    assert_eq!(once(&ids, "touch /data/f; stat -c %u:%g /data /data/f /s/a"), ["33:34"; 3]);
    assert_eq!(fs::metadata(home.join("f")).unwrap().uid(), ID);
    let nobody = ["--userns", "nomap", "-v", &bind, "-v", "vol:/v"];
    let script = "id -u; stat -c %u:%g / /s/a /data/f; touch /data/g 2>/dev/null || echo no; touch /v/f; stat -c %u /v/f";
    assert_eq!(once(&nobody, script), ["0", "0:0", "33:34", "65534:65534", "no", "0"]);
    assert_eq!(
        once(&["--userns", "0:5:100", "-u", "7:8"], "id -u; stat -c %u:%g / /s/a"),
        ["7", "0:0", "33:34"]
    );

    a_life_with_kept_ids(&alice, &run);

    ids_of_containers_apart(&run);
    run(&["run", "--userns", "0:65530:8", "made"]).fails(125, &["0:65530:8", "0, which you are, to 65536"]);
    run(&["run", "--userns", "0:5:10", "made"]).fails(125, &["s/a", "33:34"]);
    // Nothing of the images is left behind.
    let _ = run(&["rm", "-f", "maker"]).ok();
    let _ = run(&["rmi", "-f", "made", "early", "last", "busybox"]).ok();
    let layers = alice.home.join(".local/share/catamaran/layers");
    assert_eq!(fs::read_dir(layers).unwrap().count(), 0);
}

/// She has a name there, which the image has not.
fn called_by_her_name(run: &dyn Fn(&[&str]) -> Done, once: &dyn Fn(&[&str], &str) -> Vec<String>) {
    let named =
        once(&["--userns", "keep-id", "-w", "/s/t"], "whoami; tail -n 1 /etc/passwd; stat -c %u /etc/passwd");
    assert_eq!(named, ["alice", "alice:*:4242:4242:alice:/s/t:/bin/sh", "0"]);
    // The host's network, where she has no rights, and all rights over what is hers.
    let own = ["--userns", "keep-id", "--network", "host", "--privileged"];
    let all = [
        &["run", "--rm"],
        &own[..],
        &["made", "sh", "-c", "id -u; readlink /proc/self/ns/net; cat /sys/class/net/lo/mtu"],
    ];
    let host = run(&["run", "--rm", "--network", "host", "made", "readlink", "/proc/self/ns/net"]).text();
    assert_eq!(run(&all.concat()).ok().lines()[..2], ["4242".to_owned(), host]);
    // What the image calls her, she is called.
    assert_eq!(
        once(&["--userns", "keep-id:uid=0,gid=0"], "whoami; grep -c alice /etc/passwd || true"),
        ["root", "0"]
    );
}

/// A range of her ids for each container, which is the next one's when it is gone.
fn ids_of_containers_apart(run: &dyn Fn(&[&str]) -> Done) {
    let once = |auto: &str, script: &str| {
        run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--userns",
            auto,
            "-v",
            "autos:/v",
            "made",
            "sh",
            "-c",
            script,
        ])
    };
    let map = "cat /proc/self/uid_map";
    let first = |done: Done| -> Vec<u32> {
        done.ok().stdout.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    assert_eq!(first(once("auto", map)), [0, 1, 1024]);
    let script = "id -u; stat -c %u:%g / /s/a /v; touch /v/f /mine; stat -c %u /v/f /mine; stat -c %a /s/su";
    assert_eq!(once("auto", script).ok().lines(), ["0", "0:0", "33:34", "0:0", "0", "0", "4755"]);
    let _ = run(&["run", "-d", "--name", "apart", "--userns", "auto", "made", "sleep", "600"]).ok();
    assert_eq!(first(once("auto:size=1500", map)), [0, 1025, 1500]);
    assert_eq!(first(once("auto", map)), [0, 1025, 1024]);
    once("auto:size=65536", map).fails(125, &["65536 ids in a row", "auto:size=N"]);
    once("auto:size=20", map).fails(125, &["s/a", "33:34"]);
    // Stopped, it has its range still.
    let _ = run(&["stop", "-t", "0", "apart"]).ok();
    assert_eq!(first(once("auto", map)), [0, 1025, 1024]);
    let _ = run(&["start", "apart"]).ok();
    assert_eq!(run(&["exec", "apart", "id", "-u"]).text(), "0");
    let _ = run(&["rm", "-f", "apart"]).ok();
    assert_eq!(first(once("auto:size=65536", map)), [0, 1, 65536]);
}

fn a_life_with_kept_ids(alice: &User, run: &dyn Fn(&[&str]) -> Done) {
    let script = "echo begun > /v/began && exec sleep 600";
    let kept =
        ["run", "-d", "--name", "kept", "--userns", "keep-id", "-v", "own:/v", "made", "sh", "-c", script];
    let _ = run(&kept).ok();
    let mode = "{{.HostConfig.UsernsMode}} {{.Config.User}}";
    assert_eq!(run(&["inspect", "--format", mode, "kept"]).text(), "keep-id 4242:4242");
    let inside = |script: &str| run(&["exec", "-u", "0", "kept", "sh", "-c", script]).ok().lines();
    eventually("its first file", PATIENCE, || {
        (run(&["exec", "kept", "stat", "-c", "%u:%g", "/v/began"]).stdout == "4242:4242\n").then_some(())
    });
    assert!(
        run(&["top", "kept"])
            .ok()
            .stdout
            .lines()
            .any(|line| line.starts_with("alice ") && line.contains("sleep 600"))
    );
    // Its root may what root may, its network too.
    let change =
        "echo new > /root/f && chown 5:6 /root/f && chown 4242 /s/a && ip link show eth0 >/dev/null && id -u";
    assert_eq!(inside(change), ["0"]);
    let out = alice.home.join("out");
    let copied = |name: &str| {
        let _ = run(&["cp", "kept:/root/f", "out"]).ok();
        let _ = run(&["cp", "out", &format!("kept:/root/{name}")]).ok();
        let tar = alice.home.join("tar");
        let _ = run(&["export", "-o", "tar", "kept"]).ok();
        let listed = Run::new("tar").args(["--numeric-owner", "-tvf"]).arg(&tar);
        let listed = listed.args(["root/f", "etc/passwd", "s/a"]).done().ok().stdout;
        for owner in ["5/6", "0/0", "4242/34"] {
            assert!(listed.contains(owner), "{name}: {listed}");
        }
    };
    copied("running");
    assert_eq!(fs::metadata(&out).unwrap().uid(), ID);
    run(&["commit", "kept", "last"]).fails(1, &["cannot be frozen", "--no-pause"]);
    let _ = run(&["commit", "--no-pause", "kept", "early"]).ok();
    let _ = run(&["restart", "-t", "0", "kept"]).ok();
    assert_eq!(inside("stat -c %u:%g /root/f /root/running /s/a"), ["5:6", "0:0", "4242:34"]);
    let _ = run(&["stop", "-t", "0", "kept"]).ok();
    copied("stopped");
    assert_eq!(run(&["diff", "kept"]).ok().lines().len(), 5);
    let _ = run(&["commit", "kept", "last"]).ok();
    let _ = run(&["start", "kept"]).ok();
    let owners = "stat -c %u:%g / /root /root/f /root/running /root/stopped /s/a /s/b";
    let expected = ["0:0", "0:0", "5:6", "0:0", "0:0", "4242:34"];
    assert_eq!(inside(owners)[..6], expected);
    // Without all this the image that was made of it is as any other.
    let plain = run(&["run", "--rm", "--network", "none", "last", "sh", "-c", owners]).ok().lines();
    assert_eq!(plain[..6], expected);
    let _ = run(&["rm", "-f", "kept"]).ok();
}

/// In a cgroup that somebody gave her there are limits, and what else needs one; elsewhere it is said what is missing.
fn limits_of_a_user(w: &World) {
    let alice = User::new();
    let cata = alice.engine(w);
    let elsewhere = |words: &[&str]| -> Done { alice.command(&cata).args(words).done() };
    elsewhere(&["run", "--rm", "-m", "64m", "busybox", "true"])
        .fails(125, &["limits", "without privileges", "systemd-run --user --scope"]);
    let hierarchies = cata_tests::cgroup::hierarchies().unwrap();
    let [top] = hierarchies.as_slice() else { return };
    // As systemd gives her manager one: she is in a cgroup below it.
    let session = top.mount.join("alice/session");
    fs::create_dir_all(&session).unwrap();
    for dir in [top.mount.join("alice"), session.clone()] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(dir.join(file), Some(ID), Some(ID)).unwrap();
        }
    }
    let run = |words: &[&str]| -> Done {
        let enter = format!(r#"echo 0 > {}/cgroup.procs && exec setpriv "$@""#, session.display());
        alice.become_her(Run::new("sh").args(["-c", &enter, "sh"])).arg(&cata).args(words).done()
    };
    let limits = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let caged = ["run", "-d", "--network", "none", "--name", "caged"];
    let started = run(&[&caged[..], &limits, &["busybox", "sleep", "600"]].concat()).ok();
    assert_eq!(started.stderr, "");
    let read = |file: &str| {
        let file = format!("/sys/fs/cgroup/{file}");
        elsewhere(&["exec", "caged", "cat", &file]).text()
    };
    assert_eq!([read("memory.max"), read("pids.max"), read("cpu.max")], ["67108864", "50", "50000 100000"]);
    let _ = run(&["update", "--pids-limit", "60", "caged"]).ok();
    assert_eq!(read("pids.max"), "60");
    assert!(run(&["stats", "--no-stream", "caged"]).ok().stdout.contains("64MiB"));
    // Also from where there is nothing of hers.
    let _ = elsewhere(&["pause", "caged"]).ok();
    assert_eq!(elsewhere(&["inspect", "--format", "{{.State.Status}}", "caged"]).text(), "paused");
    let _ = elsewhere(&["unpause", "caged"]).ok();
    // They are kept: the kernel ends who goes beyond, and it is said.
    let eat = "head -c 100m /dev/zero | tail";
    let eater = "run --network none --name eater -m 16m busybox sh -c".split(' ').chain([eat]);
    let eater: Vec<&str> = eater.collect();
    let _ = run(&eater);
    assert_eq!(elsewhere(&["inspect", "--format", "{{.State.OOMKilled}}", "eater"]).text(), "true");
    let _ = elsewhere(&["rm", "-f", "eater", "caged"]).ok();
    let below = || {
        fs::read_dir(top.mount.join("alice/catamaran"))
            .map_or(0, |dir| dir.flatten().filter(|entry| entry.path().is_dir()).count())
    };
    eventually("the end of their cgroups", PATIENCE, || (below() == 0).then_some(()));
}
