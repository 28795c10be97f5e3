//! `save`, `load` and `import`, with other tools on the other side.

use cata_image::{Error, ImportRequest, LayerError, Loaded, Silent, import, load, save};
use cata_spec::image::media_type;

use crate::fixture::{Place, Registry, name, ready, run, tar};

fn saved(place: &Place, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut bytes = Vec::new();
    save(&place.store, &names, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_saved_is_loaded_and_read_by_skopeo() {
    if !ready(&["skopeo"]) {
        return;
    }
    let (here, there) = (Place::new(), Place::new());
    let made = here.image("made:1", &[("etc/x", "y")], 200_000);
    let bytes = saved(&here, &["made:1"]);
    let file = here.dir.path().join("made.tar");
    std::fs::write(&file, &bytes).unwrap();
    let docker = run("skopeo", &["inspect", "--config", &format!("docker-archive:{}", file.display())]);
    assert!(docker.contains("A=b"), "{docker}");
    let oci = run("skopeo", &["inspect", &format!("oci-archive:{}", file.display())]);
    assert!(oci.contains(&made.manifest_digest.to_string()), "{oci}");

    let loaded = load(&there.store, &mut bytes.as_slice(), &Silent).unwrap();
    assert_eq!(loaded, [Loaded { id: made.id, names: vec![name("made:1")] }]);
    let image = there.store.resolve("made:1").unwrap();
    assert_eq!((image.manifest_digest, image.size), (made.manifest_digest, made.size));
    // By id, without a name; compressed as a whole; again over what is there.
    let mut packed = Vec::new();
    let by_id = saved(&here, &[&made.id.to_string()]);
    std::io::Read::read_to_end(
        &mut flate2::read::GzEncoder::new(by_id.as_slice(), flate2::Compression::fast()),
        &mut packed,
    )
    .unwrap();
    let again = load(&there.store, &mut packed.as_slice(), &Silent).unwrap();
    assert_eq!(again, [Loaded { id: made.id, names: vec![] }]);
    assert_eq!(there.store.list().unwrap().len(), 1);
    assert!(there.names("ingest").is_empty());
}

#[test]
fn podman_loads_what_is_saved() {
    if !ready(&["podman"]) {
        return;
    }
    let here = Place::new();
    here.image("made:1", &[("etc/x", "y")], 10_000);
    let file = here.dir.path().join("made.tar");
    std::fs::write(&file, saved(&here, &["made:1"])).unwrap();
    let (root, state) = (here.dir.path().join("podman"), here.dir.path().join("podman-run"));
    let (root, state) = (root.display().to_string(), state.display().to_string());
    let base = ["--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
    let file = file.display().to_string();
    run("podman", &[&base[..], &["load", "-q", "-i", &file]].concat());
    let images = run("podman", &[&base[..], &["images", "--format", "{{.Repository}}:{{.Tag}}"]].concat());
    assert!(images.contains("made:1"), "{images}");
}

#[test]
fn docker_archives_are_loaded_and_compressed_when_pushed() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (here, there, registry) = (Place::new(), Place::new(), Registry::start());
    let made = here.image("made:1", &[("etc/x", "y")], 50_000);
    let (oci, docker) = (here.dir.path().join("oci.tar"), here.dir.path().join("docker.tar"));
    std::fs::write(&oci, saved(&here, &["made:1"])).unwrap();
    let (from, to) =
        (format!("oci-archive:{}", oci.display()), format!("docker-archive:{}:other:2", docker.display()));
    run("skopeo", &["copy", "-q", &from, &to]);
    let mut file = std::fs::File::open(&docker).unwrap();
    let loaded = load(&there.store, &mut file, &Silent).unwrap();
    assert_eq!(loaded[0].names, [name("other:2")]);
    let image = there.store.resolve("other:2").unwrap();
    assert_eq!(image.diff_ids(), made.diff_ids());
    assert_eq!(image.manifest.layers[0].media_type, media_type::OCI_LAYER);

    let target = name(&registry.name("other:2"));
    there.store.tag("other:2", &target).unwrap();
    let request = cata_image::PushRequest { reference: target.clone(), platform: None, as_it_is: false };
    cata_image::push(&there.store, &there.config(), &request, &Silent).unwrap();
    let after = there.store.resolve("other:2").unwrap();
    assert_eq!(after.id, image.id);
    assert_eq!(after.manifest.layers[0].media_type, media_type::OCI_LAYER_GZIP);
    let fresh = Place::new();
    let wish = cata_image::PullRequest { reference: target, platform: None };
    let pulled = cata_image::pull(&fresh.store, &fresh.config(), &wish, &Silent).unwrap();
    assert_eq!((pulled.image.id, pulled.image.manifest_digest), (image.id, after.manifest_digest));
}

#[test]
fn what_is_no_archive_leaves_nothing() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    here.image("made", &[("x", "y")], 100_000);
    let whole = saved(&here, &["made"]);
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("truncated", whole[..whole.len() / 2].to_vec(), "cannot read the archive"),
        ("garbage", b"this is not a tar archive".repeat(100), "archive"),
        ("a root file system", tar(&[("etc/x", "y"), ("a.json", "{}")], 2000), "archive holds no image"),
        ("empty", Vec::new(), "archive holds no image"),
    ];
    for (what, bytes, words) in cases {
        let there = Place::new();
        let error = load(&there.store, &mut bytes.as_slice(), &Silent).unwrap_err();
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(there.store.list().unwrap().is_empty(), "{what}");
        assert!(there.names("ingest").is_empty(), "{what}: {:?}", there.names("ingest"));
    }
}

#[test]
fn an_archive_whose_layer_is_another_is_refused() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("x", "y")], 0);
    let config = std::fs::read(here.path(&format!("content/blobs/sha256/{}", made.id.hex()))).unwrap();
    let layer = tar(&[("x", "another")], 0);
    let mut archive = tar::Builder::new(Vec::new());
    let manifest = r#"[{"Config":"c.json","RepoTags":["evil:1"],"Layers":["l/layer.tar"]}]"#;
    for (path, bytes) in
        [("l/layer.tar", &layer[..]), ("c.json", &config), ("manifest.json", manifest.as_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, bytes).unwrap();
    }
    let there = Place::new();
    let error = load(&there.store, &mut archive.into_inner().unwrap().as_slice(), &Silent).unwrap_err();
    assert!(matches!(error, Error::Layer(LayerError::DiffId { .. })), "{error}");
    assert!(there.store.list().unwrap().is_empty());
}

#[test]
fn hostile_layers_are_refused_by_name_and_leave_nothing() {
    if !ready(&[]) {
        return;
    }
    let evil = |path: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        // The builder itself refuses such names.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    for path in ["../../evil", "a/../../evil"] {
        let here = Place::new();
        let error = import(&here.store, &mut evil(path).as_slice(), &ImportRequest::default()).unwrap_err();
        assert!(matches!(error, Error::Layer(LayerError::Escapes(_))), "{error}");
        assert!(error.to_string().contains(path), "{error}");
        assert!(here.names("ingest").is_empty() && here.names("layers").is_empty());
        assert!(!here.dir.path().join("evil").exists());
    }
    let here = Place::new();
    let bad = ImportRequest { changes: vec!["RUN x".to_owned()], ..ImportRequest::default() };
    let error = import(&here.store, &mut tar(&[("x", "y")], 0).as_slice(), &bad).unwrap_err();
    assert!(error.to_string().contains("RUN x"), "{error}");
}
