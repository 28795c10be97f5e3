//! Images without a registry: import, save, load, tag, rmi, and what layers may hold.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use cata_tests::archive::{Layer, docker_archive};
use cata_tests::cache::Recipe;
use cata_tests::command::Run;
use cata_tests::harness::Test;
use cata_tests::world::World;
use tar::EntryType;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(image_commands),
        test!(import_makes_an_image),
        test!(save_and_load_come_round),
        test!(saved_archive_is_read_by_skopeo_and_podman).needs(&["skopeo", "podman"]),
        test!(oci_archive_is_loaded).needs(&["skopeo"]),
        test!(layers_lie_upon_each_other),
        test!(entries_of_every_kind),
        test!(xattrs_and_capabilities).needs(&["setcap", "getcap"]),
        test!(compressed_layers).needs(&["zstd"]),
        test!(image_in_use_is_kept),
        test!(image_configuration_is_obeyed),
    ]
}

fn load(w: &World, name: &str, layers: &[Vec<u8>], change: impl FnOnce(&mut serde_json::Value)) {
    let file = w.file("image.tar", docker_archive(name, layers, change));
    let said = w.cata_run(["load", "-i"]).arg(file).done().ok();
    assert!(said.stdout.contains(&format!("Loaded image: {name}")), "{said}");
}

fn sh(w: &World, image: &str, script: &str) -> cata_tests::command::Done {
    w.cata(&["run", "--rm", image, "sh", "-c", script])
}

fn image_commands(w: &World) {
    let id = w.cata(&["images", "-q", "--no-trunc"]).text();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let _ = w.cata(&["tag", "busybox", "other/name:v1"]).ok();
    let listed = w.cata(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).lines();
    assert!(
        listed.iter().any(|l| l == "busybox:latest") && listed.iter().any(|l| l == "other/name:v1"),
        "{listed:?}"
    );
    let image = w.cata(&["image", "inspect", "other/name:v1"]).json()[0].take();
    assert_eq!(image["Id"], id);
    assert_eq!(image["Config"]["Cmd"][0], "sh");
    assert_eq!(image["Architecture"], cata_tests::archive::architecture());
    assert!(w.cata(&["history", "busybox"]).lines().len() >= 2);
    assert_eq!(w.cata(&["rmi", "other/name:v1"]).text(), "Untagged: other/name:v1");
    assert!(w.cata(&["rmi", "busybox"]).ok().stdout.contains(&format!("Deleted: {id}")));
    assert_eq!(w.cata(&["images", "-q"]).text(), "");
    w.cata(&["rmi", "busybox"]).fails(1, &["no such image", "busybox"]);
    // What nobody needs any more is gone from the disk.
    assert_eq!(fs::read_dir(w.root().join("layers")).unwrap().count(), 0);
}

fn import_makes_an_image(w: &World) {
    let tar = Recipe::of("busybox").made().unwrap();
    let run =
        w.cata_run(["import", "-c", "CMD [\"echo\", \"by default\"]", "-c", "ENV A=b", "-c", "WORKDIR /w"]);
    assert!(run.arg(&tar).arg("mine:1").done().text().starts_with("sha256:"));
    assert_eq!(w.cata(&["run", "--rm", "mine:1"]).text(), "by default");
    assert_eq!(w.cata(&["run", "--rm", "mine:1", "sh", "-c", "echo $A $PWD"]).text(), "b /w");
    let piped = w.cata_run(["import", "-", "piped"]).input(fs::read(tar).unwrap()).done();
    let _ = piped.ok();
    let _ = w.cata(&["run", "--rm", "piped", "true"]).ok();
    w.cata(&["import", "-c", "FLY high", "/dev/null", "x"]).fails(1, &["FLY"]);
}

fn save_and_load_come_round(w: &World) {
    let id = w.cata(&["images", "-q", "--no-trunc"]).text();
    let file = w.scratch().join("saved.tar");
    let path = file.to_str().unwrap();
    let _ = w.cata(&["tag", "busybox", "second"]).ok();
    let _ = w.cata(&["save", "-o", path, "busybox", "second"]).ok();
    let _ = w.cata(&["rmi", "busybox", "second"]).ok();
    let said = w.cata(&["load", "-i", path]).ok().stdout;
    assert!(
        said.contains("Loaded image: busybox:latest") && said.contains("Loaded image: second:latest"),
        "{said}"
    );
    assert_eq!(w.cata(&["images", "-q", "--no-trunc", "busybox"]).text(), id);
    assert_eq!(w.cata(&["run", "--rm", "second", "echo", "ran"]).text(), "ran");
    // Through a pipe as well, compressed.
    let _ = Run::new("gzip").arg(&file).done().ok();
    let _ = w.cata(&["rmi", "-f", "busybox", "second"]).ok();
    let _ = w.cata_run(["load"]).input(fs::read(file.with_extension("tar.gz")).unwrap()).done().ok();
    assert_eq!(w.cata(&["images", "-q", "--no-trunc", "busybox"]).text(), id);
}

fn saved_archive_is_read_by_skopeo_and_podman(w: &World) {
    let file = w.scratch().join("saved.tar");
    let path = file.to_str().unwrap();
    let _ = w.cata(&["save", "-o", path, "busybox"]).ok();
    let seen =
        Run::new("skopeo").args(["inspect", "--config", &format!("docker-archive:{path}")]).done().json();
    assert_eq!(seen["config"]["Cmd"][0], "sh");
    let home = w.scratch().join("podman");
    // Podman wants its run directory to have a short name.
    let podman = |args: &[&str]| {
        let run = Run::new("podman").arg("--root").arg(home.join("root")).args(["--runroot", "/run/podman"]);
        run.args(["--storage-driver", "vfs", "--events-backend", "none"]).args(args).done()
    };
    assert!(podman(&["load", "-i", path]).ok().stdout.contains("busybox"));
    let listed = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).text();
    assert!(listed.ends_with("busybox:latest"), "{listed}");
}

fn oci_archive_is_loaded(w: &World) {
    let docker = w.scratch().join("d.tar");
    let oci = w.scratch().join("o.tar");
    let _ = w.cata(&["save", "-o", docker.to_str().unwrap(), "busybox"]).ok();
    let from = format!("docker-archive:{}", docker.display());
    let to = format!("oci-archive:{}:fromoci:latest", oci.display());
    let _ = Run::new("skopeo").args(["--insecure-policy", "copy", &from, &to]).done().ok();
    let _ = w.cata(&["load", "-i", oci.to_str().unwrap()]).ok().says("fromoci:latest");
    assert_eq!(w.cata(&["run", "--rm", "fromoci", "echo", "ran"]).text(), "ran");
}

fn layers_lie_upon_each_other(w: &World) {
    let lower = Layer::default().dir("d").file("d/kept", 0o644, "lower").file("d/gone", 0o644, "x").dir("o");
    let lower = lower.file("o/hidden", 0o644, "x").file("replaced", 0o644, "x").finish();
    let upper = Layer::default()
        .file("d/.wh.gone", 0o644, "")
        .file("o/.wh..wh..opq", 0o644, "")
        .file("o/new", 0o644, "n");
    let upper = upper.dir("replaced").file("replaced/by-dir", 0o644, "y").finish();
    load(w, "three:latest", &[Layer::busybox(), lower, upper], |_| {});
    let said = sh(w, "three", "ls d o replaced | tr '\\n' ' '; cat d/kept").text();
    assert_eq!(said, "d: kept  o: new  replaced: by-dir lower");
}

fn entries_of_every_kind(w: &World) {
    let long = "long/".to_owned() + &"n".repeat(80);
    let layer = Layer::default()
        .file("plain", 0o4751, "content")
        .entry("hard", EntryType::Link, 0o4751, "plain", &[])
        .symlink("soft", "../../plain")
        .entry("pipe", EntryType::Fifo, 0o600, "", &[])
        .file(&long, 0o644, "long")
        .file("no/parents/given", 0o600, "deep")
        .file("./dotted/./path", 0o644, "dots")
        .finish();
    load(w, "kinds:latest", &[Layer::busybox(), layer], |_| {});
    let script = format!(
        "stat -c %a:%h plain; stat -c %h hard; readlink soft; cat soft; echo; stat -c %F pipe; cat {long} no/parents/given dotted/path"
    );
    let said = sh(w, "kinds", &script).lines();
    assert_eq!(said, ["4751:2", "2", "../../plain", "content", "fifo", "longdeepdots"]);
}

fn xattrs_and_capabilities(w: &World) {
    // Debian's tar writes file capabilities as PAX records.
    let dir = w.scratch().join("tree");
    fs::create_dir(&dir).unwrap();
    fs::copy("/bin/true", dir.join("able")).unwrap();
    let able = dir.join("able");
    let _ = Run::new("setcap").arg("cap_net_raw+ep").arg(&able).done().ok();
    let _ = Run::new("truncate").args(["-s", "8M"]).arg(dir.join("sparse")).done().ok();
    let tar = w.scratch().join("layer.tar");
    let pack = Run::new("tar").args(["--xattrs", "--xattrs-include=*", "--sparse", "--format=pax", "-C"]);
    let _ = pack.arg(&dir).arg("-cf").arg(&tar).arg(".").done().ok();
    assert!(fs::metadata(&tar).unwrap().len() < 1 << 20);
    load(w, "able:latest", &[Layer::busybox(), fs::read(tar).unwrap()], |_| {});
    let _ = w.cata(&["create", "--name", "cc", "able"]).ok();
    let layers: Vec<_> = fs::read_dir(w.root().join("layers")).unwrap().map(|e| e.unwrap().path()).collect();
    let found = layers.iter().map(|layer| layer.join("diff/able")).find(|path| path.exists()).unwrap();
    let shown = Run::new("getcap").arg(&found).done().text();
    assert!(shown.contains("cap_net_raw=ep"), "{shown}");
    let sparse = fs::metadata(found.with_file_name("sparse")).unwrap();
    assert_eq!(sparse.len(), 8 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "the hole was filled");
}

fn compressed_layers(w: &World) {
    for (program, name) in [("gzip", "zipped"), ("zstd", "standard")] {
        let plain = w.scratch().join(name);
        fs::write(&plain, Layer::default().file("inside", 0o644, name).finish()).unwrap();
        let packed = w.scratch().join(format!("{name}.packed"));
        let script = format!("{program} -c {} > {}", plain.display(), packed.display());
        let _ = Run::new("sh").args(["-c", &script]).done().ok();
        let _ = w.cata_run(["import"]).arg(packed).arg(name).done().ok();
        let _ = w.cata(&["create", "--name", name, name, "x"]).ok();
        let layers = fs::read_dir(w.root().join("layers")).unwrap();
        assert!(
            layers
                .map(|e| e.unwrap().path())
                .any(|l| { fs::read_to_string(l.join("diff/inside")).is_ok_and(|content| content == name) })
        );
    }
}

fn image_in_use_is_kept(w: &World) {
    let _ = w.cata(&["create", "--name", "cc", "busybox", "true"]).ok();
    w.cata(&["rmi", "busybox"]).fails(1, &["busybox"]);
    let _ = w.cata(&["start", "-a", "cc"]).ok();
    let _ = w.cata(&["rm", "cc"]).ok();
    let _ = w.cata(&["rmi", "busybox"]).ok();
}

fn image_configuration_is_obeyed(w: &World) {
    load(w, "configured:latest", &[Layer::busybox()], |config| {
        config["config"] = serde_json::json!({
            "Entrypoint": ["echo", "entry"], "Cmd": ["command"], "Env": ["PATH=/bin", "X=image"],
            "WorkingDir": "/made/for/it", "User": "www-data", "Labels": {"l": "m"},
            "Volumes": {"/vol": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGUSR1"
        });
    });
    assert_eq!(w.cata(&["run", "--rm", "configured"]).text(), "entry command");
    assert_eq!(w.cata(&["run", "--rm", "configured", "other"]).text(), "entry other");
    let script = "pwd; id -un; echo $X";
    let said = w.cata(&["run", "--rm", "--entrypoint", "sh", "configured", "-c", script]).lines();
    assert_eq!(said, ["/made/for/it", "www-data", "image"]);
    let _ = w.cata(&["create", "--name", "cc", "configured"]).ok();
    let config = &w.inspect("cc")["Config"];
    assert_eq!(config["Labels"]["l"], "m");
    assert_eq!(config["StopSignal"], "SIGUSR1");
    assert_eq!(w.cata(&["volume", "ls", "-q"]).lines().len(), 1);
}
