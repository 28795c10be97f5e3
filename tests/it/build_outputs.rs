//! `build`: what becomes of what was built. Several platforms, compressions, annotations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cata_tests::cache::Recipe;
use cata_tests::command::Done;
use cata_tests::harness::Test;
use cata_tests::registry::{Registry, Settings};
use cata_tests::world::World;
use serde_json::Value;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(several_platforms_are_one_image).needs(&["docker-registry", "skopeo"])]
}

fn context(w: &World, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = w.scratch().join(name);
    fs::create_dir_all(&dir).unwrap();
    for (file, content) in files {
        fs::write(dir.join(file), content).unwrap();
    }
    dir
}

fn build(w: &World, dir: &Path, args: &[&str]) -> Done {
    w.cata_run(["build", "--progress", "plain"]).args(args).arg(dir).patience(Duration::from_secs(240)).done()
}

fn skopeo(args: &[&str]) -> String {
    let output = Command::new("skopeo").args(args).output().unwrap();
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a name leads to at a registry.
fn raw(name: &str) -> Value {
    let text = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    serde_json::from_str(&text).unwrap()
}

/// The platforms of an index.
fn platforms(index: &Value) -> Vec<String> {
    let members = index["manifests"].as_array().unwrap();
    members.iter().map(|member| member["platform"]["architecture"].as_str().unwrap().to_owned()).collect()
}

/// An image for this host and one for a processor that it has not, of the same files: these run if the kernel is
/// said to have an emulator.
fn several_platforms_are_one_image(w: &World) {
    let formats = "/proc/sys/fs/binfmt_misc";
    rustix::mount::mount("none", formats, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755").unwrap();
    let registry = Registry::start(w, Settings::default());
    let (host, foreign) = match cata_tests::archive::architecture() {
        "arm64" => ("arm64", "amd64"),
        _ => ("amd64", "arm64"),
    };
    let tar = Recipe::of("busybox").made().unwrap();
    let platform = format!("linux/{foreign}");
    let _ = w.cata(&["import", "--platform", &platform, tar.to_str().unwrap(), "other"]).ok();

    // Made here for elsewhere: the compiler runs on this host, once for each platform, and nothing runs in the result.
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN cat /proc/sys/kernel/random/uuid > /once\n\
        ARG TARGETARCH BUILDARCH\nRUN echo $BUILDARCH-$TARGETARCH > /app\n\
        FROM scratch\nCOPY --from=build /app /once /\n";
    let dir = context(w, "cross", &[("Dockerfile", dockerfile)]);
    let both = format!("linux/{host},linux/{foreign}");
    let name = registry.name("cross:1");
    let out = w.scratch().join("out");
    let local = format!("type=local,dest={}", out.display());
    let archive = w.scratch().join("cross.tar");
    let oci = format!("type=oci,dest={}", archive.display());
    let args = ["--platform", &both, "-t", &name, "--no-cache", "-o", &local, "-o", &oci, "--push"];
    let done = build(w, &dir, &args).ok();
    assert!(done.stderr.contains(&format!("[linux/{foreign} build 3/3]")), "{done}");
    let file = |arch: &str, file: &str| fs::read_to_string(out.join(format!("linux_{arch}/{file}"))).unwrap();
    assert_eq!(file(host, "app"), format!("{host}-{host}\n"));
    assert_eq!(file(foreign, "app"), format!("{host}-{foreign}\n"));
    assert_eq!(file(host, "once"), file(foreign, "once"), "what platforms have in common is made once");
    let pushed = raw(&name);
    assert_eq!(platforms(&pushed), [host, foreign]);
    assert!(pushed["mediaType"].as_str().unwrap().contains("image.index"), "{pushed}");

    // One image here: listed once, inspected for either, saved and loaded whole, removed whole.
    assert_eq!(
        w.cata(&["images", "--format", "{{.Repository}}", "--filter", "reference=*/cross"]).lines().len(),
        1
    );
    let inspect = |args: &[&str]| {
        w.cata(&[&["image", "inspect", "--format", "{{.Architecture}} {{len .Manifests}}"], args].concat())
            .text()
    };
    assert_eq!(inspect(&[&name]), format!("{host} 2"));
    assert_eq!(inspect(&["--platform", &platform, &name]), format!("{foreign} 2"));
    w.cata(&["image", "inspect", "--platform", "linux/s390x", &name]).fails(1, &["not here for linux/s390x"]);
    let archived = skopeo(&["inspect", "--raw", &format!("oci-archive:{}", archive.display())]);
    assert_eq!(platforms(&serde_json::from_str(&archived).unwrap()), [host, foreign]);
    let _ = w.cata(&["image", "prune", "-f"]).ok();
    let _ = w.cata(&["rmi", &name]).ok();
    let _ = w.cata(&["load", "-i", archive.to_str().unwrap()]).ok().says("cross:1");
    assert_eq!(inspect(&["--platform", &platform, &name]), format!("{foreign} 2"));
    let _ = w.cata(&["push", "-q", &name]).ok();
    assert_eq!(platforms(&raw(&name)), [host, foreign]);

    // What runs in the foreign stage needs an emulator, which is named; what only copies does not.
    let dockerfile = format!(
        "FROM busybox AS {host}\nFROM --platform=$TARGETPLATFORM other AS {foreign}\n\
         FROM $TARGETARCH\nCOPY Dockerfile /\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nCMD [\"cat\", \"/arch\"]\n"
    );
    let dir = context(w, "native", &[("Dockerfile", &dockerfile)]);
    let args = ["--platform", &both, "-t", "both"];
    build(w, &dir, &args).fails(1, &["no emulator for", "install Debian's package qemu-user-static"]);
    w.cata(&["image", "inspect", "both"]).fails(1, &["no such"]);
    let (machine, emulator) = if foreign == "arm64" { ("b7", "aarch64") } else { ("3e", "x86_64") };
    let entry = format!(
        "enabled\ninterpreter /usr/libexec/qemu-binfmt/{emulator}-binfmt-P\nflags: POCF\noffset 0\n\
         magic 7f454c460201010000000000000000000200{machine}00\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
    );
    fs::write(format!("{formats}/qemu-{emulator}"), entry).unwrap();
    let _ = build(w, &dir, &args).ok();
    let run = |args: &[&str]| w.cata(&[&["run", "--rm", "--network", "none"], args].concat()).text();
    assert_eq!(run(&["both"]), host);
    assert_eq!(run(&["--platform", &platform, "both"]), foreign);
    // A container of the foreign one keeps the image, and starts again.
    let _ =
        w.cata(&["create", "--name", "other-c", "--network", "none", "--platform", &platform, "both"]).ok();
    w.cata(&["rmi", "both"]).fails(1, &["is using"]);
    let _ = w.cata(&["image", "prune", "-af"]).ok();
    assert_eq!(w.cata(&["start", "-a", "other-c"]).text(), foreign);
    let _ = w.cata(&["rm", "other-c"]).ok();
    let _ = w.cata(&["rmi", "both"]).ok();
    w.cata(&["image", "inspect", "both"]).fails(1, &["no such"]);
    rustix::mount::unmount(formats, rustix::mount::UnmountFlags::DETACH).unwrap();
    drop(registry);
}
