//! `rmi`, and what processes that died left behind.

use cata_image::store::{Unknown, User};
use cata_image::{Error, RemoveOptions, Removed, StoreError};
use cata_spec::Digest;

use crate::fixture::{Place, name, ready};

const FORCE: RemoveOptions = RemoveOptions { force: true };
const PLAIN: RemoveOptions = RemoveOptions { force: false };

fn nobody(_: &Digest) -> Result<Vec<User>, Unknown> {
    Ok(Vec::new())
}

#[test]
fn the_last_name_takes_the_image_and_only_what_is_its_own() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let first = here.image("first", &[("x", "1")], 0);
    let second = here.image("second", &[("x", "2")], 0);
    here.store.tag("first", &name("alias:1")).unwrap();
    let removed = here.store.remove("alias:1", PLAIN, &nobody).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("alias:1"))]);
    let removed = here.store.remove("first", PLAIN, &nobody).unwrap();
    assert_eq!(
        removed,
        [Removed::Untagged(name("first")), Removed::Deleted(first.id), Removed::Deleted(first.diff_ids()[0])]
    );
    assert_eq!(here.names("layers"), [second.diff_ids()[0].hex()]);
    assert_eq!(here.names("content/blobs/sha256").len(), 3);
    assert!(here.store.layer_paths(&second).is_ok());
    let error = here.store.resolve("first").unwrap_err();
    assert_eq!(error.to_string(), "No such image: first:latest");
}

#[test]
fn an_id_with_several_names_needs_force() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("first", &[("x", "1")], 0);
    here.store.tag("first", &name("other")).unwrap();
    let error = here.store.remove(&made.id.short(), PLAIN, &nobody).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::ManyNames(_, 2))), "{error}");
    let removed = here.store.remove(&made.id.short(), FORCE, &nobody).unwrap();
    assert_eq!(removed.len(), 4);
    assert!(here.store.list().unwrap().is_empty() && here.names("content/blobs/sha256").is_empty());
}

#[test]
fn an_image_in_use_stays() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("used", &[("x", "1")], 0);
    let user = |running: bool| {
        move |id: &Digest| {
            assert_eq!(*id, made.id);
            Ok(vec![User { container: "abc".to_owned(), running }])
        }
    };
    for (options, running) in [(PLAIN, false), (PLAIN, true), (FORCE, true)] {
        let error = here.store.remove("used", options, &user(running)).unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::InUse { .. })), "{error}");
    }
    let removed = here.store.remove("used", FORCE, &user(false)).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("used"))]);
    let dangling = here.store.list().unwrap();
    assert!(dangling.len() == 1 && dangling[0].names.is_empty());
    assert!(here.store.layer_paths(&dangling[0]).is_ok());
}

#[test]
fn an_image_whose_container_came_into_being_meanwhile_stays() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("x", "1")], 0);
    // The container's maker looks for its image last: it is gone, and comes back.
    let lease = here.store.lease().unwrap();
    here.store.remove("made", PLAIN, &nobody).unwrap();
    assert!(here.store.list().unwrap().is_empty());
    here.store.keep(&made).unwrap();
    drop(lease);
    here.store.collect_garbage().unwrap().unwrap();
    let back = here.store.list().unwrap();
    assert!(back.len() == 1 && back[0].names.is_empty() && back[0].id == made.id);
    assert!(here.store.layer_paths(&made).is_ok());
    // Who removes cannot tell who uses it: then it stays as it is.
    let error = here.store.remove(&made.id.to_string(), FORCE, &|_| Err("no records".into())).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Users(..))), "{error}");
    assert_eq!(here.store.list().unwrap(), back);
}

#[test]
fn what_a_transfer_holds_is_not_swept() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    let made = here.image("made", &[("x", "1")], 0);
    let lease = here.store.lease().unwrap();
    let removed = here.store.remove("made", PLAIN, &nobody).unwrap();
    assert_eq!(removed.len(), 2, "unnamed, but its layer is not gone yet");
    assert_eq!(here.names("layers"), [made.diff_ids()[0].hex()]);
    drop(lease);
    let swept = here.store.collect_garbage().unwrap().unwrap();
    assert_eq!((swept.layers, swept.blobs.len()), (vec![made.diff_ids()[0]], 3));
}

#[test]
fn what_a_dead_process_left_is_swept() {
    if !ready(&[]) {
        return;
    }
    let here = Place::new();
    std::fs::create_dir_all(here.path("ingest/tmp-layer-1-2-3/diff/a")).unwrap();
    std::fs::write(here.path("ingest/tmp-blob-1-2-3"), "x").unwrap();
    let partial = format!("sha256-{}", "a".repeat(64));
    std::fs::write(here.path("ingest").join(&partial), "half").unwrap();
    here.image("made", &[("x", "1")], 0);
    assert_eq!(here.names("ingest"), [partial], "a young partial download is kept for a later pull");
}
