//! Layers that are missing, damaged or not to be believed.

use cata_image::{Error, Kind, StoreError};

use crate::fixture::{Place, ready};

#[test]
fn a_missing_layer_is_unpacked_again() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("etc/x", "y")], 10_000);
    let paths = here.store.layer_paths(&made).unwrap();
    std::fs::remove_dir_all(paths[0].parent().unwrap()).unwrap();
    let again = here.store.layer_paths(&made).unwrap();
    assert_eq!(paths, again);
    assert_eq!(std::fs::read_to_string(again[0].join("etc/x")).unwrap(), "y");
}

#[test]
fn a_layer_of_another_boot_that_was_never_synced_is_not_believed() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("etc/x", "y")], 0);
    let path = here.store.layer_paths(&made).unwrap().remove(0);
    let record = path.parent().unwrap().join("layer.json");
    // Synced: believed whatever the boot.
    assert!(std::fs::read_to_string(&record).unwrap().contains("\"synced\":true"));
    std::fs::write(path.join("etc/x"), "").unwrap();
    for doubtful in [r#"{"size":1,"boot":"another","synced":false}"#, "", "\0\0\0\0"] {
        std::fs::write(&record, doubtful).unwrap();
        std::fs::write(path.join("etc/x"), "").unwrap();
        here.store.layer_paths(&made).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("etc/x")).unwrap(), "y", "{doubtful:?}");
    }
    assert!(here.names("ingest").is_empty());
}

#[test]
fn a_damaged_blob_is_named() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("etc/x", "y")], 10_000);
    let layer = made.manifest.layers[0].digest;
    let blob = here.path(&format!("content/blobs/sha256/{}", layer.hex()));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    std::fs::remove_dir_all(here.path("layers")).unwrap();
    std::fs::create_dir(here.path("layers")).unwrap();
    let error = here.store.layer_paths(&made).unwrap_err();
    assert!(
        matches!(error, Error::Store(StoreError::CorruptBlob { expected, .. }) if expected == layer),
        "{error}"
    );
    assert!(here.names("layers").is_empty() && here.names("ingest").is_empty());
    std::fs::remove_file(&blob).unwrap();
    let error = here.store.layer_paths(&made).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains(&layer.to_string()), "{error}");
}

#[test]
fn history_gives_each_step_its_layers_size() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("x", "12345")], 0);
    let lines = here.store.history(&made);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].id, lines[0].size), (Some(made.id), 5));
    assert_eq!(made.size, 5);
}

/// Whoever mounts a step's layer while it becomes the store's finds it at every moment; what a killed adopter left in the
/// layer's place is in nobody's way.
#[test]
fn a_layer_that_is_adopted_is_there_at_every_moment() {
    use std::sync::atomic::{AtomicBool, Ordering};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = cata_image::Store::open(dir.path());
    for round in 0..50 {
        // Two of the same content: the second finds the layer there, or waits for the first.
        let homes = [0, 1].map(|at| dir.path().join(format!("made-{round}-{at}")));
        for home in &homes {
            std::fs::create_dir_all(home.join("diff")).unwrap();
            std::fs::write(home.join("diff/round"), format!("{round}")).unwrap();
        }
        let captured = store.capture(&homes[0].join("diff")).unwrap();
        if round % 2 == 0 {
            let place = dir.path().join("layers").join(captured.diff_id.hex());
            std::os::unix::fs::symlink(&place, &place).unwrap();
        }
        let (looking, done) = (std::sync::Barrier::new(3), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let looker = scope.spawn(|| {
                looking.wait();
                while !done.load(Ordering::Acquire) {
                    for home in &homes {
                        std::fs::read(home.join("diff/round")).unwrap();
                    }
                }
            });
            let adopting = homes.each_ref().map(|home| {
                let (store, captured, looking) = (&store, &captured, &looking);
                scope.spawn(move || {
                    looking.wait();
                    store.adopt_layer(home, captured).unwrap();
                })
            });
            let adopted = adopting.map(|thread| thread.join().is_ok());
            done.store(true, Ordering::Release);
            assert!(looker.join().is_ok() && adopted == [true, true], "round {round}");
        });
        assert!(store.has_layer(&captured.diff_id));
        assert_eq!(homes.iter().filter(|home| home.is_symlink()).count(), 1);
        let left: Vec<_> = std::fs::read_dir(dir.path().join("ingest")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_captured_layer_is_adopted_pinned_and_let_go() {
    use cata_image::CommitRequest;
    use cata_spec::image::{ImageConfig, RootFs};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = cata_image::Store::open(dir.path());
    let home = dir.path().join("made");
    std::fs::create_dir_all(home.join("diff/etc")).unwrap();
    std::fs::write(home.join("diff/etc/motd"), "hello").unwrap();
    let captured = store.capture(&home.join("diff")).unwrap();
    assert_eq!((captured.written.entries, captured.written.size), (2, 5));
    store.adopt_layer(&home, &captured).unwrap();
    assert!(home.is_symlink() && store.has_layer(&captured.diff_id));
    assert_eq!(std::fs::read(home.join("diff/etc/motd")).unwrap(), b"hello");

    let rootfs = RootFs { diff_ids: vec![captured.diff_id], ..RootFs::default() };
    let config =
        ImageConfig { architecture: "amd64".into(), os: "linux".into(), rootfs, ..ImageConfig::default() };
    let request = CommitRequest {
        config,
        layers: vec![captured.descriptor.clone()],
        names: vec![cata_spec::Reference::parse("made").unwrap()],
        annotations: Default::default(),
        docker: false,
    };
    let image = cata_image::commit(&store, &request).unwrap();
    assert_eq!(cata_image::commit(&store, &request).unwrap(), image);
    assert_eq!(store.layer_paths(&image).unwrap().len(), 1);

    store.pin_layer(&captured.diff_id).unwrap();
    store.remove("made", Default::default(), &|_| Ok(Vec::new())).unwrap();
    assert!(store.has_layer(&captured.diff_id), "a pinned layer was collected");
    store.unpin_layers(|_| false).unwrap();
    let _ = store.collect_garbage().unwrap().unwrap();
    assert!(!store.has_layer(&captured.diff_id));
    assert!(cata_image::commit(&store, &request).is_err(), "an image of missing layers");
}
