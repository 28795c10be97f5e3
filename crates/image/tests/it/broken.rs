//! Connections that break, registries that lie.

use cata_image::{Error, Event, Image, Kind, PullRequest, RegistryError, Silent, pull, push};

use crate::fixture::{Place, Recorder, Registry, name, ready, whole};
use crate::proxy::{Action, Proxy};

const BULK: usize = 3_000_000;

/// A registry with one image of some megabytes.
fn filled() -> (Registry, Image) {
    let (registry, here) = (Registry::start(), Place::new());
    let full = registry.name("big:1");
    let made = here.image(&full, &[("etc/x", "y")], BULK);
    push(&here.store, &here.config(), &whole(&full), &Silent).unwrap();
    (registry, made)
}

fn wish(proxy: &Proxy) -> PullRequest {
    PullRequest { reference: name(&proxy.name("big:1")), platform: None }
}

fn is_layer(head: &str, made: &Image) -> bool {
    head.starts_with(&format!("get /v2/big/blobs/{}", made.manifest.layers[0].digest))
}

#[test]
fn a_cut_connection_is_resumed_with_a_range() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    let image = made.clone();
    let cuts = std::sync::atomic::AtomicUsize::new(0);
    let proxy = Proxy::start(registry.port, move |head, _| {
        if is_layer(head, &image) && cuts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3 {
            Action::Cut(700_001)
        } else {
            Action::Forward
        }
    });
    let (there, seen) = (Place::new(), Recorder::default());
    let pulled = pull(&there.store, &there.config(), &wish(&proxy), &seen).unwrap();
    assert_eq!(pulled.image.id, made.id);
    assert_eq!(seen.count(|e| matches!(e, Event::Retrying { .. })), 3);
    let heads = proxy.heads();
    for range in ["range: bytes=700001-", "range: bytes=1400002-", "range: bytes=2100003-"] {
        assert!(heads.iter().any(|head| head.contains(range)), "{range}");
    }
    assert!(there.names("ingest").is_empty());
}

#[test]
fn a_later_command_goes_on_where_an_earlier_one_was_cut() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    let image = made.clone();
    // The whole registry dies for the first command: after the cut nothing is answered.
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (there, switch) = (Place::new(), std::sync::Arc::clone(&down));
    let proxy = Proxy::start(registry.port, move |head, _| {
        use std::sync::atomic::Ordering::SeqCst;
        if switch.load(SeqCst) {
            Action::Answer(String::new())
        } else if is_layer(head, &image) && !head.contains("range:") {
            switch.store(true, SeqCst);
            Action::Cut(1_000_000)
        } else {
            Action::Forward
        }
    });
    let error = pull(&there.store, &there.config(), &wish(&proxy), &Silent).unwrap_err();
    assert!(matches!(error, Error::Registry(RegistryError::Unreachable { .. })), "{error}");
    assert_eq!(there.names("ingest").len(), 1, "only the partial download stays");
    assert!(there.names("layers").is_empty() && there.store.list().unwrap().is_empty());
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(pull(&there.store, &there.config(), &wish(&proxy), &Silent).unwrap().image.id, made.id);
    assert!(proxy.heads().last().unwrap().contains("range: bytes=1000000-"));
    assert!(there.names("ingest").is_empty());
}

#[test]
fn a_connection_on_which_nothing_moves_is_given_up() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    let image = made.clone();
    let proxy = Proxy::start(registry.port, move |head, _| {
        if is_layer(head, &image) && !head.contains("range:") {
            Action::Stall(500_000)
        } else {
            Action::Forward
        }
    });
    let there = Place::new();
    let mut config = there.config();
    config.stall_timeout = std::time::Duration::from_secs(2);
    assert_eq!(pull(&there.store, &config, &wish(&proxy), &Silent).unwrap().image.id, made.id);
    assert!(proxy.heads().iter().any(|head| head.contains("range: bytes=500000-")));
}

#[test]
fn spoilt_content_is_never_visible() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    for at in [20, 1_500_000] {
        let image = made.clone();
        let proxy = Proxy::start(registry.port, move |head, _| {
            if is_layer(head, &image) { Action::Spoil(at) } else { Action::Forward }
        });
        let there = Place::new();
        let error = pull(&there.store, &there.config(), &wish(&proxy), &Silent).unwrap_err();
        let layer = made.manifest.layers[0].digest;
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(&layer.to_string()), "{error}");
        assert!(there.names("content/blobs/sha256").is_empty());
        assert!(there.names("layers").is_empty() && there.names("ingest").is_empty());
    }
    // Manifest and configuration, too.
    for what in ["/manifests/", &made.id.to_string()] {
        let what = what.to_owned();
        let proxy = Proxy::start(registry.port, move |head, _| {
            if head.starts_with("get") && head.contains(&what) { Action::Spoil(30) } else { Action::Forward }
        });
        let there = Place::new();
        let error = pull(&there.store, &there.config(), &wish(&proxy), &Silent).unwrap_err();
        assert!(matches!(error, Error::Registry(RegistryError::DigestMismatch { .. })), "{error}");
    }
}

#[test]
fn wrong_bytes_of_an_earlier_command_are_thrown_away() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    let proxy = Proxy::start(registry.port, |_, _| Action::Forward);
    let there = Place::new();
    std::fs::create_dir_all(there.path("ingest")).unwrap();
    let partial = there.path(&format!("ingest/sha256-{}", made.manifest.layers[0].digest.hex()));
    std::fs::write(&partial, vec![7; 100_000]).unwrap();
    assert_eq!(pull(&there.store, &there.config(), &wish(&proxy), &Silent).unwrap().image.id, made.id);
    assert!(there.names("ingest").is_empty());
}

#[test]
fn two_pulls_at_once_share_their_work() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, made) = filled();
    let proxy = Proxy::start(registry.port, |_, _| Action::Forward);
    let there = Place::new();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| pull(&there.store, &there.config(), &wish(&proxy), &Silent)))
            .collect();
        for pulled in pulls {
            assert_eq!(pulled.join().unwrap().unwrap().image.id, made.id);
        }
    });
    let downloads = proxy.heads().iter().filter(|head| is_layer(head, &made)).count();
    assert_eq!(downloads, 1);
    assert!(there.names("ingest").is_empty());
}
