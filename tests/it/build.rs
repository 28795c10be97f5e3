//! `build`: images from Dockerfiles, the cache, what must not get out, and faults in the middle.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_tests::command::{Done, PATIENCE, Run, cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::registry::{Registry, Settings};
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(multi_stage_image_and_full_cache),
        test!(cache_follows_content_and_nothing_else),
        test!(arguments_heredocs_and_metadata),
        test!(copies_of_every_kind),
        test!(archives_are_added).needs(&["zstd"]),
        test!(mounts_of_a_step),
        test!(secrets_get_nowhere),
        test!(agents_sign_for_steps).needs(&["ssh-agent"]),
        test!(networks_of_a_step),
        test!(failing_steps_are_pointed_at),
        test!(faults_of_a_dockerfile_are_pointed_at),
        test!(dockerfiles_are_looked_at),
        test!(hostile_contexts),
        test!(contexts_and_dockerfiles_from_stdin),
        test!(outputs),
        test!(built_image_is_read_by_skopeo).needs(&["skopeo"]),
        test!(same_digests_on_two_roots),
        test!(build_killed_at_any_moment),
        test!(interrupted_build_cleans_up),
        test!(builds_at_once_share_steps),
        test!(disk_full_leaves_a_sound_cache),
        test!(cache_is_listed_and_pruned),
        test!(steps_travel).needs(&["docker-registry"]),
    ]
}

/// A context of these files.
fn context(w: &World, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = w.scratch().join(name);
    for (file, content) in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn build(w: &World, dir: &Path, args: &[&str]) -> Done {
    w.cata_run(["build", "--progress", "plain"]).args(args).arg(dir).patience(Duration::from_secs(120)).done()
}

fn sh(w: &World, image: &str, script: &str) -> String {
    w.cata(&["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script]).text()
}

fn id(w: &World, image: &str) -> String {
    w.cata(&["image", "inspect", "--format", "{{.Id}}", image]).text()
}

fn multi_stage_image_and_full_cache(w: &World) {
    let dockerfile = "FROM busybox AS compile\nWORKDIR /src\nCOPY main.c lib/ ./\nRUN mkdir /out && cat main.c x > /out/app && chmod 755 /out/app\n\
        FROM busybox AS unused\nRUN false\n\
        FROM busybox\nLABEL who=me\nENV GREETING=\"hello there\"\nCOPY --from=compile /out/app /usr/local/bin/\nRUN rm -r /var/www && touch /made\n\
        USER daemon\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD true\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $GREETING; id -un\"]\n";
    let dir = context(w, "app", &[("Dockerfile", dockerfile), ("main.c", "main\n"), ("lib/x", "x\n")]);
    let first = build(w, &dir, &["-t", "app:1"]).ok();
    assert!(!first.stderr.contains("RUN false"), "a stage that nothing needs was built: {first}");
    assert_eq!(w.cata(&["run", "--rm", "app:1"]).text(), "hello there\ndaemon");
    assert_eq!(
        sh(w, "app:1", "cat /usr/local/bin/app; ls /var /made; stat -c '%a %u' /usr/local/bin/app"),
        "main\nx\n/made\n\n/var:\nspool\ntmp\n755 0"
    );
    let image = w.cata(&["image", "inspect", "app:1"]).json()[0].take();
    let config = &image["Config"];
    assert_eq!((config["User"].as_str(), config["StopSignal"].as_str()), (Some("daemon"), Some("SIGINT")));
    assert_eq!(config["Labels"]["who"], "me");
    assert!(config["ExposedPorts"]["53/udp"].is_object() && config["Volumes"]["/data"].is_object());
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
    // The base's layer, a COPY and a RUN; the lines that only say something are in the history.
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    let history = w.cata(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "app:1"]).lines();
    assert!(history.iter().any(|line| line == "RUN /bin/sh -c rm -r /var/www && touch /made"), "{history:?}");
    assert!(history.iter().any(|line| line == "ENV GREETING=hello there"), "{history:?}");

    let again = build(w, &dir, &["-t", "app:2"]).ok();
    assert_eq!(id(w, "app:2"), id(w, "app:1"));
    assert!(again.stderr.contains("5 of 5 steps cached"), "{again}");
    // A removed image takes nothing from the cache.
    let _ = w.cata(&["rmi", "app:1", "app:2"]).ok();
    let once_more = build(w, &dir, &["-q"]).ok();
    assert_eq!(once_more.stderr, "");
    assert!(once_more.stdout.starts_with("sha256:"));
    let _ = w.cata(&["run", "--rm", once_more.stdout.trim()]).ok().says("hello there");
    let _ = build(w, &dir, &["-t", "compiled", "--target", "compile"]).ok();
    assert_eq!(sh(w, "compiled", "ls /src"), "main.c\nx");
}

fn cache_follows_content_and_nothing_else(w: &World) {
    let dockerfile = |label: &str| {
        format!(
            "FROM busybox\nLABEL l={label}\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY b /b\nRUN cat /stamp\n"
        )
    };
    let dir = context(w, "c", &[("Dockerfile", &dockerfile("1")), ("a", "a"), ("b", "b")]);
    let stamp = |w: &World| {
        let _ = build(w, &dir, &["-t", "c"]).ok();
        sh(w, "c", "cat /stamp")
    };
    let first = stamp(w);
    // Another time, another label, another file further down, a file that nothing copies.
    let file = fs::File::options().append(true).open(dir.join("a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(dir.join("Dockerfile"), dockerfile("2")).unwrap();
    fs::write(dir.join("b"), "changed").unwrap();
    fs::write(dir.join("other"), "x").unwrap();
    assert_eq!(stamp(w), first);
    assert_eq!(sh(w, "c", "cat /b"), "changed");
    assert_eq!(w.cata(&["image", "inspect", "--format", "{{.Config.Labels.l}}", "c"]).text(), "2");
    // The mode counts, and content of the same length.
    fs::write(dir.join("a"), "z").unwrap();
    let second = stamp(w);
    assert_ne!(second, first);
    // What was made once is found again.
    fs::write(dir.join("a"), "a").unwrap();
    assert_eq!(stamp(w), first);
    let _ = build(w, &dir, &["-t", "c", "--no-cache"]).ok();
    let third = sh(w, "c", "cat /stamp");
    assert_ne!(third, first);
    // And is what later builds go on from.
    assert_eq!(stamp(w), third);
}

fn arguments_heredocs_and_metadata(w: &World) {
    let dockerfile = "ARG BASE=busybox\nFROM ${BASE} AS one\nARG V=default\nARG EMPTY\nENV E=${V}-${EMPTY:-none}\n\
        RUN <<EOF\nset -e\necho \"$V $E\" > /run-out\nEOF\n\
        RUN <<SCRIPT\n#!/bin/sh\necho script > /script-out\nSCRIPT\n\
        COPY <<EOF <<'RAW' /docs/\nv=$V\nEOF\nv=$V\nRAW\n\
        SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo $0 $TARGETPLATFORM > /shell-out\n\
        ARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
        ONBUILD RUN echo triggered > /trigger\n";
    let dir = context(w, "args", &[("Dockerfile", dockerfile)]);
    let _ = build(w, &dir, &["-t", "one", "--build-arg", "V=given", "--label", "from=outside"]).ok();
    let said =
        sh(w, "one", "cat /run-out /script-out /docs/EOF /docs/RAW; ls /dev/pipes 2>&1 | head -1; cat /arch");
    let arch = cata_tests::archive::architecture();
    assert_eq!(
        said,
        format!("given given-none\nscript\nv=given\nv=$V\nls: /dev/pipes: No such file or directory\n{arch}")
    );
    assert_eq!(w.cata(&["image", "inspect", "--format", "{{.Config.Labels.from}}", "one"]).text(), "outside");
    fs::write(dir.join("Child"), "FROM one\nCMD cat /trigger\n").unwrap();
    let unused =
        build(w, &dir, &["-t", "child", "-f", dir.join("Child").to_str().unwrap(), "--build-arg", "NOPE=1"])
            .ok();
    assert!(unused.stderr.contains("[NOPE] were not consumed"), "{unused}");
    assert_eq!(w.cata(&["run", "--rm", "child"]).text(), "triggered");
    let checked = build(w, &dir, &["--check", "-f", dir.join("Child").to_str().unwrap()]);
    checked.fails(1, &[]);
}

fn copies_of_every_kind(w: &World) {
    let dockerfile = "FROM busybox AS from\nRUN mkdir -p /d/sub && echo x > /d/sub/x && ln -s sub/x /d/link && chown -R 7:8 /d && chmod 4755 /d/sub/x && mkfifo /d/pipe\n\
        FROM busybox\nWORKDIR /w\nCOPY a.txt renamed\nCOPY *.txt into/\nCOPY dir dir\nCOPY --chmod=u=rw,go=r --chown=daemon:mail a.txt owned\n\
        COPY --parents dir/deep/f.md parents/\nCOPY --exclude=*.md --exclude=deep dir excluded/\nCOPY --link a.txt /linked/a\n\
        COPY --from=from /d /d\nCOPY --from=from --chown=1:1 /d/sub/x ./\nCOPY --from=busybox /etc/passwd ./passwd\nADD a.txt added\n\
        COPY tolink /bin/../w/into/\n";
    let files =
        [("a.txt", "a"), ("b.txt", "b"), ("dir/f.md", "f"), ("dir/g", "g"), ("dir/deep/f.md", "deep")];
    let dir = context(w, "copies", &files);
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    symlink("a.txt", dir.join("tolink")).unwrap();
    fs::set_permissions(dir.join("dir/deep"), fs::Permissions::from_mode(0o710)).unwrap();
    let _ = build(w, &dir, &["-t", "copies"]).ok();
    let list = sh(
        w,
        "copies",
        "find . | sort; stat -c '%n %a %u %g' owned x /d/sub/x /d /d/link parents/dir/deep; cat /linked/a; ls -l /d/pipe | cut -c1; readlink /d/link",
    );
    let wanted = ".\n./added\n./dir\n./dir/deep\n./dir/deep/f.md\n./dir/f.md\n./dir/g\n./excluded\n./excluded/g\n./into\n./into/a.txt\n./into/b.txt\n./into/tolink\n\
        ./owned\n./parents\n./parents/dir\n./parents/dir/deep\n./parents/dir/deep/f.md\n./passwd\n./renamed\n./x\n\
        owned 644 1 8\nx 4755 1 1\n/d/sub/x 4755 7 8\n/d 755 0 0\n/d/link 777 7 8\nparents/dir/deep 710 0 0\nap\nsub/x";
    assert_eq!(list, wanted);
    // A linked layer stands on its own: another base, the same layer.
    fs::write(dir.join("Linked"), "FROM copies\nCOPY --link a.txt /linked/a\n").unwrap();
    let said = build(w, &dir, &["-t", "linked", "-f", dir.join("Linked").to_str().unwrap()]).ok();
    assert!(said.stderr.contains("1 of 1 steps cached"), "{said}");
    // Over what is there.
    fs::write(
        dir.join("Over"),
        "FROM busybox\nRUN mkdir /t && echo old > /t/f && ln -s /etc /t/dir\nCOPY over/ /t/\n",
    )
    .unwrap();
    let _ = context(w, "copies/over", &[("f", "new"), ("dir/from-context", "y")]);
    let _ = build(w, &dir, &["-t", "over", "-f", dir.join("Over").to_str().unwrap()]).ok();
    assert_eq!(sh(w, "over", "cat /t/f /etc/from-context"), "newy");
}

fn archives_are_added(w: &World) {
    let dir = context(w, "add", &[("inner/f", "f"), ("inner/d/g", "g"), ("plain.gz", "no archive")]);
    let tar = |args: &[&str]| {
        let _ = Run::new("tar").arg("-C").arg(dir.join("inner")).args(args).arg(".").done().ok();
    };
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    tar(&["--owner=7", "--group=8", "-cf", &path("a.tar")]);
    tar(&["-czf", &path("a.tgz")]);
    tar(&["--zstd", "-cf", &path("a.tar.zst")]);
    let dockerfile = "FROM busybox\nRUN ln -s /etc /link\nADD a.tar /one/\nADD --chown=1:2 a.tgz /two\nADD a.tar.zst /link/three/\nADD plain.gz /plain\nADD --unpack=false a.tgz /kept\nCOPY a.tar /copied\n";
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    let _ = build(w, &dir, &["-t", "add"]).ok();
    let said = sh(
        w,
        "add",
        "cat /one/f /one/d/g /two/f /etc/three/d/g /plain; stat -c '%u %g' /one/f /two/f; ls /kept /copied",
    );
    assert_eq!(said, "fgfgno archive7 8\n1 2\n/copied\n/kept");
}

fn mounts_of_a_step(w: &World) {
    let dockerfile = "FROM busybox AS tool\nRUN mkdir /tool && echo tool > /tool/t\nFROM busybox\nARG N\n\
        RUN --mount=type=cache,target=/cache,id=c,uid=1 echo $N >> /cache/log; cp /cache/log /seen; stat -c %u /cache > /owner\n\
        RUN --mount=type=bind,target=/ctx --mount=from=tool,source=/tool,target=/tool cat /ctx/f /tool/t > /bound; touch /ctx/w 2>/dev/null && echo writable >> /bound; true\n\
        RUN --mount=type=bind,target=/ctx,rw touch /ctx/w && echo ok >> /bound\n\
        RUN --mount=type=tmpfs,target=/t,size=1m mount | grep -c 'on /t type tmpfs' >> /bound; touch /t/x\n\
        RUN --mount=type=cache,target=/cache,id=c,readonly --mount=type=cache,target=/private,sharing=locked touch /private/p; cat /cache/log > /seen2\n";
    let dir = context(
        w,
        "mounts",
        &[("Dockerfile", dockerfile), ("f", "f\n"), ("ignored", "i"), (".dockerignore", "ignored\n")],
    );
    let _ = build(w, &dir, &["-t", "m", "--build-arg", "N=1"]).ok();
    assert_eq!(
        sh(
            w,
            "m",
            "cat /seen /owner /bound /seen2; ls -d /cache /ctx /tool /t /private 2>&1 | grep -c 'No such'"
        ),
        "1\n1\nf\ntool\nok\n1\n1\n5"
    );
    assert!(!dir.join("w").exists());
    // What a cache holds outlives the build, and another image.
    let _ = build(w, &dir, &["-t", "m", "--build-arg", "N=2"]).ok();
    assert_eq!(sh(w, "m", "cat /seen"), "1\n2");
}

fn secrets_get_nowhere(w: &World) {
    const SECRET: &str = "correct-horse-battery-staple-4711";
    let file = w.file("secret", SECRET);
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=file,required=true,mode=0440,uid=1 wc -c < /run/secrets/file > /size; stat -c '%a %u' /run/secrets/file > /mode\n\
        RUN --mount=type=secret,id=env,env=TOKEN echo ${#TOKEN} > /length\nRUN --mount=type=secret,id=absent ls /run/secrets 2>/dev/null | wc -l > /none\n";
    let dir = context(w, "secrets", &[("Dockerfile", dockerfile)]);
    let from_file = format!("id=file,src={}", file.display());
    let args = ["-t", "s", "--secret", &from_file, "--secret", "id=env,env=THE_TOKEN"];
    let run = w.cata_run(["build", "--progress", "plain"]).args(args).arg(&dir).env("THE_TOKEN", SECRET);
    let said = run.patience(Duration::from_secs(120)).done().ok();
    assert_eq!(sh(w, "s", "cat /size /mode /length /none"), format!("{0}\n440 1\n{0}\n0", SECRET.len()));
    // Not in a layer, the configuration, the history, a record, a log, or what was printed.
    // While a supervisor ends, files of its go away: grep says so by another code.
    eventually("all is looked at", PATIENCE, || {
        let found = Run::new("grep").args(["-r", "-l", "-a", SECRET]).arg(w.root()).arg(w.state()).done();
        assert_eq!(found.stdout, "");
        (found.code() == 1).then_some(())
    });
    assert!(!said.stderr.contains(SECRET) && !said.stdout.contains(SECRET));
    let archive = w.scratch().join("s.tar");
    let _ = w.cata(&["save", "-o", archive.to_str().unwrap(), "s"]).ok();
    assert_eq!(Run::new("grep").args(["-c", "-a", SECRET]).arg(&archive).done().stdout.trim(), "0");
    build(w, &dir, &["--no-cache"])
        .fails(1, &["secret file: not found", "RUN --mount=type=secret,id=file", "--secret id=file"]);
}

/// Keys as files and an agent's socket: steps of any user list and sign, and change nothing.
fn agents_sign_for_steps(w: &World) {
    let dir = context(w, "agents", &[]);
    let tools = dir.join("tools");
    fs::create_dir(&tools).unwrap();
    let needed = Run::new("ldd").args(["/usr/bin/ssh-add"]).done().ok().stdout;
    for path in needed.split_whitespace().filter(|word| word.starts_with('/')).chain(["/usr/bin/ssh-add"]) {
        fs::copy(path, tools.join(Path::new(path).file_name().unwrap())).unwrap();
    }
    let key = |name: &str, passphrase: &str| {
        let path = w.scratch().join(name).to_str().unwrap().to_owned();
        let args = ["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", &path];
        let _ = Run::new("ssh-keygen").args(args).done().ok();
        path
    };
    let (plain, sealed) = (key("plain", ""), key("sealed", "secret"));
    fs::copy(format!("{plain}.pub"), tools.join("key.pub")).unwrap();
    let add = "/tools/ld-linux-x86-64.so.2 --library-path /tools /tools/ssh-add";
    let text = format!(
        "FROM busybox\nCOPY tools /tools\nRUN --mount=type=ssh {add} -l && ! {add} -D && {add} -T /tools/key.pub\n\
         USER 1000\nRUN --mount=type=ssh,uid=1000 stat -c %u:%a $SSH_AUTH_SOCK && {add} -T /tools/key.pub && {add} -l\n"
    );
    fs::write(dir.join("Dockerfile"), text).unwrap();
    let done = build(w, &dir, &["--ssh", &format!("default={plain}")]).ok();
    assert_eq!(done.stderr.matches("plain (ED25519)").count(), 2, "{done}");
    assert!(done.stderr.contains("1000:600"), "{done}");

    let socket = w.scratch().join("agent").to_str().unwrap().to_owned();
    let mut agent = Run::new("ssh-agent").args(["-D", "-a", &socket]).start();
    eventually("an agent", PATIENCE, || Path::new(&socket).exists().then_some(()));
    let _ = Run::new("ssh-add").args(["-q", &plain]).env("SSH_AUTH_SOCK", &socket).done().ok();
    let run = w.cata_run(["build", "--progress", "plain", "--no-cache", "--ssh", "default"]);
    let done = run.arg(&dir).env("SSH_AUTH_SOCK", &socket).patience(Duration::from_secs(120)).done().ok();
    assert_eq!(done.stderr.matches("plain (ED25519)").count(), 2, "{done}");
    agent.kill();

    let both = format!("default={plain},{sealed}");
    build(w, &dir, &["--ssh", &both]).fails(1, &["has a passphrase", "ssh-add", &sealed]);
    let none = format!("default={plain}.pub");
    build(w, &dir, &["--ssh", &none]).fails(1, &["is no private key that ssh-add takes"]);
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN --mount=type=ssh,required=true true\n").unwrap();
    build(w, &dir, &[]).fails(1, &["unset ssh forward key default", "--ssh default"]);
}

/// `--check`, `--call` in both forms, and what `# check=` says.
fn dockerfiles_are_looked_at(w: &World) {
    let text = "ARG TAG\n# base is where it begins\nFROM busybox:$TAG AS base\n# VERSION of the program\nARG VERSION=1\n\
                RUN --mount=type=secret,id=key --mount=type=cache,target=/c,id=objects true\n\
                FROM base\nCOPY notes.log /\nCMD sh\n";
    let dir = context(w, "looked", &[("Dockerfile", text), (".dockerignore", "*.log\n")]);
    let call = |args: &[&str], code: i32| -> serde_json::Value {
        let done = build(w, &dir, args).exits(code);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e} in {done}"))
    };
    let rules = |checked: &serde_json::Value| -> Vec<String> {
        let of = |warning: &serde_json::Value| {
            let line = &warning["location"]["ranges"][0]["start"]["line"];
            format!("{} {line}", warning["ruleName"].as_str().unwrap())
        };
        checked["warnings"].as_array().unwrap().iter().map(of).collect()
    };
    let always = ["InvalidDefaultArgInFrom 3", "UndefinedArgInFrom 3", "JSONArgsRecommended 9"];
    assert_eq!(rules(&call(&["--call", "check,format=json"], 1)), always);
    let all = ["--call=check,format=json", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=experimental=all"];
    let [first, second, last] = always;
    assert_eq!(rules(&call(&all, 1)), [first, second, "CopyIgnoredFile 8", last]);
    let targets = call(&["--call", "targets,format=json"], 0);
    assert_eq!(targets["targets"][0]["name"], "base");
    assert_eq!(targets["targets"][0]["description"], "is where it begins");
    assert_eq!(targets["targets"][1]["default"], true);
    let outline = call(&["--call", "outline,format=json"], 0);
    let args = outline["args"].as_array().unwrap().iter();
    assert_eq!(args.map(|arg| arg["name"].as_str().unwrap()).collect::<Vec<_>>(), ["TAG", "VERSION"]);
    assert_eq!(outline["args"][1]["description"], "of the program");
    assert_eq!(
        (&outline["secrets"][0]["name"], &outline["cache"][0]["ID"]),
        (&"key".into(), &"objects".into())
    );
    let said = build(w, &dir, &["--call", "outline"]).ok().stdout;
    assert!(said.contains("VERSION     1         of the program") && said.contains("objects"), "{said}");
    let said = build(w, &dir, &["--call", "targets"]).ok().stdout;
    assert!(said.contains("stage-1 (default)"), "{said}");

    let file = |line: &str| {
        fs::write(dir.join("Dockerfile"), format!("# check={line}\nFROM scratch AS Base\nLABEL a=b\n"))
            .unwrap();
        build(w, &dir, &[])
    };
    file("error=true").fails(1, &["StageNameCasing", "(line 2)", "error=true"]);
    let _ = file("skip=StageNameCasing;error=true").ok();
    file("skipp=all").fails(1, &["check: invalid option `skipp=all`"]);
}

fn networks_of_a_step(w: &World) {
    let dockerfile = "FROM busybox\nRUN ip -o addr | cut -d' ' -f2 | sort -u | tr '\\n' ' ' > /default; grep extra /etc/hosts > /hosts\n\
        RUN --network=none ip -o addr | cut -d' ' -f2 | sort -u | tr '\\n' ' ' > /none\nRUN --network=host cat /sys/class/net/bridge-mark/address > /host; true\n";
    let dir = context(w, "net", &[("Dockerfile", dockerfile)]);
    let _ = build(w, &dir, &["-t", "net", "--add-host", "extra:10.1.2.3"]).ok();
    assert_eq!(
        sh(w, "net", "cat /default; echo; cat /none; echo; cat /hosts"),
        "eth0 lo \nlo \n10.1.2.3\textra"
    );
    let _ = build(w, &dir, &["-t", "net", "--network", "none", "--add-host", "extra:10.1.2.3"]).ok();
    assert_eq!(sh(w, "net", "cat /default"), "lo");
}

fn failing_steps_are_pointed_at(w: &World) {
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n\nRUN echo about to fail && \\\n    exit 3\n";
    let dir = context(w, "fails", &[("Dockerfile", dockerfile)]);
    let failed = build(w, &dir, &["-t", "never"]);
    failed.fails(1, &["exit code: 3", "Dockerfile:4", "^^^", "about to fail"]);
    w.cata(&["image", "inspect", "never"]).fails(1, &[]);
    // What was finished is where the next build goes on.
    fs::write(dir.join("Dockerfile"), dockerfile.replace("exit 3", "true")).unwrap();
    let said = build(w, &dir, &["-t", "mended"]).ok();
    assert!(said.stderr.contains("1 of 2 steps cached"), "{said}");
    for (text, says) in [
        ("FROM busybox\nRUN [\"/nothing/here\"]", "/nothing/here"),
        ("FROM busybox\nUSER nobody-knows\nRUN true", "nobody-knows"),
        ("FROM busybox\nCOPY missing /", "\"/missing\": not found"),
        ("FROM busybox\nCOPY --chown=ghost Dockerfile /", "ghost"),
        ("FROM busybox\nCOPY --from=no-such-stage:tag a /", "no-such-stage"),
        (
            "FROM busybox\nRUN mkdir /d\nCOPY Dockerfile /d/x/\nCOPY Dockerfile /d/x/Dockerfile/y",
            "cannot make the directory",
        ),
        ("FROM busybox\nADD https://127.0.0.1:1/x /", "cannot fetch https://127.0.0.1:1/x"),
        ("FROM scratch\nRUN true", "/bin/sh"),
    ] {
        fs::write(dir.join("Dockerfile"), text).unwrap();
        build(w, &dir, &[]).fails(1, &[says, "Dockerfile:", "^^^"]);
    }
    // Another stage that fails stops the one that runs.
    let two = "FROM busybox AS slow\nRUN touch /begun; sleep 300\nFROM busybox AS bad\nRUN exit 7\nFROM busybox\nCOPY --from=slow / /s\nCOPY --from=bad / /b\n";
    fs::write(dir.join("Dockerfile"), two).unwrap();
    build(w, &dir, &[]).fails(1, &["exit code: 7", "RUN exit 7"]);
}

fn faults_of_a_dockerfile_are_pointed_at(w: &World) {
    let dir = context(w, "faults", &[("Dockerfile", "FROM busybox\nRUM echo\n")]);
    build(w, &dir, &[]).fails(1, &["unknown instruction: RUM", "2 | RUM echo", "^^^", "did you mean RUN?"]);
    fs::write(dir.join("Dockerfile"), "FROM busybox AS base\n").unwrap();
    build(w, &dir, &["--target", "bsae"]).fails(1, &["did you mean base?"]);
    w.cata(&["build", "/nowhere"]).fails(1, &["failed to read dockerfile"]);
    w.cata(&["build", "--memory", "1g", "."]).fails(125, &["--memory"]);
    build(w, &dir, &["--provenance=mode=most"]).fails(125, &["mode=most", "not supported"]);
    build(w, &dir, &["-t", "Not A Name"]).fails(125, &["invalid tag"]);
}

fn hostile_contexts(w: &World) {
    let dir = context(w, "hostile", &[("ok", "ok")]);
    let outside = w.file("outside", "must not be copied");
    symlink(&outside, dir.join("out")).unwrap();
    symlink("/etc/shadow", dir.join("shadow")).unwrap();
    symlink("..", dir.join("up")).unwrap();
    let _ = Run::new("mkfifo").arg(dir.join("pipe")).done().ok();
    fs::File::create(dir.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir_all(dir.join("n".repeat(200)).join("m".repeat(200))).unwrap();
    let with = |text: &str| fs::write(dir.join("Dockerfile"), text).unwrap();
    for source in ["out", "shadow", "up/outside", "../outside"] {
        with(&format!("FROM busybox\nCOPY {source} /stolen\n"));
        build(w, &dir, &[]).fails(1, &["not found"]);
    }
    with("FROM busybox\nCOPY . /all\n");
    build(w, &dir, &[]).fails(1, &["pipe"]);
    fs::write(dir.join(".dockerignore"), "pipe\nDockerfile\n").unwrap();
    let _ = Run::new("mknod").arg(dir.join("disk")).args(["b", "7", "200"]).done().ok();
    build(w, &dir, &[]).fails(1, &["/disk", "a device"]);
    fs::remove_file(dir.join("disk")).unwrap();
    // Two directories of many files with names as long as they may be.
    for at in 0..2_000 {
        let name = format!("many/{}/{at:0>255}", at % 2);
        fs::create_dir_all(dir.join(&name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), "x").unwrap();
    }
    let _ = build(w, &dir, &["-t", "hostile"]).ok();
    let said = sh(
        w,
        "hostile",
        "readlink /all/out; readlink /all/up; stat -c %s /all/sparse; stat -c %b /all/sparse; ls /all | grep -c pipe; ls /all/many/0 /all/many/1 | grep -c 0000",
    );
    assert_eq!(said, format!("{}\n..\n{}\n0\n0\n2000", outside.display(), 1_u64 << 40));
    // An image that points out of itself: nothing of this machine is written to.
    with(
        "FROM busybox\nRUN ln -s /../../../../../../tmp /away && ln -s /proc/1/root/tmp /magic\nCOPY ok /away/catamaran-was-here\n",
    );
    let _ = build(w, &dir, &["-t", "away"]).ok();
    assert_eq!(sh(w, "away", "cat /tmp/catamaran-was-here"), "ok");
    assert!(!Path::new("/tmp/catamaran-was-here").exists());
}

fn contexts_and_dockerfiles_from_stdin(w: &World) {
    let alone = w.cata_run(["build", "-t", "alone", "-"]).input("FROM busybox\nRUN echo alone > /f\n").done();
    let _ = alone.ok();
    assert_eq!(sh(w, "alone", "cat /f"), "alone");
    let dir = context(w, "stdin", &[("f", "from context")]);
    let run = w.cata_run(["build", "-t", "file", "-f", "-"]).arg(&dir).input("FROM busybox\nCOPY f /f\n");
    let _ = run.done().ok();
    assert_eq!(sh(w, "file", "cat /f"), "from context");
    fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY f /g\n").unwrap();
    let tar = w.scratch().join("context.tar.gz");
    let _ = Run::new("tar").arg("-C").arg(&dir).arg("-czf").arg(&tar).arg(".").done().ok();
    let _ = w.cata_run(["build", "-t", "tarred", "-"]).input(fs::read(&tar).unwrap()).done().ok();
    assert_eq!(sh(w, "tarred", "cat /g"), "from context");
    let named =
        w.cata_run(["build", "-t", "named", "--build-context"]).arg(format!("more={}", dir.display()));
    let named = named.args(["--build-context", "base=docker-image://busybox", "-"]);
    let _ = named.input("FROM base\nCOPY --from=more f /more\n").done().ok();
    assert_eq!(sh(w, "named", "cat /more"), "from context");
    let stored = fs::read_dir(w.root().join("build/making")).unwrap().count();
    assert_eq!(stored, 0, "unpacked contexts were left");
}

fn outputs(w: &World) {
    let dockerfile = "FROM busybox AS b\nRUN mkdir /r && echo 1 > /r/a && chmod 640 /r/a && rm /etc/group\nFROM scratch\nCOPY --from=b /r /r\nCOPY --from=b /etc /etc\n";
    let dir = context(w, "outputs", &[("Dockerfile", dockerfile)]);
    let to = w.scratch().join("files");
    let _ = build(w, &dir, &["-o", to.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(to.join("r/a")).unwrap(), "1\n");
    assert!(!to.join("etc/group").exists() && to.join("etc/passwd").exists());
    assert_eq!(w.cata(&["images", "-q"]).lines().len(), 1, "files need no image");
    let tar = w.scratch().join("files.tar");
    let _ = build(w, &dir, &["--output", &format!("type=tar,dest={}", tar.display())]).ok();
    let comma = w.scratch().join("a,b.tar");
    let _ = build(w, &dir, &["--output", &format!("type=tar,\"dest={}\"", comma.display())]).ok();
    assert_eq!(fs::read(&comma).unwrap().len(), fs::read(&tar).unwrap().len());
    let listed = Run::new("tar").arg("-tf").arg(&tar).done().lines();
    assert!(listed.contains(&"r/a".to_owned()) && !listed.iter().any(|n| n.contains(".wh.")), "{listed:?}");
    let ids = (w.scratch().join("iid"), w.scratch().join("meta.json"));
    let files = ["--iidfile", ids.0.to_str().unwrap(), "--metadata-file", ids.1.to_str().unwrap()];
    let archive = format!("type=docker,dest={}", w.scratch().join("image.tar").display());
    let _ = build(w, &dir, &[&["-t", "out:1", "-o", &archive], &files[..]].concat()).ok();
    assert_eq!(fs::read_to_string(&ids.0).unwrap(), id(w, "out:1"));
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(&ids.1).unwrap()).unwrap();
    assert_eq!(meta["containerimage.config.digest"], id(w, "out:1"));
    let before = id(w, "out:1");
    let _ = w.cata(&["rmi", "out:1"]).ok();
    let _ = w.cata(&["load", "-i", w.scratch().join("image.tar").to_str().unwrap()]).ok();
    assert_eq!(id(w, "out:1"), before);
    build(w, &dir, &["-o", "type=oci,compression=estargz,dest=/x"])
        .fails(125, &["compression estargz", "not supported"]);
    build(w, &dir, &["--push"]).fails(125, &["tag is needed"]);
}

fn built_image_is_read_by_skopeo(w: &World) {
    let dir = context(
        w,
        "skopeo",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN mkdir -p /a/b && echo c > /a/b/c && rm -r /var/www\nCMD [\"x\"]\n",
        )],
    );
    let archive = w.scratch().join("image.tar");
    let _ = build(w, &dir, &["-t", "read:1", "-o", &format!("type=docker,dest={}", archive.display())]).ok();
    let seen = Run::new("skopeo")
        .args(["inspect", "--config", &format!("docker-archive:{}", archive.display())])
        .done()
        .json();
    assert_eq!(seen["config"]["Cmd"][0], "x");
    let lines = seen["history"].as_array().unwrap().iter().filter(|line| line["empty_layer"] != true).count();
    assert_eq!(lines, seen["rootfs"]["diff_ids"].as_array().unwrap().len());
}

fn same_digests_on_two_roots(w: &World) {
    let dockerfile = "FROM busybox AS b\nWORKDIR /work/dir\nRUN echo x > x && ln -s x y && ln x z\nFROM busybox\nCOPY --from=b /work /work\nCOPY f d /data/\nRUN mkdir /m && touch /m/f && rm -r /var/www\nENV A=b\n";
    let mut digests = Vec::new();
    for (n, root) in ["one", "two"].into_iter().enumerate() {
        let dir = context(w, root, &[("Dockerfile", dockerfile), ("f", "f"), ("d/g", "g")]);
        let root = if n == 0 { w.root() } else { w.scratch().join("second-root") };
        if n == 1 {
            let file = w.scratch().join("busybox.tar");
            let _ = w.cata(&["save", "-o", file.to_str().unwrap(), "busybox"]).ok();
            let _ = w.cata_run(["load", "-i"]).arg(file).env("CATA_ROOT", &root).done().ok();
        }
        let run = w.cata_run(["build", "-q", "-t", "same"]).arg(&dir).env("CATA_ROOT", &root);
        let built =
            run.env("SOURCE_DATE_EPOCH", "1700000000").patience(Duration::from_secs(120)).done().text();
        let inspect = w.cata_run(["image", "inspect", "same"]).env("CATA_ROOT", &root).done().json();
        assert_eq!(inspect[0]["Created"], "2023-11-14T22:13:20.000000000Z");
        digests.push((built, inspect[0]["RootFS"]["Layers"].clone()));
    }
    assert_eq!(digests[0], digests[1]);
}

/// Moments of a build's life, in milliseconds.
const MOMENTS: [u64; 8] = [1, 5, 15, 30, 60, 100, 200, 400];

fn build_killed_at_any_moment(w: &World) {
    let dockerfile = "FROM busybox\nARG N\nCOPY . /c\nRUN --mount=type=cache,target=/k echo $N; dd if=/dev/zero of=/big bs=1k count=256 2>/dev/null; sleep 600 & sleep 0.1\nRUN echo $N > /n; cat /c/a\n";
    let dir = context(w, "killed", &[("Dockerfile", dockerfile), ("a", "a")]);
    for moment in MOMENTS {
        let n = format!("N={moment}");
        let compressed = "type=image,compression=zstd,compression-level=19";
        let args = ["build", "-t", "killed", "-o", compressed, "--build-arg", &n];
        let mut client = w.cata_run(args).arg(&dir).start();
        std::thread::sleep(Duration::from_millis(moment));
        client.kill();
        // The step's container does not outlive the build.
        eventually("the container is gone", PATIENCE, || {
            w.cata(&["ps", "-q"]).text().is_empty().then_some(())
        });
        // No half image, and the next build makes a whole one.
        if w.cata(&["image", "inspect", "killed"]).code() == 0 {
            let _ = sh(w, "killed", "cat /n /c/a");
        }
        let _ = build(w, &dir, &["-t", "killed", "--build-arg", &n]).ok();
        assert_eq!(sh(w, "killed", "cat /n /c/a"), format!("{moment}\na"));
        // One that was never started is removed by the next build.
        assert_eq!(w.cata(&["ps", "-aq"]).text(), "", "at {moment} ms");
        let _ = w.cata(&["rmi", "killed"]).ok();
    }
    for dir in ["build/making", "creating", "removed", "ingest"] {
        eventually("nothing half-made is left", PATIENCE, || {
            fs::read_dir(w.root().join(dir)).is_ok_and(|list| list.count() == 0).then_some(())
        });
    }
}

/// Ctrl-C in the middle of a step, while layers are written ahead: nothing half-made stays, not even until the next build, and
/// what was done is kept. A second one does not wait.
fn interrupted_build_cleans_up(w: &World) {
    let dockerfile = "FROM busybox AS other\nRUN sleep 1000\nFROM busybox\nCOPY a /\nRUN touch /mark; sleep 1000\nCOPY --from=other /x /\n";
    let dir = context(w, "interrupted", &[("Dockerfile", dockerfile), ("a", "a")]);
    let client = w.cata_run(["build", "--progress", "plain", "-t", "interrupted"]).arg(&dir).start();
    let ids = eventually("both steps run", PATIENCE, || {
        Some(w.cata(&["ps", "-q"]).lines()).filter(|ids| ids.len() == 2)
    });
    eventually("the layer of COPY is written ahead", PATIENCE, || {
        fs::read_dir(w.root().join("ingest")).is_ok_and(|list| list.count() > 0).then_some(())
    });
    client.signal(rustix::process::Signal::INT);
    let done = client.done(PATIENCE).exits(130);
    assert!(
        done.stderr.contains("CANCELED") && done.stderr.contains("the steps that were done are kept"),
        "{done}"
    );
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "", "of {ids:?}");
    for dir in ["build/making", "creating", "ingest"] {
        let left: Vec<_> = fs::read_dir(w.root().join(dir)).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // Supervisors remove trees after they have told of the end.
    eventually("what was removed is gone", PATIENCE, || {
        fs::read_dir(w.root().join("removed")).is_ok_and(|list| list.count() == 0).then_some(())
    });
    // Whoever started us so that signals are ignored, as `nohup` does, meant it.
    let waits = "FROM busybox\nRUN --mount=type=bind,target=/c until [ -e /c/go ]; do sleep 0.1; done\n";
    let heedless = context(w, "heedless", &[("Dockerfile", waits)]);
    let shell = Run::new("sh").args(["-c", "trap '' INT; exec \"$@\"", "sh"]).arg(cata_binary());
    let client = shell.args(["build", "-q"]).arg(&heedless).start();
    eventually("the step runs", PATIENCE, || (!w.cata(&["ps", "-q"]).text().is_empty()).then_some(()));
    client.signal(rustix::process::Signal::INT);
    fs::write(heedless.join("go"), "").unwrap();
    let _ = client.done(PATIENCE).ok();
    let again = context(w, "interrupted", &[("Dockerfile", "FROM busybox\nCOPY a /\n")]);
    assert!(build(w, &again, &[]).ok().stderr.contains("1 of 1 steps cached"));
}

fn builds_at_once_share_steps(w: &World) {
    let dockerfile = "FROM busybox AS a\nRUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /stamp\nFROM busybox AS b\nRUN sleep 0.3; cat /proc/sys/kernel/random/uuid > /stamp\nFROM scratch\nCOPY --from=a /stamp /a\nCOPY --from=b /stamp /b\n";
    let dir = context(w, "shared", &[("Dockerfile", dockerfile)]);
    let started: Vec<_> =
        (0..3).map(|n| w.cata_run(["build", "-q", "-t", &format!("shared{n}")]).arg(&dir).start()).collect();
    let ids: Vec<String> = started.into_iter().map(|run| run.done(Duration::from_secs(120)).text()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let to = w.scratch().join("stamps");
    let _ = build(w, &dir, &["-o", to.to_str().unwrap()]).ok();
    // The same instruction upon the same image is one step, whatever the stage is called.
    assert_eq!(fs::read(to.join("a")).unwrap(), fs::read(to.join("b")).unwrap());
}

fn disk_full_leaves_a_sound_cache(w: &World) {
    let root = Path::new("/mnt/small");
    fs::create_dir_all(root).unwrap();
    let _ = Run::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(root).done().ok();
    let cata =
        |args: &[&str]| w.cata_run(args).env("CATA_ROOT", root).patience(Duration::from_secs(120)).done();
    let file = w.scratch().join("busybox.tar");
    let _ = w.cata(&["save", "-o", file.to_str().unwrap(), "busybox"]).ok();
    let _ = cata(&["load", "-i", file.to_str().unwrap()]).ok();
    let dir = context(w, "full", &[("Dockerfile", "FROM busybox\nCOPY big /big\nRUN true\n")]);
    fs::write(dir.join("big"), vec![7; 40 << 20]).unwrap();
    let path = dir.to_str().unwrap();
    cata(&["build", "-t", "full", path]).fails(1, &["o space left on device"]);
    cata(&["image", "inspect", "full"]).fails(1, &[]);
    fs::write(dir.join("big"), "small now").unwrap();
    let _ = cata(&["build", "-t", "full", path]).ok();
    assert_eq!(cata(&["run", "--rm", "full", "cat", "/big"]).text(), "small now");
    let _ = Run::new("umount").args(["-l"]).arg(root).done().ok();
}

fn cache_is_listed_and_pruned(w: &World) {
    let dir = context(
        w,
        "prune",
        &[(
            "Dockerfile",
            "FROM busybox AS a\nRUN echo one > /one\nRUN --mount=type=cache,target=/k touch /k/x; echo 2 > /two\nFROM busybox\nCOPY --from=a /two /two\n",
        )],
    );
    let _ = build(w, &dir, &["-t", "kept"]).ok();
    let listed = w.cata(&["builder", "du", "--verbose"]).ok().stdout;
    assert!(listed.contains("RUN echo one > /one") && listed.contains("cache mount /k"), "{listed}");
    assert!(listed.contains("Created at:") && listed.contains("exec.cachemount"), "{listed}");
    let caches = w.cata(&["builder", "du", "--filter", "type=exec.cachemount"]).ok().stdout;
    assert!(caches.contains("cache mount /k") && !caches.contains("RUN"), "{caches}");
    w.cata(&["builder", "du", "--filter", "kind=x"]).fails(125, &["invalid filter 'kind=x'", "type="]);
    let old = w.cata(&["builder", "prune", "-f", "--filter", "until=24h"]).ok().stdout;
    assert_eq!(old, "Total reclaimed space: 0B\n");
    for enough in [
        &["--min-free-space", "1"][..],
        &["--max-used-space", "1TB"],
        &["--max-used-space", "1", "--reserved-space", "1TB"],
        &["--keep-storage", "1TB"],
    ] {
        let kept = w.cata(&[&["builder", "prune", "-f"], enough].concat()).ok().stdout;
        assert_eq!(kept, "Total reclaimed space: 0B\n", "{enough:?}");
    }
    let _ = w.cata(&["builder", "prune", "-f", "--filter", "description=echo one"]).ok();
    let listed = w.cata(&["builder", "du"]).ok().stdout;
    assert!(!listed.contains("echo one") && listed.contains("echo 2"), "{listed}");
    let _ = w.cata(&["buildx", "prune", "-f", "--min-free-space", "1000000TB"]).ok();
    assert!(!w.cata(&["builder", "du"]).ok().stdout.contains("echo 2"));
    assert!(w.cata(&["builder", "du"]).ok().stdout.contains("cache mount /k"), "caches go with --all only");
    let _ = w.cata(&["builder", "prune", "-af"]).ok();
    assert_eq!(w.cata(&["builder", "du"]).ok().stdout.lines().count(), 4);
    // Images are not the cache's.
    assert_eq!(sh(w, "kept", "cat /two"), "2");
    assert_eq!(fs::read_dir(w.root().join("build/layers")).unwrap().count(), 0);
    let again = build(w, &dir, &["-t", "kept"]).ok();
    assert!(again.stderr.contains("0 of 3 steps cached"), "{again}");
}

/// Steps go to a directory, to a registry and with the image, and come back to an engine that knows nothing.
fn steps_travel(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let dockerfile = "FROM busybox AS stamp\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nRUN true\n\
                      FROM busybox\nCOPY --from=stamp /stamp /\nRUN cat /proc/sys/kernel/random/uuid > /own\n";
    let dir = context(w, "t", &[("Dockerfile", dockerfile), ("a", "a")]);
    let local = w.scratch().join("cache");
    let to_local = format!("type=local,dest={},mode=max", local.display());
    let to_registry = format!("type=registry,ref={},mode=max", registry.name("caches/app:all"));
    let image = registry.name("app:1");
    let args = [
        "-t",
        &image,
        "--push",
        "--cache-to",
        &to_local,
        "--cache-to",
        &to_registry,
        "--cache-to",
        "type=inline",
    ];
    let _ = build(w, &dir, &args).ok();
    let stamps = |image: &str| sh(w, image, "cat /stamp /own");
    let first = stamps(&image);
    let forget = || {
        let _ = w.cata(&["rmi", "-f", &image]).ok();
        let _ = w.cata(&["rmi", "-f", "app"]);
        let _ = w.cata(&["builder", "prune", "-af"]).ok();
    };
    let images = || w.cata(&["images", "-q"]).lines().len();
    let places = [format!("type=local,src={}", local.display()), registry.name("caches/app:all")];
    for place in &places {
        forget();
        assert_eq!(images(), 1, "only the base is left");
        let done = build(w, &dir, &["-t", "app", "--cache-from", place]).ok();
        assert!(done.stderr.contains("5 of 5 steps cached"), "{place}: {done}");
        assert_eq!(stamps("app"), first, "{place}");
        assert_eq!(images(), 2, "{place}: the cache is no image here");
        // What came is as good as what was made here.
        let done = build(w, &dir, &["-t", "app"]).ok();
        assert!(done.stderr.contains("5 of 5 steps cached"), "{done}");
    }
    // An image has the steps of its own layers, and none of the stage that it took a file from.
    forget();
    let done = build(w, &dir, &["-t", "app", "--cache-from", &format!("type=registry,ref={image}")]).ok();
    assert!(done.stderr.contains("of 5 steps cached") && !done.stderr.contains("5 of 5"), "{done}");
    // A changed file is not overlooked, and a cache that is not there is only told.
    fs::write(dir.join("a"), "b").unwrap();
    let nowhere = registry.name("caches/none:1");
    let done = build(w, &dir, &["-t", "app", "--cache-from", &nowhere, "--cache-from", &places[0]]).ok();
    assert!(done.stderr.contains("none:1 is not used"), "{done}");
    assert_ne!(stamps("app"), first);
    // Where it cannot go is an error, unless that was said not to matter.
    fs::write(w.scratch().join("file"), "").unwrap();
    let blocked = format!("type=local,dest={}", w.scratch().join("file/below").display());
    build(w, &dir, &["--cache-to", &blocked]).fails(1, &["below"]);
    let _ = build(w, &dir, &["--cache-to", &format!("{blocked},ignore-error=true")]).ok();
    bases_are_asked_for_again(w, &registry);
    drop(registry);
    let gone = context(w, "gone", &[("Dockerfile", "FROM 127.0.0.1:5000/moved\n")]);
    build(w, &gone, &["--pull"]).fails(1, &["127.0.0.1:5000", "Dockerfile:1"]);
    let _ = build(w, &gone, &[]).ok();
}

/// `--pull`: of an image whose tag has moved at its registry, what it leads to there.
fn bases_are_asked_for_again(w: &World, registry: &Registry) {
    let name = registry.name("moved");
    let told = |which: &str| {
        let text = format!("FROM busybox\nRUN echo {which} > /which\n");
        let dir = context(w, which, &[("Dockerfile", &text)]);
        let _ = build(w, &dir, &["-t", which]).ok();
    };
    for which in ["old", "new"] {
        told(which);
        let _ = w.cata(&["tag", which, &name]).ok();
        let _ = w.cata(&["push", &name]).ok();
    }
    // Here the name still leads to the old one.
    let _ = w.cata(&["tag", "old", &name]).ok();
    let text = format!("FROM {name} AS base\nRUN true\nFROM base\nCOPY --from={name} /which /copied\n");
    let dir = context(w, "moved", &[("Dockerfile", &text)]);
    let made = |args: &[&str]| {
        let _ = build(w, &dir, &[&["-t", "upon"], args].concat()).ok();
        sh(w, "upon", "cat /which /copied")
    };
    assert_eq!(made(&[]), "old\nold");
    assert_eq!(made(&["--pull"]), "new\nnew");
    assert_eq!(made(&[]), "new\nnew", "the name has moved here too");
}
