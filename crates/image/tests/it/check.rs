//! `check`: what is damaged is found, and mended where something is left to mend it with.

use cata_image::store::check::Mended;
use cata_image::{PullRequest, Silent, pull, push};

use crate::fixture::{Place, Registry, name, ready, whole};

/// What is wrong, as words and what became of each.
fn mend(here: &Place, quick: bool) -> Vec<(String, Mended)> {
    let checked = here.store.check(quick).unwrap();
    let alone = here.store.alone().unwrap().unwrap();
    let outcome = |fault| (format!("{fault}"), here.store.mend(fault, &alone).unwrap());
    checked.faults.iter().map(outcome).collect()
}

#[test]
fn what_is_damaged_is_found_and_mended() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("etc/x", "y"), ("etc/z", "z")], 10_000);
    let checked = here.store.check(false).unwrap();
    assert_eq!((checked.faults.len(), checked.layers, checked.blobs), (0, 1, 3));
    // A file of the unpacked layer: from the blob.
    let tree = here.store.layer_paths(&made).unwrap().remove(0);
    std::fs::write(tree.join("etc/x"), "n").unwrap();
    assert_eq!(mend(&here, true), []);
    let diff_id = made.diff_ids()[0];
    let what = format!("layer {diff_id}: /etc/x has other content");
    assert_eq!(mend(&here, false), [(what, Mended::Unpacked)]);
    assert_eq!(std::fs::read_to_string(tree.join("etc/x")).unwrap(), "y");
    assert_eq!(mend(&here, false), []);
    // A blob: goes, and is missed then.
    let blob = made.manifest.layers[0].digest;
    let path = here.path(&format!("content/blobs/sha256/{}", blob.hex()));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let found = here.store.check(false).unwrap();
    assert_eq!(found.faults[0].images(), ["made:latest".to_owned()]);
    let outcome = mend(&here, false);
    assert!(outcome[0].0.starts_with(&format!("blob {blob}: its content has digest sha256:")), "{outcome:?}");
    assert_eq!((outcome.len(), outcome[0].1), (1, Mended::Removed));
    assert_eq!(mend(&here, true), [(format!("blob {blob} is missing"), Mended::Not)]);
    assert!(here.names("ingest").is_empty());
}

#[test]
fn a_plain_blob_is_made_again_of_its_layer() {
    use cata_image::CommitRequest;
    use cata_spec::image::{ImageConfig, RootFs};
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let home = here.path("made");
    std::fs::create_dir_all(home.join("diff/etc")).unwrap();
    std::fs::write(home.join("diff/etc/motd"), "hello").unwrap();
    let captured = here.store.capture(&home.join("diff")).unwrap();
    here.store.adopt_layer(&home, &captured).unwrap();
    let rootfs = RootFs { diff_ids: vec![captured.diff_id], ..RootFs::default() };
    let request = CommitRequest {
        config: ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            rootfs,
            ..ImageConfig::default()
        },
        layers: vec![captured.descriptor.clone()],
        names: vec![cata_spec::Reference::parse("made").unwrap()],
        annotations: Default::default(),
        docker: false,
    };
    let image = cata_image::commit(&here.store, &request).unwrap();
    assert_eq!(mend(&here, false), []);
    let path = here.path(&format!("content/blobs/sha256/{}", captured.diff_id.hex()));
    let whole = std::fs::read(&path).unwrap();
    for text in [None, Some("short")] {
        match text {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        let outcome = mend(&here, false);
        assert_eq!(outcome.len(), 1, "{outcome:?}");
        assert_eq!(outcome[0].1, Mended::Captured, "{outcome:?}");
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
    // A document of an image cannot be guessed.
    std::fs::write(here.path(&format!("content/blobs/sha256/{}", image.id.hex())), "{}").unwrap();
    assert_eq!(mend(&here, false).into_iter().map(|found| found.1).collect::<Vec<_>>(), [Mended::Removed]);
    let mut told = Vec::new();
    assert!(here.store.list_telling(&mut |name, _| told.push(name.to_owned())).unwrap().is_empty());
    assert_eq!(told, ["made:latest"]);
    here.store.remove("made", Default::default(), &|_| Ok(Vec::new())).unwrap();
    assert_eq!(mend(&here, false), []);
}

#[test]
fn a_pull_brings_again_what_a_check_removed() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let full = registry.name("made:1");
    here.image(&full, &[("etc/x", "y")], 10_000);
    let _ = push(&here.store, &here.config(), &whole(&full), &Silent).unwrap();
    let request = PullRequest { reference: name(&full), platform: None };
    let pulled = pull(&there.store, &there.config(), &request, &Silent).unwrap().image;
    for digest in [pulled.manifest.layers[0].digest, pulled.id, pulled.manifest_digest] {
        std::fs::write(there.path(&format!("content/blobs/sha256/{}", digest.hex())), "rot").unwrap();
        let outcome = mend(&there, false);
        assert!(outcome.iter().all(|(_, mended)| *mended == Mended::Removed), "{outcome:?}");
        assert_eq!(outcome.len(), 1, "{outcome:?}");
        let again = pull(&there.store, &there.config(), &request, &Silent).unwrap().image;
        assert_eq!((again.id, mend(&there, false)), (pulled.id, Vec::new()));
    }
}
