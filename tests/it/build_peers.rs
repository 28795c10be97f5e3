//! Images as docker and buildah build them.

use std::fmt::Write as _;

use cata_tests::builds::{self, Builder, Outcome};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    const NEEDS: &[&str] = &["dockerd", "buildah", "crun", "dpkg-deb", "setfattr"];
    vec![
        test!(images_are_those_of_docker_and_buildah).images(&["busybox", "debian"]).needs(NEEDS),
        test!(images_of_packages_are_those_of_docker_and_buildah).images(&["debian"]).needs(NEEDS).online(),
    ]
}

fn images_are_those_of_docker_and_buildah(w: &World) {
    let builders = Builder::all(w, &["busybox", "debian"]);
    let mut failures = String::new();
    for build in builds::ALL.iter().filter(|build| !build.online) {
        let outcome = builds::play(w, build, &builders, None);
        failures += &unexpected(build.name, &outcome.unwrap_or_else(|e| panic!("{}: {e:#}", build.name)));
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Real ones, which fetch packages; what came out goes to the file that `CATA_REPORT` names, too.
fn images_of_packages_are_those_of_docker_and_buildah(w: &World) {
    let builders = Builder::all(w, &["debian"]);
    let machine = builds::describe(w).unwrap();
    let only = std::env::var("CATA_REGISTRIES").unwrap_or_default();
    let (mut failures, mut report) = (String::new(), String::new());
    for build in builds::ALL.iter().filter(|build| build.online && build.name.contains(&only)) {
        match builds::play(w, build, &builders, Some(&machine)) {
            Ok(outcome) => {
                failures += &unexpected(build.name, &outcome);
                report += &said(build.name, &outcome);
            }
            Err(error) => writeln!(failures, "{}: {error:#}", build.name).unwrap(),
        }
        if let Some(path) = std::env::var_os("CATA_REPORT") {
            std::fs::write(path, format!("{report}\n{failures}")).unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn unexpected(name: &str, outcome: &Outcome) -> String {
    let lines = outcome.peers.iter().flat_map(|(peer, _, _, unexpected)| {
        unexpected.iter().map(move |found| format!("{name} {peer} {found}\n"))
    });
    lines.collect()
}

/// What was compared, and what differs for a reason.
fn said(name: &str, outcome: &Outcome) -> String {
    let mut text = format!("{name}: {} files, {} layers\n", outcome.files, outcome.layers);
    for (peer, layers, expected, unexpected) in &outcome.peers {
        writeln!(text, "  {peer}: {layers} layers, {} differences without a reason", unexpected.len())
            .unwrap();
        let mut reasons: Vec<&str> = expected.iter().map(|(_, reason)| *reason).collect();
        reasons.sort_unstable();
        for reason in reasons.chunk_by(|a, b| a == b) {
            writeln!(text, "    {} × {}", reason.len(), reason[0]).unwrap();
        }
    }
    text
}
