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
    vec![
        test!(several_platforms_are_one_image).needs(&["docker-registry", "skopeo"]),
        test!(layers_are_compressed_as_asked).needs(&["docker-registry", "skopeo"]),
        test!(steps_run_in_machines).with_kernel(),
        test!(images_are_attested).images(&["busybox", "debian"]).needs(&["docker-registry", "skopeo"]),
    ]
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
    w.cata_run(["build", "--progress", "plain"]).args(args).arg(dir).patience(Duration::from_secs(600)).done()
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

    pulled_whole(w, &registry, &name, &platform);

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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Pulled whole, an index is pushed on as the very same.
fn pulled_whole(w: &World, registry: &Registry, name: &str, platform: &str) {
    let _ = w.cata(&["rmi", name]).ok();
    let _ = w.cata(&["pull", "--all-platforms", name]).ok().says("Downloaded newer image");
    let _ = w.cata(&["pull", "--all-platforms", name]).ok().says("Image is up to date");
    let said = w.cata(&["image", "inspect", "--platform", platform, "-f", "{{len .Manifests}}", name]);
    assert_eq!(said.text(), "2");
    let further = registry.name("further:1");
    let _ = w.cata(&["tag", name, &further]).ok();
    let _ = w.cata(&["push", "-q", &further]).ok();
    assert_eq!(raw(&further), raw(name));
    let _ = w.cata(&["rmi", name, &further]).ok();
}

fn layers_are_compressed_as_asked(w: &World) {
    let registry = Registry::start(w, Settings::default());
    // More than a piece of each compression, and a second layer.
    let dockerfile = "FROM busybox\nRUN seq 1 1200000 > /numbers\nCOPY Dockerfile /\n";
    let dir = context(w, "z", &[("Dockerfile", dockerfile)]);
    let kinds = |manifest: &Value| -> Vec<String> {
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| text(&layer["mediaType"]).to_owned()).collect()
    };
    let pushed = |fields: &str| {
        let output = format!("type=image,name={},push=true{fields}", registry.name("z:1"));
        let _ = build(w, &dir, &["-o", &output]).ok();
        raw(&registry.name("z:1"))
    };
    let base = pushed("");
    assert!(kinds(&base).iter().all(|kind| kind.ends_with("tar+gzip")), "{base}");
    // The base's layer is as it was, unless it is forced.
    let zstd = pushed(",compression=zstd,compression-level=7");
    assert_eq!(kinds(&zstd).iter().filter(|kind| kind.ends_with("tar+zstd")).count(), 2, "{zstd}");
    assert!(kinds(&zstd)[0].ends_with("tar+gzip"), "{zstd}");
    let forced = pushed(",compression=zstd,force-compression=true");
    assert!(kinds(&forced).iter().all(|kind| kind.ends_with("tar+zstd")), "{forced}");
    let plain = pushed(",compression=uncompressed,force-compression=true");
    assert!(kinds(&plain).iter().all(|kind| kind.ends_with("v1.tar")), "{plain}");
    let dockers = pushed(",compression=gzip,compression-level=9,oci-mediatypes=false");
    assert!(text(&dockers["mediaType"]).ends_with("manifest.v2+json"), "{dockers}");
    assert!(kinds(&dockers).iter().all(|kind| kind.ends_with("diff.tar.gzip")), "{dockers}");
    // Whatever it is packed in, it is the same image, and others read it.
    assert_eq!(zstd["config"]["digest"], forced["config"]["digest"]);
    assert_eq!(zstd["config"]["digest"], plain["config"]["digest"]);
    let target = format!("dir:{}", w.scratch().join("copied").display());
    let source = format!("docker://{}", registry.name("z:1"));
    skopeo(&["copy", "-q", "--src-tls-verify=false", &source, &target]);
    let _ = pushed(",compression=zstd");
    let _ = w.cata(&["rmi", "-f", &registry.name("z:1")]).ok();
    let run = ["run", "--rm", "--network", "none", &registry.name("z:1"), "sh", "-c", "md5sum < /numbers"];
    let sum = w.cata(&run).ok().stdout;
    let own = w.cata(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "seq 1 1200000 | md5sum"]);
    assert_eq!(own.ok().stdout, sum);

    // Notes: of the manifest, and where there is no index none of it.
    let noted = pushed(",annotation.a.b=c");
    assert_eq!(noted["annotations"]["a.b"], "c");
    build(w, &dir, &["--annotation", "index:a=b"]).fails(1, &["annotations of an index need one"]);
    build(w, &dir, &["-o", "type=image,compression=estargz"]).fails(125, &["estargz is not supported"]);
    build(w, &dir, &["-o", "type=image,rewrite-timestamp=true"]).fails(1, &["needs source_date_epoch"]);
    drop(registry);
}

/// A blob of the store.
fn blob(w: &World, digest: &Value) -> Vec<u8> {
    let hex = text(digest).strip_prefix("sha256:").unwrap();
    fs::read(w.root().join("content/blobs/sha256").join(hex)).unwrap()
}

/// The statements beside an image, which are of the manifest that the registry has, and hold no secret.
fn statements(w: &World, beside: &Value, image: &Value, secret: &str) -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(&blob(w, &beside["digest"])).unwrap();
    let read = |layer: &Value| {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let bytes = blob(w, &layer["digest"]);
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
        let statement: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(statement["predicateType"], layer["annotations"]["in-toto.io/predicate-type"]);
        let digest = format!("sha256:{}", text(&statement["subject"][0]["digest"]["sha256"]));
        assert_eq!(digest, text(&image["digest"]));
        statement
    };
    manifest["layers"].as_array().unwrap().iter().map(read).collect()
}

/// What is beside an image in its index says where it comes from and what is in it, and no secret.
fn images_are_attested(w: &World) {
    let registry = Registry::start(w, Settings::default());
    let dockerfile = "FROM debian AS base\nARG V\n\
        RUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\" && echo $V > /v\n\
        FROM base\nCOPY Dockerfile /\n";
    let dir = context(w, "a", &[("Dockerfile", dockerfile)]);
    let (name, secret) = (registry.name("attested:1"), "s3cr3t-d0-n0t-t3ll");
    fs::write(w.scratch().join("token"), secret).unwrap();
    let secret_flag = format!("id=token,src={}", w.scratch().join("token").display());
    let metadata = w.scratch().join("metadata.json");
    let args = ["-t", &name, "--push", "--secret", &secret_flag, "--build-arg", "V=v4lue", "--sbom=true"];
    let more = ["--provenance", "mode=max,builder-id=https://me", "--annotation", "index:who=me"];
    let file = ["--metadata-file", metadata.to_str().unwrap()];
    let _ = build(w, &dir, &[&args[..], &more, &file].concat()).ok();

    let index = raw(&name);
    assert_eq!(index["annotations"]["who"], "me");
    let members = index["manifests"].as_array().unwrap();
    assert_eq!(members.len(), 2, "{index}");
    let (image, beside) = (&members[0], &members[1]);
    assert_eq!(beside["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(beside["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(platforms(&index)[1], "unknown");
    let written: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let listed =
        skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")]);
    assert_eq!(text(&written["containerimage.digest"]), listed.trim());
    assert_eq!(written["containerimage.descriptor"]["digest"], written["containerimage.digest"]);

    let statements = statements(w, beside, image, secret);
    let packages = statements[0]["predicate"]["packages"].as_array().unwrap();
    let listed =
        w.cata(&["run", "--rm", "--network", "none", &name, "dpkg-query", "-f", "${Package}\\n", "-W"]);
    let mut expected = listed.lines();
    let mut found: Vec<String> = packages.iter().map(|p| text(&p["name"]).to_owned()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let provenance = &statements[1]["predicate"];
    assert_eq!(provenance["builder"]["id"], "https://me");
    assert!(text(&provenance["materials"][0]["uri"]).starts_with("pkg:docker/debian"), "{provenance}");
    let parameters = &provenance["invocation"]["parameters"];
    assert_eq!(
        (text(&parameters["args"]["build-arg:V"]), text(&parameters["secrets"][0]["id"])),
        ("v4lue", "token")
    );
    assert!(text(&provenance["buildConfig"]["steps"][0]["name"]).starts_with("RUN"), "{provenance}");

    // It goes whole through an archive; the least says nothing of the command line; nothing is asked, nothing is said.
    let archive = w.scratch().join("attested.tar");
    let _ = w.cata(&["save", "-o", archive.to_str().unwrap(), &name]).ok();
    let _ = w.cata(&["rmi", "-f", &name]).ok();
    let _ = w.cata(&["load", "-i", archive.to_str().unwrap()]).ok();
    let kinds =
        w.cata(&["image", "inspect", "--format", "{{range .Manifests}}{{.Kind}} {{end}}", &name]).text();
    assert_eq!(kinds, "image attestation");
    let _ = w.cata(&["push", "-q", &name]).ok();
    assert_eq!(raw(&name), index);
    // And from one registry's name to another's, with what is attested.
    let _ = w.cata(&["rmi", "-f", &name]).ok();
    let _ = w.cata(&["pull", "-q", "--all-platforms", &name]).ok();
    let further = registry.name("further:1");
    let _ = w.cata(&["tag", &name, &further]).ok();
    let _ = w.cata(&["push", "-q", &further]).ok();
    assert_eq!(raw(&further), index);
    let args =
        ["-t", &name, "--secret", &secret_flag, "--build-arg", "V=v4lue", "--attest", "type=provenance"];
    let _ = build(w, &dir, &args).ok();
    let _ = w.cata(&["push", "-q", &name]).ok();
    let beside = &raw(&name)["manifests"][1];
    let manifest: Value = serde_json::from_slice(&blob(w, &beside["digest"])).unwrap();
    let least = String::from_utf8(blob(w, &manifest["layers"][0]["digest"])).unwrap();
    assert!(
        least.contains("pkg:docker/debian") && !least.contains("v4lue") && !least.contains("token"),
        "{least}"
    );
    let _ = build(w, &dir, &["-t", "plain", "--secret", &secret_flag, "--provenance=false"]).ok();
    assert!(w.cata(&["image", "inspect", "plain"]).json()[0]["Manifests"].is_null());
    build(w, &dir, &["-o", "out", "--sbom=true"]).fails(125, &["files are no image"]);
    drop(registry);
}

/// Every RUN in a machine of its own: another kernel, the same files.
fn steps_run_in_machines(w: &World) {
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=bind,target=/ctx --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t \\\n\
        --mount=type=secret,id=s,mode=0400 cat /proc/sys/kernel/random/boot_id > /boot && cat /ctx/f > /f && \\\n\
        echo kept >> /cache/k && touch /t/x && cat /run/secrets/s | md5sum > /sum && chown 7:8 /f && ln -s f /link && rm /etc/group\n\
        RUN --mount=type=cache,target=/cache cat /cache/k > /from-cache\n";
    let dir = context(w, "machines", &[("Dockerfile", dockerfile), ("f", "content")]);
    fs::write(w.scratch().join("s"), "v3ry-s3cr3t").unwrap();
    let secret = format!("id=s,src={}", w.scratch().join("s").display());
    let args = ["-t", "m", "--isolation", "vm", "--network", "none", "--secret", &secret];
    let done = build(w, &dir, &args).ok();
    assert!(done.stderr.contains("0 of 2 steps cached"), "{done}");
    let script =
        "cat /boot /f /from-cache /sum; stat -c '%u:%g' /f; readlink /link; ls /etc/group /t /ctx 2>&1; true";
    let said = w.cata(&["run", "--rm", "--network", "none", "m", "sh", "-c", script]);
    let lines = said.lines();
    let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(lines[0], own.trim(), "it ran on this kernel");
    assert_eq!(lines[1], "contentkept");
    assert!(lines[2].ends_with("  -") && lines[3] == "7:8" && lines[4] == "f", "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("/etc/group: No such file")), "{lines:?}");
    let done = build(w, &dir, &args).ok();
    assert!(done.stderr.contains("2 of 2 steps cached"), "{done}");
    // A step that fails there fails here; what cannot go in is named.
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN echo said && exit 7\n").unwrap();
    build(w, &dir, &args).fails(1, &["exit code: 7", "said"]);
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN --mount=type=ssh true\n").unwrap();
    build(w, &dir, &args).fails(1, &["type=ssh", "not possible with --isolation vm"]);
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN --network=host true\n").unwrap();
    build(w, &dir, &args).fails(1, &["--network host is not possible with --isolation vm"]);
}
