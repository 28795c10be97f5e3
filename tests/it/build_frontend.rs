//! `build`: what the Dockerfile frontend and `buildx` have learnt lately, and what is refused of it.

use std::fs;
use std::path::Path;

use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::build_sources::{build, dockerfile, sh};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(arguments_that_are_the_engines),
        test!(devices_of_a_step),
        test!(privileged_steps_and_stages_made_anew),
        test!(contexts_that_are_layouts),
        test!(what_is_buildx_alone_is_refused_with_a_way_out),
    ]
}

/// `BUILDKIT_…` and symbolic modes that copy a class.
fn arguments_that_are_the_engines(w: &World) {
    let dir = dockerfile(
        w,
        "words",
        "FROM busybox\nCOPY --chmod=g=u,o=g a /a\nRUN hostname > /name; stat -c %a /a >> /name\n\
         RUN --mount=type=cache,target=/c echo x >> /c/x; cat /c/x >> /name\n",
    );
    fs::write(format!("{dir}/a"), "a").unwrap();
    let run = |tag: &str, args: &[&str]| {
        let done = build(w, &dir, &[&["-t", tag], args].concat()).ok();
        (sh(w, tag, "cat /name"), done.stderr)
    };
    assert_eq!(run("plain", &[]).0, "build\n666\nx");
    let named = run("named", &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=box"]).0;
    assert_eq!(named, "box\n666\nx\nx", "the same cache, another host name");
    // Another cache of the same id; an argument that nobody knows is told of, as any other.
    let args = ["--no-cache", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n", "--build-arg", "BUILDKIT_NOSUCH=1"];
    let (name, said) = run("apart", &args);
    assert_eq!(name, "build\n666\nx");
    assert!(said.contains("[BUILDKIT_NOSUCH] were not consumed"), "{said}");
    let _ = run("index", &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]);
    let kind = w.cata(&["image", "inspect", "-f", "{{.Descriptor.mediaType}}", "index"]).text();
    assert_eq!(kind, "application/vnd.oci.image.index.v1+json");
    // The steps are kept, and nothing is made of them.
    let images = w.cata(&["images", "-aq"]).text();
    let done = build(w, &dir, &["-o", "type=cacheonly"]).ok();
    assert!(done.stderr.contains("3 of 3 steps cached"), "{}", done.stderr);
    assert_eq!(w.cata(&["images", "-aq"]).text(), images);
    build(w, &dir, &["-o", "type=cacheonly", "-o", "type=image"]).fails(125, &["cacheonly"]);
}

fn devices_of_a_step(w: &World) {
    let text = "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n  - name: d\n    containerEdits:\n      env: [GOT=d]\n  \
                - name: e\n    containerEdits:\n      env: [MORE=e]\n";
    fs::create_dir_all("/var/run/cdi").unwrap();
    fs::write("/var/run/cdi/v.yaml", text).unwrap();
    let of = |name: &str, device: &str| {
        dockerfile(w, name, &format!("FROM busybox\nRUN --device={device} echo ${{GOT-}}${{MORE-}} > /got\n"))
    };
    let got = |device: &str, allow: &str| {
        let dir = of("device", device);
        let _ = build(w, &dir, &["--allow", allow, "-t", "got"]).ok();
        sh(w, "got", "cat /got")
    };
    assert_eq!(got("v.com/c=e", "device=v.com/c=e"), "e");
    assert_eq!(got("v.com/c", "device=v.com/c"), "d", "the first of a kind");
    assert_eq!(got("v.com/c=*,required", "device"), "de");
    assert_eq!(got("v.com/c=gone", "device"), "", "nobody insists on it");
    let gone = of("gone", "v.com/c=gone,required");
    build(w, &gone, &["--allow", "device"]).fails(1, &["v.com/c=gone", "v.com/c=d", "Dockerfile:2"]);
    build(w, &gone, &["--allow", "device=v.com/c=d"])
        .fails(1, &["is not allowed", "--allow device=v.com/c=gone"]);
    let wrong = of("wrong", "class1");
    build(w, &wrong, &["--allow", "device"]).fails(1, &["invalid device name", "vendor.com/class=name"]);
}

/// `--security=insecure` where it is allowed, and `--no-cache-filter` of one stage of two.
fn privileged_steps_and_stages_made_anew(w: &World) {
    let stamp = "cat /proc/sys/kernel/random/uuid > /stamp";
    let text = format!(
        "FROM busybox AS one\nRUN {stamp}\nFROM busybox AS two\nRUN {stamp}\nFROM busybox\n\
         COPY --from=one /stamp /one\nCOPY --from=two /stamp /two\n\
         RUN grep CapEff /proc/self/status | tail -c 17 > /sandbox\n\
         RUN --security=insecure grep CapEff /proc/self/status | tail -c 17 > /insecure\n"
    );
    let dir = dockerfile(w, "anew", &text);
    build(w, &dir, &[]).fails(1, &["security.insecure is not allowed", "--allow security.insecure"]);
    let made = |args: &[&str]| {
        let _ = build(w, &dir, &[&["--allow", "security.insecure", "-t", "anew"], args].concat()).ok();
        let said = sh(w, "anew", "cat /one /two /sandbox /insecure");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = made(&[]);
    assert_ne!(first[2], first[3], "no privileges were given");
    let second = made(&["--no-cache-filter", "two"]);
    assert_eq!(first[0], second[0]);
    assert_ne!(first[1], second[1]);
}

/// An image of a directory stands for a name; no name of the store moves, and nothing stays.
fn contexts_that_are_layouts(w: &World) {
    let layout = w.scratch().join("layout");
    let tar = w.scratch().join("l.tar");
    let other = dockerfile(w, "other", "FROM busybox\nRUN echo of the layout > /told\n");
    let _ = build(w, &other, &["-t", "base:one"]).ok();
    let _ = w.cata(&["save", "-o", tar.to_str().unwrap(), "base:one"]).ok();
    unpack(&tar, &layout);
    let _ = w.cata(&["rmi", "base:one"]).ok();
    let _ = w.cata(&["tag", "busybox", "base:one"]).ok();
    let before =
        w.cata(&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]).text();
    let dir = dockerfile(w, "upon", "FROM base:one\nCOPY --from=base:one /told /copied\n");
    for (at, which) in ["", ":one"].iter().enumerate() {
        let tag = format!("built:{at}");
        let context = format!("base:one=oci-layout://{}{which}", layout.display());
        let _ = build(w, &dir, &["--no-cache", "--build-context", &context, "-t", &tag]).ok();
        assert_eq!(sh(w, &tag, "cat /told /copied"), "of the layout\nof the layout");
        let _ = w.cata(&["rmi", &tag]).ok();
    }
    assert_eq!(
        w.cata(&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]).text(),
        before
    );
    let fails = |context: &str, words: &[&str]| {
        build(w, &dir, &["--build-context", context]).fails(1, words);
    };
    fails(&format!("base:one=oci-layout://{}:two", layout.display()), &["layout:two"]);
    fails("base:one=oci-layout:///nowhere", &["/nowhere/index.json"]);
    fails("unused=/nowhere", &["/nowhere", "--build-context unused"]);
}

fn unpack(tar: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let run = cata_tests::command::Run::new("tar");
    let _ = run.args(["-xf", tar.to_str().unwrap(), "-C", to.to_str().unwrap()]).done().ok();
}

fn what_is_buildx_alone_is_refused_with_a_way_out(w: &World) {
    let dir = dockerfile(w, "refused", "FROM busybox\n");
    fs::write(format!("{dir}/Dockerfile.rego"), "package docker\n").unwrap();
    build(w, &dir, &[]).fails(125, &["Dockerfile.rego", "--policy disabled=true"]);
    let _ = build(w, &dir, &["--policy", "disabled=true"]).ok();
    fs::remove_file(format!("{dir}/Dockerfile.rego")).unwrap();
    build(w, &dir, &["--builder", "b"]).fails(125, &["--builder", "one builder"]);
    build(w, &dir, &["--build-context", "b=target:t"]).fails(125, &["target:t", "docker-image://"]);
    w.cata(&["buildx", "bake"]).fails(1, &["buildx bake", "--target"]);
    w.cata(&["buildx", "create", "--use"]).fails(1, &["buildx create", "one builder"]);
    let _ = w.cata(&["image", "build", "-q", &dir]).ok();
}
