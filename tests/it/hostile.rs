//! Images and Dockerfiles that mean harm: whatever they lead to is theirs, and nothing of the host is read, made or
//! changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cata_tests::bundle::Bundle;
use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::oci_confinement::{Adversary, rounds};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(images_that_lead_to_the_host),
        test!(builds_that_lead_to_the_host),
        test!(containers_that_race),
        test!(volumes_that_lead_to_the_host),
    ]
}

/// A directory of the host with one file in it, as links in images name it.
struct Prey {
    dir: PathBuf,
}

impl Prey {
    fn new(w: &World) -> Self {
        let dir = w.scratch().join("prey");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "evil:x:0:0::/:\n").unwrap();
        Self { dir }
    }

    fn assert_untouched(&self, by: &str) {
        let names: Vec<_> =
            fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{by}");
        assert_eq!(fs::read_to_string(self.dir.join("file")).unwrap(), "evil:x:0:0::/:\n", "{by}");
    }

    /// By way of more parents than there are.
    fn by_parents(&self) -> PathBuf {
        Path::new("../../../../../../..").join(self.dir.strip_prefix("/").unwrap())
    }
}

/// Imports a root file system of busybox that `change` has changed.
fn import(w: &World, name: &str, changes: &[&str], change: impl FnOnce(&Path)) {
    let root = Bundle::new(w, name).rootfs();
    change(&root);
    let tar = w.scratch().join(format!("{name}.tar"));
    let _ = Run::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").done().ok();
    let changes = changes.iter().flat_map(|change| ["-c", change]);
    let words: Vec<&str> =
        ["import"].into_iter().chain(changes).chain([tar.to_str().unwrap(), name]).collect();
    let _ = w.cata(&words).ok();
}

fn images_that_lead_to_the_host(w: &World) {
    let prey = Prey::new(w);
    let at = prey.dir.to_str().unwrap();
    // CVE-2026-55686 (a working directory by way of a link), CVE-2024-9676 (the users of an image are not the host's),
    // CVE-2024-40635 (an id that counts to root again).
    let volume = r#"VOLUME ["/v/made"]"#;
    import(w, "links", &["WORKDIR /wd/made/x", volume, "USER 4294967296"], |root| {
        for (link, to) in [("wd", prey.dir.clone()), ("v", prey.by_parents())] {
            symlink(to, root.join(link)).unwrap();
        }
        for file in ["etc/passwd", "etc/hosts", "etc/hostname"] {
            let _ = fs::remove_file(root.join(file));
        }
        symlink(prey.dir.join("file"), root.join("etc/passwd")).unwrap();
        symlink(prey.dir.join("file"), root.join("etc/hosts")).unwrap();
        symlink(prey.by_parents().join("hostname"), root.join("etc/hostname")).unwrap();
    });
    let run = |options: &[&str], script: &str| {
        w.cata(&[&["run", "--rm", "--network", "none"], options, &["links", "sh", "-c", script]].concat())
    };
    run(&[], "true").fails(125, &["4294967296", "out of range"]);
    run(&["-u", "evil"], "true").fails(125, &["unable to find user evil"]);
    let made =
        [format!("{at}/made/x"), "0".to_owned(), format!("{at}/made/too"), format!("{at}/made/x/here")];
    let script = format!("pwd; id -u; touch here /v/made/too && ls -d {} {}", made[2], made[3]);
    let inside = run(&["-u", "0"], &script).ok().lines();
    assert_eq!(inside, made);
    prey.assert_untouched("links");
    // A container that has run is written to from outside.
    let _ = w.cata(&["create", "--name", "links", "-u", "0", "links", "true"]).ok();
    let file = w.file("copied", "of the host");
    for target in ["links:/wd/copied", "links:/v/copied", "links:/etc/hosts"] {
        let _ = w.cata(&["cp", file.to_str().unwrap(), target]);
    }
    assert_eq!(w.cata(&["cp", "links:/wd/file", "-"]).code(), 1);
    let _ = w.cata(&["rm", "links"]).ok();
    prey.assert_untouched("cp");

    // The whole of `/etc` is somewhere else; what is asked for users never ends.
    import(w, "away", &[], |root| {
        fs::rename(root.join("etc"), root.join("etc2")).unwrap();
        symlink(&prey.dir, root.join("etc")).unwrap();
    });
    let hosts = w.cata(&["run", "--rm", "away", "cat", "/etc/hosts"]).ok().stdout;
    assert!(hosts.contains("localhost"), "{hosts}");
    prey.assert_untouched("away");
    import(w, "endless", &[], |root| {
        let etc = root.join("etc");
        fs::remove_file(etc.join("passwd")).unwrap();
        let _ = fs::remove_file(etc.join("group"));
        let _ = Run::new("mkfifo").arg(etc.join("passwd")).done().ok();
        let _ = Run::new("mknod").arg(etc.join("group")).args(["c", "1", "5"]).done().ok();
    });
    let run =
        |user: &str| w.cata(&["run", "--rm", "--network", "none", "-u", user, "endless", "echo", "begun"]);
    assert_eq!(run("5").text(), "begun");
    run("root").fails(125, &["unable to find user root"]);
    for dir in ["proc", "sys", "dev"] {
        import(w, "own", &[], |root| {
            fs::remove_dir(root.join(dir)).unwrap();
            symlink(&prey.dir, root.join(dir)).unwrap();
        });
        let _ = w.cata(&["run", "--rm", "--network", "none", "own", "true"]);
        prey.assert_untouched(dir);
        let _ = fs::remove_dir_all(w.scratch().join("own"));
    }
}

/// A running container exchanges a directory for a link to the host while it is copied from and to.
fn containers_that_race(w: &World) {
    let prey = Prey::new(w);
    let script = format!(
        "mkdir -p /top/dir /put && echo own > /top/dir/file && ln -s {} /top/link && \
        ln -s {0} /put-link && touch /done && exec sleep 600",
        prey.dir.display()
    );
    let _ =
        w.cata(&["run", "-d", "--name", "racer", "--network", "none", "busybox", "sh", "-c", &script]).ok();
    let root =
        PathBuf::from(format!("/proc/{}/root", w.cata(&["inspect", "-f", "{{.State.Pid}}", "racer"]).text()));
    eventually("its files", PATIENCE, || root.join("done").exists().then_some(()));
    let file = w.file("copied", "of the host");
    let file = file.to_str().unwrap();
    let out = w.scratch().join("out");
    let adversaries = [
        Adversary::exchange(&root.join("top/dir"), &root.join("top/link")),
        Adversary::exchange(&root.join("put"), &root.join("put-link")),
    ];
    let (mut read, mut written) = (0, 0);
    rounds(|| {
        for what in ["racer:/top/dir/file", "racer:/top"] {
            let done = w.cata(&["cp", what, "-"]);
            assert!(!done.stdout.contains("evil"), "{what}: the host's file came out: {done}");
            read += usize::from(done.code() == 0 && done.stdout.contains("own"));
        }
        // Again and again into the same place, where links of the last time are.
        let _ = w.cata(&["cp", "racer:/top/.", out.to_str().unwrap()]);
        if fs::symlink_metadata(out.join("dir")).is_ok_and(|file| file.is_dir()) {
            assert!(!fs::read_to_string(out.join("dir/file")).unwrap_or_default().contains("evil"));
        }
        for target in ["racer:/put", "racer:/put/copied", "racer:/put/new/"] {
            written += usize::from(w.cata(&["cp", file, target]).code() == 0);
        }
        prey.assert_untouched("cp");
        read > 0 && written > 0
    });
    drop(adversaries);
    assert!(read > 0 && written > 0, "nothing was copied");
    let _ = w.cata(&["rm", "-f", "racer"]).ok();
}

/// What one container has made of a path in a volume is not what another one gets of the host.
fn volumes_that_lead_to_the_host(w: &World) {
    let prey = Prey::new(w);
    let at = prey.dir.display();
    let script = format!(
        "mkdir -p /v/dir /v{at} && echo own > /v/dir/file && echo own > /v{at}/file && ln -s {at} /v/link && \
        ln -s {} /v/up && ln -s dir /v/good && mkfifo /v/pipe && ln -s /proc/self/root /v/magic",
        prey.by_parents().display()
    );
    let _ = w.cata(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", &script]).ok();
    let run = |path: &str, more: &[&str]| {
        let mount = format!("source=vol,target=/m,volume-subpath={path}");
        let script = "cat /m/file 2>/dev/null; touch /m/made 2>/dev/null; true";
        let options = ["run", "--rm", "--network", "none", "--mount", &mount];
        w.cata(&[&options, more, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(run("dir", &[]).text(), "own");
    assert_eq!(run("good", &[]).text(), "own");
    for path in ["link", "up"] {
        for more in [&[][..], &["--userns", "auto"]] {
            assert_eq!(run(path, more).text(), "own", "{path} {more:?}");
            prey.assert_untouched(path);
        }
    }
    assert_ne!(run("magic", &[]).code(), 0);
    run("../vol", &[]).fails(125, &["volume-subpath"]);
    // Of a container that does not run, from outside.
    let mount = "source=vol,target=/m,volume-subpath=link";
    let _ = w.cata(&["create", "--name", "still", "--mount", mount, "busybox", "true"]).ok();
    let file = w.file("copied", "of the host");
    let _ = w.cata(&["cp", file.to_str().unwrap(), "still:/m/copied"]).ok();
    assert!(w.cata(&["cp", "still:/m/file", "-"]).ok().stdout.contains("own"));
    let _ = w.cata(&["rm", "still"]).ok();
    prey.assert_untouched("cp");

    // And exchanged while containers start.
    let files = PathBuf::from(w.cata(&["volume", "inspect", "-f", "{{.Mountpoint}}", "vol"]).text());
    let adversary = Adversary::exchange(&files.join("dir"), &files.join("link"));
    let mut ran = 0;
    rounds(|| {
        let done = run("dir", &[]);
        assert!(!done.stdout.contains("evil"), "{done}");
        prey.assert_untouched("a race");
        ran += usize::from(done.code() == 0);
        ran > 0
    });
    drop(adversary);
    assert!(ran > 0, "no container started");
}

/// CVE-2024-1753, CVE-2024-9407, CVE-2024-9675, CVE-2024-11218, CVE-2024-23652.
fn builds_that_lead_to_the_host(w: &World) {
    let prey = Prey::new(w);
    let at = prey.dir.to_str().unwrap();
    import(w, "links", &[], |root| {
        symlink(&prey.dir, root.join("link")).unwrap();
        symlink(prey.by_parents(), root.join("up")).unwrap();
        symlink("/", root.join("top")).unwrap();
    });
    let context = w.scratch().join("context");
    fs::create_dir(&context).unwrap();
    symlink(&prey.dir, context.join("link")).unwrap();
    symlink(prey.dir.join("file"), context.join(".dockerignore")).unwrap();
    let build = |text: &str| {
        fs::write(context.join("Dockerfile"), text).unwrap();
        let done = w.cata(&["build", "--network", "none", "-t", "built", context.to_str().unwrap()]);
        prey.assert_untouched(text);
        done
    };
    let touch =
        format!("touch /m/pwned /m{at}/pwned 2>/dev/null; test ! -e /m/file && test ! -e /m{at}/file");
    // What the image has at the end of its links, it has not: the host's directory is in none.
    for mount in [
        "bind,from=links,source=/link,target=/m,rw",
        "bind,from=links,source=/up,target=/m,rw",
        "bind,source=link,target=/m,rw",
        "cache,from=links,source=/link,target=/m",
    ] {
        build(&format!("FROM busybox\nRUN --mount=type={mount} {touch}\n")).fails(1, &["not found"]);
    }
    for mount in [
        "bind,from=links,source=/top,target=/m,rw".to_owned(),
        format!("cache,id=../../../../../../..{at},target=/m"),
        "cache,from=links,source=../../../../../tmp,target=/m".to_owned(),
    ] {
        let _ = build(&format!("FROM busybox\nRUN --mount=type={mount} {touch}\n")).ok();
    }
    for copy in ["COPY link/file /f", "COPY --from=links /link/file /f", "COPY --from=links /up/ /f/"] {
        build(&format!("FROM busybox\n{copy}\n")).fails(1, &["not found"]);
    }
    // Places of mounts are taken away after a step: beneath the step's own root, whatever has become of it.
    let step = format!("mv /sub /moved && ln -s {at} /sub || true");
    let _ = build(&format!("FROM busybox\nRUN --mount=type=bind,source=.,target=/sub/file {step}\n")).ok();
    let _ = build(&format!("FROM busybox\nRUN --mount=type=tmpfs,target=/sub/file {step}\n")).ok();
    let into = "FROM links\nCOPY Dockerfile /link/one\nADD Dockerfile /up/x/two\nWORKDIR /link/made\nRUN touch three\n";
    let _ = build(into).ok();
    // A context that came as a stream has no Dockerfile outside of it.
    fs::remove_file(context.join("Dockerfile")).unwrap();
    symlink(prey.dir.join("file"), context.join("Dockerfile")).unwrap();
    let tar = w.scratch().join("context.tar");
    let _ = Run::new("tar").arg("-C").arg(&context).arg("-cf").arg(&tar).arg(".").done().ok();
    let done = w.cata_run(["build", "-"]).input(fs::read(&tar).unwrap()).done();
    done.fails(1, &["not in the build context"]);
    prey.assert_untouched("a stream");
}
