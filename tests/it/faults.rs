//! Faults: killed at any moment, nothing is lost and nothing leaks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::{World, pids};

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(commands_at_once_leave_nothing),
        test!(damaged_container_hides_nobody_else),
        test!(damaged_volumes_and_networks_hide_no_others),
        test!(what_disks_and_power_cuts_do_is_found_and_mended),
        test!(run_killed_at_any_moment),
        test!(rm_killed_at_any_moment),
        test!(pull_and_load_killed_at_any_moment),
        test!(supervisor_killed),
        test!(supervisors_killed_with_ports_and_names),
        test!(starts_at_once_do_not_collide),
        test!(same_name_at_once_has_one_winner),
        test!(state_lost_as_after_a_reboot),
        test!(disk_full),
    ]
}

/// Moments from before anything happened to after all of it, in milliseconds.
const MOMENTS: [u64; 16] = [0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 20, 26, 35, 50, 80, 150];

fn run_killed_at_any_moment(w: &World) {
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let name = format!("c{n}");
        let mut client = w
            .cata_run([
                "run", "-d", "--name", &name, "-p", "8080:80", "-v", "/data", "busybox", "sleep", "600",
            ])
            .start();
        std::thread::sleep(Duration::from_millis(moment));
        client.kill();
        // Whatever was made is whole: listed and running or created, or not there at all.
        let listed = w.cata(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).lines();
        for line in &listed {
            assert!(
                ["created", "running", "exited"].iter().any(|s| line.ends_with(s)),
                "{line} at {moment} ms"
            );
        }
        if listed.iter().any(|line| line.starts_with(&format!("{name} "))) {
            let _ = w.cata(&["rm", "-f", "-v", &name]).ok();
        }
        // Name and port are free.
        let _ = w.cata(&["run", "--rm", "--name", &name, "-p", "8080:80", "busybox", "true"]).ok();
    }
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
}

fn rm_killed_at_any_moment(w: &World) {
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let name = format!("c{n}");
        let _ = w.cata(&["run", "-d", "--name", &name, "-v", "/data", "busybox", "sleep", "600"]).ok();
        let mut client = w.cata_run(["rm", "-f", "-v", &name]).start();
        std::thread::sleep(Duration::from_millis(moment));
        client.kill();
        let _ = w.cata(&["rm", "-f", "-v", &name]).ok();
        assert_eq!(w.cata(&["ps", "-aq"]).text(), "", "at {moment} ms");
    }
}

fn pull_and_load_killed_at_any_moment(w: &World) {
    let file = w.scratch().join("saved.tar");
    let path = file.to_str().unwrap();
    let _ = w.cata(&["save", "-o", path, "busybox"]).ok();
    for moment in MOMENTS {
        let _ = w.cata(&["rmi", "-f", "busybox"]);
        let mut client = w.cata_run(["load", "-i", path]).start();
        std::thread::sleep(Duration::from_millis(moment));
        client.kill();
        // If it is listed, it runs; if not, it can be loaded.
        if w.cata(&["images", "-q"]).text().is_empty() {
            let _ = w.cata(&["load", "-i", path]).ok();
        }
        let _ = w.cata(&["run", "--rm", "busybox", "true"]).ok();
    }
    let partial: Vec<_> =
        std::fs::read_dir(w.root().join("layers")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(partial.len(), 1, "half-made layers are left: {partial:?}");
}

/// The supervisors: every process of that name.
fn supervisors() -> Vec<u32> {
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids().into_iter().filter(|pid| name(pid).trim().starts_with("cata-supervis")).collect()
}

/// Kills them and waits for the kernel to have taken them away: what they held open is free then.
fn kill_all(pids: &[u32]) {
    for pid in pids {
        let _ = Run::new("kill").args(["-9", &pid.to_string()]).done();
    }
    eventually("the killed are gone", PATIENCE, || {
        pids.iter().all(|pid| !Path::new("/proc").join(pid.to_string()).exists()).then_some(())
    });
}

fn supervisor_killed(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "cc", "busybox", "sleep", "600"]).ok();
    let process = w.field("cc", "{{.State.Pid}}");
    // What it forked in starting may be there for another moment.
    let found =
        eventually("one supervisor", PATIENCE, || Some(supervisors()).filter(|found| found.len() == 1));
    kill_all(&found);
    // Without its supervisor a container is not left running unwatched.
    eventually("it is exited", PATIENCE, || (w.field("cc", "{{.State.Status}}") == "exited").then_some(()));
    eventually("its process goes with its supervisor", PATIENCE, || {
        (!Path::new("/proc").join(&process).exists()).then_some(())
    });
    let _ = w.cata(&["start", "cc"]).ok();
    assert_eq!(w.field("cc", "{{.State.Status}}"), "running");
    let _ = w.cata(&["exec", "cc", "true"]).ok();
}

fn supervisors_killed_with_ports_and_names(w: &World) {
    let _ = w.cata(&["network", "create", "sea"]).ok();
    for n in 0..3 {
        let port = format!("808{n}:80");
        let name = format!("c{n}");
        let _ = w
            .cata(&["run", "-d", "--name", &name, "--network", "sea", "-p", &port, "busybox", "sleep", "600"])
            .ok();
    }
    kill_all(&supervisors());
    let _ = w.cata(&["ps", "-a"]).ok();
    let _ = w.cata(&["rm", "-f", "c0", "c1", "c2"]).ok();
    for n in 0..3 {
        let _ = w
            .cata(&[
                "run",
                "--rm",
                "--name",
                &format!("c{n}"),
                "--network",
                "sea",
                "-p",
                &format!("808{n}:80"),
                "busybox",
                "true",
            ])
            .ok();
    }
}

fn starts_at_once_do_not_collide(w: &World) {
    let all: Vec<_> = (0..24)
        .map(|n| {
            w.cata_run(["run", "-d", "--name", &format!("c{n}"), "-p", "80", "busybox", "sleep", "600"])
                .start()
        })
        .collect();
    for running in all {
        let _ = running.done(PATIENCE).ok();
    }
    assert_eq!(w.cata(&["ps", "-q"]).lines().len(), 24);
    let ids = w.cata(&["ps", "-q"]).lines();
    let mut addresses: Vec<_> = ids
        .iter()
        .map(|id| w.field(id, "{{(index .NetworkSettings.Networks \"bridge\").IPAddress}}"))
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 24);
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    let _ = w.cata(&args).ok();
}

fn same_name_at_once_has_one_winner(w: &World) {
    let all: Vec<_> = (0..8)
        .map(|_| w.cata_run(["run", "-d", "--name", "one", "busybox", "sleep", "600"]).start())
        .collect();
    let codes: Vec<_> = all.into_iter().map(|running| running.done(PATIENCE).code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 125).count(), 7, "{codes:?}");
    assert_eq!(w.cata(&["ps", "-aq"]).lines().len(), 1);
}

fn state_lost_as_after_a_reboot(w: &World) {
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "cc",
            "-v",
            "data:/d",
            "-p",
            "8080:80",
            "busybox",
            "sh",
            "-c",
            "echo x >> /d/f; sleep 600",
        ])
        .ok();
    eventually("it has written", PATIENCE, || {
        (w.cata(&["exec", "cc", "test", "-s", "/d/f"]).code() == 0).then_some(())
    });
    let process: u32 = w.field("cc", "{{.State.Pid}}").parse().unwrap();
    kill_all(&supervisors());
    kill_all(&[process]);
    std::fs::remove_dir_all(w.state()).unwrap();
    assert_eq!(w.field("cc", "{{.State.Status}}"), "exited");
    let _ = w.cata(&["start", "cc"]).ok();
    eventually("it has written again", PATIENCE, || {
        (w.cata(&["exec", "cc", "cat", "/d/f"]).text() == "x\nx").then_some(())
    });
}

fn disk_full(w: &World) {
    let small = w.scratch().join("small");
    std::fs::create_dir(&small).unwrap();
    let _ = Run::new("mount").args(["-t", "tmpfs", "-o", "size=1500k", "tmpfs"]).arg(&small).done().ok();
    let tar = cata_tests::cache::Recipe::of("busybox").made().unwrap();
    let import = || w.cata_run(["import"]).arg(&tar).arg("busybox").env("CATA_ROOT", &small).done();
    import().fails(1, &["no space left"]);
    let left = w.cata_run(["images", "-aq"]).env("CATA_ROOT", &small).done().text();
    assert_eq!(left, "");
    let _ = Run::new("mount").args(["-o", "remount,size=20m"]).arg(&small).done().ok();
    let _ = import().ok();
    let _ = Run::new("umount").arg("-l").arg(&small).done().ok();
}

fn damaged_container_hides_nobody_else(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "good", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["network", "create", "sea"]).ok();
    for (file, text) in [("record.json", "{"), ("record.json", ""), ("record.json", "{\"version\":1}")] {
        let run =
            ["run", "-d", "--name", "bad", "--network", "sea", "-p", "8080:80", "busybox", "sleep", "600"];
        let id = w.cata(&run).text();
        std::fs::write(w.root().join("containers").join(&id).join(file), text).unwrap();
        let done = w.cata(&["ps", "-a", "--format", "{{.Names}}"]).ok();
        assert_eq!(done.stdout, "good\n");
        assert!(done.stderr.contains(&id[..12]) && done.stderr.contains(file), "{done}");
        let _ = w.cata(&["info"]).ok();
        w.cata(&["inspect", "bad"]).fails(1, &["damaged", &id]);
        w.cata(&["rm", "bad"]).fails(1, &["damaged"]);
        // Its image may be in use by it: nobody can tell.
        let _ = w.cata(&["rmi", "busybox"]).exits(1);
        let _ = w.cata(&["rm", "-f", "bad"]).ok();
        assert_eq!(w.cata(&["ps", "-a"]).ok().stderr, "");
    }
}

fn damaged_volumes_and_networks_hide_no_others(w: &World) {
    for name in ["bad", "good"] {
        let _ = w.cata(&["volume", "create", name]).ok();
        let _ = w.cata(&["network", "create", name]).ok();
    }
    let networks = w.root().join("networks");
    std::fs::write(w.root().join("volumes/bad/record.json"), "{").unwrap();
    std::fs::write(w.root().join("volumes/stray"), "of no use").unwrap();
    let whole = std::fs::read(networks.join("bad/record.json")).unwrap();
    std::fs::write(networks.join("bad/record.json"), "{").unwrap();
    let done = w.cata(&["volume", "ls", "-q"]).ok();
    assert_eq!(done.stdout, "good\n");
    assert!(done.stderr.contains("volume bad") && done.stderr.contains("volume rm -f"), "{done}");
    let done = w.cata(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(done.stdout.contains("good\n") && !done.stdout.contains("bad"), "{done}");
    assert!(done.stderr.contains("network bad"), "{done}");
    let _ = w.cata(&["system", "df"]).ok();
    w.cata(&["volume", "rm", "bad"]).fails(1, &["damaged", "bad"]);
    let _ = w.cata(&["volume", "rm", "-f", "bad"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).ok().stderr, "");
    // Its interface is known by its record alone.
    std::fs::write(networks.join("bad/record.json"), whole).unwrap();
    let _ = w.cata(&["network", "rm", "bad"]).ok();
}

/// Another file of that name and mode: other worlds have the one that was there by other names.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::set_permissions(&new, std::fs::metadata(path).unwrap().permissions()).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn what_disks_and_power_cuts_do_is_found_and_mended(w: &World) {
    let check = |words: &[&str], code: i32, texts: &[&str]| {
        let mut done = w.cata(&[&["system", "check"], words].concat()).exits(code);
        for text in texts {
            done = done.says(text);
        }
        // Nothing is said twice.
        assert_eq!(done.stderr, "", "{done}");
    };
    let run = ["run", "-d", "--name", "web", "-v", "data:/data", "busybox", "sleep", "600"];
    let id = w.cata(&run).text();
    check(&[], 0, &["1 containers, 1 volumes", ": all sound"]);
    // A file of an unpacked layer, while somebody runs on it and when nobody does.
    let layer = PathBuf::from(w.field("web", "{{.GraphDriver.Data.LowerDir}}"));
    let whole = std::fs::read(layer.join("bin/busybox")).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    replace(&layer.join("bin/busybox"), &bytes);
    check(&["--quick"], 0, &[": all sound"]);
    check(&[], 1, &["damaged: layer sha256:", "/bin/busybox has other content", "--repair"]);
    check(&["--repair"], 1, &["/bin/busybox has other content", "container web runs on it"]);
    let _ = w.cata(&["stop", "-t", "0", "web"]).ok();
    check(&["--repair"], 0, &["repaired: layer sha256:", "unpacked again", "1 repaired, all sound now"]);
    assert_eq!(std::fs::read(layer.join("bin/busybox")).unwrap(), whole);
    // A name, a record, a volume.
    std::fs::remove_file(w.root().join("names/web")).unwrap();
    check(&["--repair"], 0, &["container web: its name does not lead to it (it has its name again)"]);
    let _ = w.cata(&["volume", "create", "bad"]).ok();
    std::fs::write(w.root().join("volumes/bad/record.json"), "{").unwrap();
    check(&["--repair"], 1, &["damaged: volume bad: ", "cata volume rm -f"]);
    let _ = w.cata(&["volume", "rm", "-f", "bad"]).ok();
    let data = w.root().join("volumes/data/_data");
    std::fs::remove_dir(&data).unwrap();
    check(&["--repair"], 1, &["container web: its volume's files", "are missing"]);
    std::fs::create_dir(&data).unwrap();
    // A blob, and what a pull would bring again.
    let id_of_image = w.field("web", "{{.Image}}");
    let blob = w.root().join("content/blobs/sha256").join(id_of_image.trim_start_matches("sha256:"));
    let document = std::fs::read(&blob).unwrap();
    replace(&blob, b"{");
    check(&[], 1, &["its content has digest", "(image busybox:latest)", "cata pull busybox:latest"]);
    let list = w.cata(&["images", "-q"]).ok();
    assert!(list.stderr.contains("image busybox:latest") && list.stderr.contains("cata rmi"), "{list}");
    replace(&blob, &document);
    // The power goes before a layer made here is on the disk for certain: its container starts with all of it.
    let _ = w.cata(&["start", "web"]).ok();
    let _ = w.cata(&["exec", "web", "sh", "-c", "echo precious > /file"]).ok();
    let _ = w.cata(&["commit", "web", "made"]).ok();
    let _ = w.cata(&["create", "--name", "late", "made", "cat", "/file"]).ok();
    let layers = w.field("late", "{{.GraphDriver.Data.LowerDir}}");
    let top = PathBuf::from(layers.split(':').next().unwrap());
    replace(&top.join("file"), b"");
    let record = top.parent().unwrap().join("layer.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&record, text.replace(boot.trim(), "another")).unwrap();
    assert_eq!(w.cata(&["start", "-a", "late"]).text(), "precious");
    check(&[], 0, &[": all sound"]);
    let _ = w.cata(&["rm", "-f", "late", &id]).ok();
}

/// Everybody does something else to the same few containers. Most of it fails, as it should; nothing may be left
/// that nobody owns, which the harness looks for, and no answer may be a muddle.
fn commands_at_once_leave_nothing(w: &World) {
    let worker = |mut seed: usize| {
        let mut muddles = Vec::new();
        for _ in 0..25 {
            let mut pick = |of: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) % of
            };
            let (one, other) = (format!("n{}", pick(3)), format!("n{}", pick(3)));
            let port = format!("80{:02}:80", pick(20));
            let line = match pick(18) {
                0 | 1 => format!("run -d --name {one} -p {port} busybox sleep 600"),
                // Images and volumes that others take away this moment.
                9 => format!("run -d --name {one} --pull never -v vv:/d copied sleep 600"),
                10 => "run --rm --pull never -v vv:/d copied true".to_owned(),
                11 => "tag busybox copied".to_owned(),
                12 => format!("commit {one} copied"),
                13 => "rmi -f copied".to_owned(),
                14 => "image prune -f".to_owned(),
                15 => "volume rm vv".to_owned(),
                16 => "volume prune -a -f".to_owned(),
                17 => "volume create vv".to_owned(),
                2 => format!("create --name {one} busybox true"),
                3 => format!("start {one}"),
                4 => format!("stop -t 0 {one}"),
                5 => format!("rm -f {one}"),
                6 => format!("rename {one} {other}"),
                7 => format!("restart -t 0 {one}"),
                _ => format!("exec {one} true"),
            };
            let done = w.cata(&line.split(' ').collect::<Vec<_>>());
            // Whether nobody is there, or nobody is there any more, is said in words; what a container is made
            // of is there as long as the container.
            let muddled =
                ["unexpected answer", "internal", "panicked", "o such file", "has lost", "does not exist"];
            if muddled.iter().any(|word| done.stderr.contains(word)) {
                muddles.push(done.to_string());
            }
        }
        muddles
    };
    let muddles: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=8).map(|seed| scope.spawn(move || worker(seed * 7919))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(muddles.is_empty(), "{}", muddles.join("\n"));
    let names = w.cata(&["ps", "-aq"]).lines();
    if !names.is_empty() {
        let mut args = vec!["rm", "-f"];
        args.extend(names.iter().map(String::as_str));
        let _ = w.cata(&args).ok();
    }
    // One that has been told to end may still be at it.
    eventually("no supervisor is without a container", PATIENCE, || supervisors().is_empty().then_some(()));
}
