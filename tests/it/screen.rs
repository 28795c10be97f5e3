//! What is printed: help, tables, formats, completions.

use cata_tests::command::{Run, cata_binary, quoted};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(help_and_groups),
        test!(version_and_info),
        test!(ps_columns_and_filters),
        test!(sizes),
        test!(formats),
        test!(no_colour_without_a_terminal),
        test!(completions),
        test!(timing_tells_phases),
    ]
}

fn help_and_groups(w: &World) {
    let help = w.cata(&["--help"]).ok().stdout;
    for word in ["run", "exec", "ps", "pull", "network", "volume", "container", "image", "system"] {
        assert!(help.lines().any(|l| l.trim_start().starts_with(word)), "{word} not in {help}");
    }
    let top = w.cata(&["run", "--help"]).ok().stdout;
    let group = w.cata(&["container", "run", "--help"]).ok().stdout;
    for flag in ["--publish", "--env", "--volume", "--detach", "--rm", "--cidfile", "--health-cmd"] {
        assert!(top.contains(flag) && group.contains(flag), "{flag}");
    }
    for path in
        ["container ls", "image ls", "image rm", "network ls", "volume ls", "system info", "container rm"]
    {
        let mut args: Vec<&str> = path.split(' ').collect();
        args.push("--help");
        let _ = w.cata(&args).ok();
    }
}

fn version_and_info(w: &World) {
    assert!(w.cata(&["--version"]).text().contains(env!("CARGO_PKG_VERSION")));
    let version = w.cata(&["version", "--format", "json"]).json();
    assert!(version.to_string().contains(env!("CARGO_PKG_VERSION")), "{version}");
    let _ = w.cata(&["create", "--name", "cc", "busybox", "true"]).ok();
    assert_eq!(
        w.cata(&["info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.Images}}"]).text(),
        "1 0 1"
    );
}

fn ps_columns_and_filters(w: &World) {
    let long = "sleep 600; echo some words that make this command too long for a column";
    let _ = w.cata(&["run", "-d", "--name", "up", "-l", "a=b", "busybox", "sh", "-c", long]).ok();
    let down =
        ["run", "--name", "down", "-p", "7080:80", "--expose", "53/udp", "busybox", "sh", "-c", "exit 3"];
    let _ = w.cata(&down).exits(3);
    let table = w.cata(&["ps", "-a"]).lines();
    let titles: Vec<_> = table[0].split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert_eq!(table.len(), 3);
    // The newest first.
    assert!(table[1].contains("Exited (3)") && table[1].ends_with("down"), "{table:?}");
    assert!(table[2].contains("Up ") && table[2].contains('…') && table[2].ends_with("up"), "{table:?}");
    let names = |filter: &str| w.cata(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]).text();
    assert_eq!(names("status=exited"), "down");
    assert_eq!(names("label=a=b"), "up");
    assert_eq!(names("name=ow"), "down");
    assert_eq!(names("exited=3"), "down");
    for port in ["publish=80", "expose=80/tcp", "expose=53/udp"] {
        assert_eq!(names(port), "down", "{port}");
    }
    assert_eq!(names("publish=53/udp"), "");
    w.cata(&["ps", "--filter", "colour=red"]).fails(1, &["colour"]);
    assert_eq!(w.cata(&["ps", "-n", "1", "-a", "--format", "{{.Names}}"]).text(), "down");
}

fn sizes(w: &World) {
    let script = "head -c 100000 /dev/zero > /file; ln /file /again; ln -s /etc /link";
    let _ = w.cata(&["run", "--name", "cc", "busybox", "sh", "-c", script]).ok();
    let table = w.cata(&["ps", "-a", "-s"]).lines();
    assert!(table[0].ends_with("SIZE") && table[1].contains("100kB (virtual "), "{table:?}");
    assert!(w.cata(&["ps", "-a", "--format", "{{.Size}}"]).text().starts_with("100kB (virtual "));
    let image: u64 = w.cata(&["image", "inspect", "-f", "{{.Size}}", "busybox"]).text().parse().unwrap();
    let sizes = w.cata(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "cc"]).text();
    assert_eq!(sizes, format!("100004 {}", image + 100_004));
    assert!(w.cata(&["inspect", "cc"]).json()[0].get("SizeRw").is_none());
}

fn formats(w: &World) {
    let _ = w.cata(&["create", "--name", "cc", "-l", "k=v", "-e", "A=1", "busybox", "echo", "x"]).ok();
    let json = w.cata(&["ps", "-a", "--format", "json"]).json();
    assert_eq!(json["Names"], "cc");
    let line = "{{.Names}}|{{.Image}}|{{.Command}}|{{.Label \"k\"}}";
    assert_eq!(w.cata(&["ps", "-a", "--format", line]).text(), "cc|busybox|\"echo x\"|v");
    let table = w.cata(&["ps", "-a", "--format", "table {{.Names}}\t{{.Image}}"]).lines();
    assert!(table[0].starts_with("NAMES") && table[0].ends_with("IMAGE"), "{table:?}");
    assert_eq!(w.field("cc", "{{range .Config.Env}}{{println .}}{{end}}").lines().next(), Some("A=1"));
    assert_eq!(w.field("cc", "{{json .Config.Cmd}}"), "[\"echo\",\"x\"]");
    assert_eq!(w.field("cc", "{{if .State.Running}}up{{else}}down{{end}}"), "down");
    assert_eq!(w.field("cc", "{{index .Config.Labels \"k\"}}"), "v");
    w.cata(&["inspect", "--format", "{{.NoSuchField}}", "cc"]).fails(1, &["NoSuchField"]);
    let done = w.cata(&["inspect", "--format", "{{.Unclosed", "cc"]);
    assert!(done.code() != 0 && done.stderr.contains("template"), "{done}");
    // `inspect` finds images too, and types can be forced.
    assert!(w.cata(&["inspect", "busybox"]).json()[0]["RootFS"].is_object());
    // A name that is not how an image's id might begin.
    let _ = w.cata(&["rename", "cc", "other"]).ok();
    w.cata(&["inspect", "--type", "image", "other"]).fails(1, &["other"]);
}

fn no_colour_without_a_terminal(w: &World) {
    for args in
        [&["ps", "-a"][..], &["run", "--no-such-flag"], &["images"], &["--help"], &["pull", "127.0.0.1:1/x"]]
    {
        let done = w.cata(args);
        assert!(!done.stdout.contains('\u{1b}') && !done.stderr.contains('\u{1b}'), "{done}");
    }
}

fn completions(w: &World) {
    let _ = w.cata(&["create", "--name", "resting", "busybox", "true"]).ok();
    let _ = w.cata(&["run", "-d", "--name", "running", "busybox", "sleep", "600"]).ok();
    // As bash asks: the program is in its own place.
    let program = cata_binary();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let bash = w.file("bash", w.cata(&["completion", "bash"]).ok().stdout);
    let ask = |line: &str| {
        let script = format!(
            "source '{}'; COMP_LINE={}; COMP_POINT=${{#COMP_LINE}}; _cata; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash.display(),
            quoted(line),
        );
        Run::new("bash").args(["-c", &script]).env("PATH", &path).done().lines()
    };
    assert_eq!(ask("cata container ren"), ["rename"]);
    assert_eq!(ask("cata run --isolation "), ["process", "vm"]);
    assert_eq!(ask("cata run --isolation=v"), ["vm"]);
    assert_eq!(ask("cata start "), ["resting"]);
    assert_eq!(ask("cata stop -t 5 "), ["running"]);
    assert_eq!(ask("cata rmi busybox:l"), ["latest"]);
    assert_eq!(ask("cata network rm ho"), ["host"]);
    for shell in ["zsh", "fish"] {
        assert!(w.cata(&["completion", shell]).ok().stdout.contains("__complete"), "{shell}");
    }
    w.cata(&["completion", "tcsh"]).fails(1, &["tcsh", "fish"]);
}

fn timing_tells_phases(w: &World) {
    let done = w.cata(&["run", "--rm", "--timing", "busybox", "true"]).ok();
    assert!(done.stderr.lines().filter(|l| l.contains("ms") || l.contains("µs")).count() >= 3, "{done}");
}
