//! Indices: one name, several images.

use cata_image::{
    CommitRequest, Image, ImportRequest, IndexRequest, PushRequest, RemoveOptions, Silent, commit_index,
    commit_member, import, load, push, save, save_for,
};
use cata_spec::Platform;

use crate::fixture::{Place, Registry, name, ready, run, tar, whole};

fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

/// An index of an image for this host and one for a processor that nobody has, with a plain layer each.
fn index(place: &Place, names: &[&str]) -> Image {
    let mut members = Vec::new();
    for (at, platform) in [platform("linux/s390x"), Platform::host()].into_iter().enumerate() {
        let request = ImportRequest { platform: Some(platform.clone()), ..ImportRequest::default() };
        let content = [("arch", &*platform.to_string()), ("same", "same")];
        let made = import(&place.store, &mut tar(&content, 3_000_000 * at).as_slice(), &request).unwrap();
        let request = CommitRequest {
            config: made.config.clone(),
            layers: made.manifest.layers.clone(),
            names: Vec::new(),
            annotations: Default::default(),
            docker: false,
        };
        members.push(commit_member(&place.store, &request).unwrap().descriptor);
    }
    let names = names.iter().map(|text| name(text)).collect();
    let request = IndexRequest { manifests: members, names, ..IndexRequest::default() };
    let made = commit_index(&place.store, &request).unwrap();
    for image in place.store.list().unwrap() {
        if image.index.is_none() {
            place
                .store
                .remove(&image.manifest_digest.to_string(), RemoveOptions::default(), &|_| Ok(vec![]))
                .unwrap();
        }
    }
    made
}

#[test]
fn index_is_one_image_that_has_a_member_for_each_platform() {
    let here = Place::new();
    let made = index(&here, &["both:1", "both:2"]);
    assert_eq!(here.store.list().unwrap().len(), 1, "members are no images of their own");
    let host = here.store.resolve("both:1").unwrap();
    assert_eq!((host.platform(), host.id), (Platform::host(), made.id));
    let other = here.store.resolve_for("both:1", Some(&platform("linux/s390x"))).unwrap();
    assert_eq!(other.platform(), platform("linux/s390x"));
    assert_eq!(other.index, made.index);
    let read = |image: &Image| {
        let layers = here.store.layer_paths(image).unwrap();
        std::fs::read_to_string(layers[0].join("arch")).unwrap()
    };
    assert_eq!((read(&host), read(&other)), (Platform::host().to_string(), "linux/s390x".to_owned()));
    // By the id of either, by the beginning of it, and by the index's digest.
    assert_eq!(here.store.resolve(&other.id.to_string()).unwrap().id, other.id);
    assert_eq!(here.store.resolve(&host.id.short()).unwrap().id, host.id);
    let top = made.index.clone().unwrap().digest;
    assert_eq!(here.store.resolve(&top.to_string()).unwrap().id, host.id);
    assert_eq!(here.store.members(&host).unwrap().len(), 2);
    // What nothing names is removed, what a member has is not.
    here.store.collect_garbage().unwrap().unwrap();
    assert_eq!((read(&host), read(&other)), (Platform::host().to_string(), "linux/s390x".to_owned()));
    // A container of the foreign member keeps the whole.
    let used = |id: &cata_spec::Digest| {
        let user = cata_image::store::User { container: "c".into(), running: true };
        Ok(if *id == other.id { vec![user] } else { vec![] })
    };
    here.store.remove("both:2", RemoveOptions::default(), &used).unwrap();
    assert!(here.store.remove("both:1", RemoveOptions::default(), &used).is_err());
    here.store.remove("both:1", RemoveOptions::default(), &|_| Ok(vec![])).unwrap();
    assert!(here.store.list().unwrap().is_empty());
    assert!(here.names("content/blobs/sha256").is_empty() && here.names("layers").is_empty());
}

#[test]
fn index_travels_whole() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let full = registry.name("both:1");
    let made = index(&here, &[&full]);
    let mut archive = Vec::new();
    save(&here.store, std::slice::from_ref(&full), &mut archive).unwrap();
    let loaded = load(&there.store, &mut archive.as_slice(), &Silent).unwrap();
    assert_eq!((loaded.len(), loaded[0].names.len()), (1, 1), "{loaded:?}");
    let arrived = there.store.resolve(&full).unwrap();
    assert_eq!((arrived.id, &arrived.index), (made.id, &made.index));
    assert_eq!(there.store.members(&arrived).unwrap().len(), 2);
    let foreign = there.store.resolve_for(&full, Some(&platform("linux/s390x"))).unwrap();
    assert_eq!(foreign.platform(), platform("linux/s390x"));

    let request = whole(&full);
    let pushed = push(&there.store, &there.config(), &request, &Silent).unwrap();
    assert_eq!(pushed.digest, made.index.clone().unwrap().digest);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{full}")]);
    assert!(raw.contains("s390x") && raw.contains(&made.manifest_digest.to_string()), "{raw}");
    let target = here.dir.path().join("copied");
    let target = format!("dir:{}", target.display());
    run("skopeo", &["copy", "-q", "--all", "--src-tls-verify=false", &format!("docker://{full}"), &target]);
    // One member alone.
    let mut alone = Vec::new();
    save_for(&here.store, std::slice::from_ref(&full), Some(&platform("linux/s390x")), &mut alone).unwrap();
    let empty = Place::new();
    load(&empty.store, &mut alone.as_slice(), &Silent).unwrap();
    let image = empty.store.resolve(&full).unwrap();
    assert_eq!((image.platform(), image.index), (platform("linux/s390x"), None));
    let wanted = platform("linux/riscv64");
    assert!(save_for(&here.store, std::slice::from_ref(&full), Some(&wanted), &mut Vec::new()).is_err());
    let one = PushRequest { reference: name(&full), platform: Some(Platform::host()), as_it_is: false };
    let pushed = push(&here.store, &here.config(), &one, &Silent).unwrap();
    assert_eq!(pushed.digest, made.manifest_digest);
    assert_eq!(here.store.list().unwrap().len(), 1, "what was pushed alone is no image of its own");
}
