//! Those who build: `cata`, Debian's docker (its BuildKit) and buildah, each with a store of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Run;
use crate::daemon::Daemon;
use crate::world::World;

/// One build.
const PATIENCE: Duration = Duration::from_secs(1500);

const SOCKET: &str = "/run/builds-docker.sock";

/// Who builds.
#[derive(Debug)]
pub enum Builder {
    /// The engine under test.
    Cata,
    /// Debian's docker with the BuildKit in its daemon.
    Docker(Daemon),
    /// Its store.
    Buildah(PathBuf),
}

impl Builder {
    /// As the table of differences calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cata => "cata",
            Self::Docker(_) => "docker",
            Self::Buildah(_) => "buildah",
        }
    }

    /// All of them, with the same base images, which `cata` has.
    ///
    /// # Panics
    /// When one of them cannot be had.
    #[must_use]
    pub fn all(world: &World, images: &[&str]) -> Vec<Self> {
        let socket = format!("unix://{SOCKET}");
        let run = Run::new("dockerd")
            .args(["--host", &socket, "--exec-root", "/run/builds-docker"])
            .args(["--pidfile", "/run/builds-docker.pid", "--bridge=none", "--iptables=false"])
            .args(["--ip-forward=false", "--ip-masq=false", "--data-root"])
            .arg(world.scratch().join("docker"));
        let daemon = Daemon::start(run, SOCKET, &["containerd-shim", "containerd"]);
        let all = vec![Self::Cata, Self::Docker(daemon), Self::Buildah(world.scratch().join("buildah"))];
        for image in images {
            let archive = world.scratch().join(format!("{image}.tar"));
            let _ = world.cata_run(["save", "-o"]).arg(&archive).arg(image).patience(PATIENCE).done().ok();
            std::thread::scope(|scope| {
                for builder in &all {
                    scope.spawn(|| builder.load(&archive));
                }
            });
            fs::remove_file(&archive).expect("a file of ours");
        }
        all
    }

    fn load(&self, archive: &Path) {
        let run = match self {
            Self::Cata => return,
            Self::Docker(_) => docker().args(["load", "-q", "-i"]).arg(archive),
            Self::Buildah(root) => {
                buildah(root).args(["pull", "-q"]).arg(format!("docker-archive:{}", archive.display()))
            }
        };
        let _ = run.patience(PATIENCE).done().ok();
    }

    /// Builds a context as `result`, with this network.
    #[must_use]
    pub fn build(&self, world: &World, context: &Path, network: &str) -> String {
        let words = ["build", "--network", network, "-t", "result"];
        let run = match self {
            Self::Cata => world.cata_run(words).args(["--progress", "plain"]),
            Self::Docker(_) => docker().args(words).args(["--progress", "plain"]).env("DOCKER_BUILDKIT", "1"),
            // Its own format has no health checks and shells.
            Self::Buildah(root) => {
                buildah(root).args(words).args(["--format", "docker", "--layers", "--isolation", "oci"])
            }
        };
        let done = run.arg(context).patience(PATIENCE).done().ok();
        done.stdout + &done.stderr
    }

    /// Writes `result` as `docker save` does.
    pub fn save(&self, world: &World, to: &Path) {
        let run = match self {
            Self::Cata => world.cata_run(["save", "-o"]).arg(to).arg("result"),
            Self::Docker(_) => docker().args(["save", "-o"]).arg(to).arg("result"),
            Self::Buildah(root) => buildah(root)
                .args(["push", "-q", "result"])
                .arg(format!("docker-archive:{}:result:latest", to.display())),
        };
        let _ = run.patience(PATIENCE).done().ok();
    }
}

/// Debian's client: a newer one elsewhere in the path would want a plugin for BuildKit.
fn docker() -> Run {
    Run::new("/usr/bin/docker").args(["--host", &format!("unix://{SOCKET}")])
}

fn buildah(root: &Path) -> Run {
    let run = Run::new("buildah").arg("--root").arg(root);
    run.args(["--runroot", "/run/builds-buildah", "--storage-driver", "overlay"])
}
