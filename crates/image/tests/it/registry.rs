//! Pull and push against a real registry.

use cata_image::{Error, Event, PullRequest, RegistryError, Silent, pull, push};
use cata_spec::Platform;

use crate::fixture::{Place, Recorder, Registry, name, ready, run, whole};
use crate::proxy::{Action, Proxy};

fn request(text: &str) -> PullRequest {
    PullRequest { reference: name(text), platform: None }
}

#[test]
fn what_is_pushed_is_pulled() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let made = here.image("made", &[("etc/motd", "hello"), ("bin/sh", "#!")], 300_000);
    let full = registry.name("a/b:1");
    here.store.tag("made", &name(&full)).unwrap();
    let pushed = push(&here.store, &here.config(), &whole(&full), &Silent).unwrap();

    let seen = Recorder::default();
    let pulled = pull(&there.store, &there.config(), &request(&full), &seen).unwrap();
    assert_eq!((pulled.digest, pulled.image.id, pulled.changed), (pushed.digest, made.id, true));
    assert_eq!(pulled.image.config, made.config);
    assert_eq!(pulled.image.size, made.size);
    let layers = there.store.layer_paths(&pulled.image).unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("etc/motd")).unwrap(), "hello");
    assert_eq!(seen.count(|e| matches!(e, Event::Done { .. })), 1);
    assert!(seen.count(|e| matches!(e, Event::Downloaded { .. })) >= 1);
    assert!(there.names("ingest").is_empty());

    let again = pull(&there.store, &there.config(), &request(&full), &Silent).unwrap();
    assert!(!again.changed);
    let by_digest = format!("{}@{}", registry.name("a/b"), pushed.digest);
    assert_eq!(there.store.resolve(&by_digest).unwrap().id, made.id);

    let said = run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{full}")]);
    assert!(said.contains(&pushed.digest.to_string()));
    // The store is an image layout that others read as it is.
    let layout = format!("oci:{}:{full}", there.path("content").display());
    assert!(run("skopeo", &["inspect", "--config", &layout]).contains("A=b"));
}

#[test]
fn blobs_that_are_there_are_not_sent_again() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here) = (Registry::start(), Place::new());
    let first = registry.name("first:1");
    here.image(&first, &[("x", "y")], 50_000);
    let pushed = |text: &str| {
        let seen = Recorder::default();
        push(&here.store, &here.config(), &whole(text), &seen).unwrap();
        let count = |wanted: fn(&Event) -> bool| seen.count(wanted);
        (
            count(|e| matches!(e, Event::Done { .. })),
            count(|e| matches!(e, Event::Exists { .. })),
            count(|e| matches!(e, Event::Mounted { .. })),
        )
    };
    assert_eq!(pushed(&first), (2, 0, 0));
    assert_eq!(pushed(&first), (0, 2, 0));
    let second = registry.name("second:1");
    here.store.tag(&first, &name(&second)).unwrap();
    assert_eq!(pushed(&second), (0, 0, 2));
}

#[test]
fn dockers_own_media_types_are_pulled() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let made = here.image("made", &[("x", "y")], 10_000);
    let archive = here.dir.path().join("a.tar");
    let mut file = std::fs::File::create(&archive).unwrap();
    cata_image::save(&here.store, &["made".to_owned()], &mut file).unwrap();
    let (from, to) = (format!("oci-archive:{}", archive.display()), registry.name("v2s2:1"));
    let target = format!("docker://{to}");
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", "--format", "v2s2", &from, &target]);
    let pulled = pull(&there.store, &there.config(), &request(&to), &Silent).unwrap();
    assert_eq!(
        pulled.image.manifest.media_type.as_deref(),
        Some(cata_spec::image::media_type::DOCKER_MANIFEST)
    );
    assert_eq!(pulled.image.diff_ids(), made.diff_ids());
}

#[test]
fn zstd_layers_are_pulled() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let packed = zstd::encode_all(&crate::fixture::tar(&[("z", "std")], 100_000)[..], 3).unwrap();
    let to = registry.name("zstd:1");
    let import = cata_image::ImportRequest { reference: Some(name(&to)), ..Default::default() };
    let made = cata_image::import(&here.store, &mut packed.as_slice(), &import).unwrap();
    assert_eq!(made.manifest.layers[0].media_type, cata_spec::image::media_type::OCI_LAYER_ZSTD);
    push(&here.store, &here.config(), &whole(&to), &Silent).unwrap();
    let pulled = pull(&there.store, &there.config(), &request(&to), &Silent).unwrap();
    let layers = there.store.layer_paths(&pulled.image).unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("z")).unwrap(), "std");
}

#[test]
fn an_index_gives_the_image_for_the_platform() {
    if !ready(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, here) = (Registry::start(), Place::new());
    let mut entries = Vec::new();
    for platform in ["linux/amd64", "linux/arm64", "linux/s390x"] {
        let request = cata_image::ImportRequest {
            platform: Some(Platform::parse(platform).unwrap()),
            ..Default::default()
        };
        let tar = crate::fixture::tar(&[("arch", platform)], 0);
        let image = cata_image::import(&here.store, &mut tar.as_slice(), &request).unwrap();
        let size = here
            .path(&format!("content/blobs/sha256/{}", image.manifest_digest.hex()))
            .metadata()
            .unwrap()
            .len();
        let (os, architecture) = platform.split_once('/').unwrap();
        entries.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{size},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
            image.manifest_digest
        ));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
        entries.join(",")
    );
    let sum = run("sh", &["-c", &format!("printf %s '{index}' | sha256sum")])[..64].to_owned();
    std::fs::write(here.path(&format!("content/blobs/sha256/{sum}")), &index).unwrap();
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:{sum}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"all"}}}}]}}"#,
        index.len()
    );
    std::fs::write(here.path("content/index.json"), top).unwrap();
    let to = registry.name("multi:1");
    let (from, target) = (format!("oci:{}:all", here.path("content").display()), format!("docker://{to}"));
    run("skopeo", &["copy", "-q", "--all", "--dest-tls-verify=false", &from, &target]);

    for platform in ["linux/arm64/v8", "linux/s390x"] {
        let there = Place::new();
        let wish = PullRequest { platform: Some(Platform::parse(platform).unwrap()), ..request(&to) };
        let pulled = pull(&there.store, &there.config(), &wish, &Silent).unwrap();
        assert_eq!(pulled.digest.hex(), sum);
        assert_eq!(pulled.image.platform(), Platform::parse(platform).unwrap());
    }
    let there = Place::new();
    let host = pull(&there.store, &there.config(), &request(&to), &Silent).unwrap();
    assert_eq!(host.image.platform(), Platform::host());
    let wish = PullRequest { platform: Some(Platform::parse("linux/riscv64").unwrap()), ..request(&to) };
    let error = pull(&there.store, &there.config(), &wish, &Silent).unwrap_err();
    assert!(matches!(error, Error::Registry(RegistryError::NoPlatform { .. })));
    assert!(error.to_string().contains("linux/amd64, linux/arm64, linux/s390x"), "{error}");
}

#[test]
fn a_mirror_serves_docker_io() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let local = registry.name("library/thing:1");
    let made = here.image(&local, &[("x", "y")], 0);
    push(&here.store, &here.config(), &whole(&local), &Silent).unwrap();
    let mut config = there.config();
    let mirrors = vec![format!("127.0.0.1:{}", registry.port)];
    config.set("docker.io", cata_image::registry::config::Registry { mirrors, ..Default::default() });
    let pulled = pull(&there.store, &config, &request("thing:1"), &Silent).unwrap();
    assert_eq!(pulled.image.id, made.id);
    assert_eq!(there.store.resolve("thing:1").unwrap().names[0].familiar(), "thing:1");
}

#[test]
fn what_is_not_there_is_said_in_dockers_words() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here) = (Registry::start(), Place::new());
    let error = pull(&here.store, &here.config(), &request(&registry.name("no/such")), &Silent).unwrap_err();
    let text = format!("manifest for {} not found: manifest unknown", registry.name("no/such:latest"));
    assert_eq!(error.to_string(), text);
    assert_eq!(error.kind(), cata_image::Kind::NotFound);
    let port = registry.port;
    drop(registry);
    let error =
        pull(&here.store, &here.config(), &request(&format!("127.0.0.1:{port}/x")), &Silent).unwrap_err();
    assert_eq!(error.kind(), cata_image::Kind::Unavailable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    let missing = whole("nothing");
    let error = push(&here.store, &here.config(), &missing, &Silent).unwrap_err();
    assert_eq!(error.to_string(), "No such image: nothing:latest");
}

#[test]
fn upload_that_is_too_large_for_one_request_goes_in_pieces() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    // As nginx does with its `client_max_body_size` of 1 MB.
    let proxy = Proxy::start(registry.port, |head, _| {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        match length.and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(length) if length > 1_000_000 => Action::Answer(
                "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    .to_owned(),
            ),
            _ => Action::Forward,
        }
    });
    let full = proxy.name("pieces:1");
    let made = here.image(&full, &[("x", "y")], 3_000_000);
    push(&here.store, &here.config(), &whole(&full), &Silent).unwrap();
    assert!(proxy.heads().iter().filter(|head| head.starts_with("patch ")).count() > 2);
    let wish = PullRequest { reference: name(&registry.name("pieces:1")), platform: None };
    assert_eq!(pull(&there.store, &there.config(), &wish, &Silent).unwrap().image.id, made.id);
}
