//! Images as docker and buildah build them: those builds that need no registry.

use cata_tests::builds::{self, Builder};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(images_are_those_of_docker_and_buildah)
            .images(&["busybox", "debian"])
            .needs(&["dockerd", "buildah", "crun", "dpkg-deb", "setfattr"]),
    ]
}

fn images_are_those_of_docker_and_buildah(w: &World) {
    let builders = Builder::all(w, &["busybox", "debian"]);
    let mut failures = String::new();
    for build in builds::ALL.iter().filter(|build| !build.online) {
        let outcome =
            builds::play(w, build, &builders, None).unwrap_or_else(|e| panic!("{}: {e:#}", build.name));
        for (peer, _, _, unexpected) in outcome.peers {
            for found in unexpected {
                failures.push_str(&format!("{} {peer} {found}\n", build.name));
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}
