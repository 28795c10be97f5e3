//! `system prune`: containers, networks, images, builds' cache, and, when asked, volumes.

use cata_engine::build::{CacheFilter, Keep, PruneRequest};
use clap::Args;

use crate::command::prune::{PruneOptions, reclaimed, removed_images, section};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove images with a name and caches of RUN --mount=type=cache too
    #[arg(short, long)]
    all: bool,
    /// Remove anonymous volumes too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    prune: PruneOptions,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let (filter, _) = self.prune.read(&[])?;
        let mut what = vec!["every container that does not run", "every network that no container is on"];
        if self.volumes {
            what.push("every anonymous volume that no container uses");
        }
        what.push(match self.all {
            true => "every image that no container is made of, and all that builds keep",
            false => "every image without a name, and what builds keep",
        });
        let list: String = what.iter().map(|one| format!("  - {one}\n")).collect();
        self.prune.confirm("system prune", &format!("This removes:\n{list}"))?;
        let engine = session.engine()?;
        // In this order: what a container no longer needs goes in the same run.
        let containers = engine.container_prune(&filter)?;
        session::print(section("Deleted Containers", &containers.removed))?;
        let networks = engine.network_prune(&filter)?;
        session::print(section("Deleted Networks", &networks.removed))?;
        let mut freed = containers.freed;
        if self.volumes {
            let volumes = engine.volume_prune(false, &filter)?;
            session::print(section("Deleted Volumes", &volumes.removed))?;
            freed += volumes.freed;
        }
        let images = engine.image_prune(self.all, &filter)?;
        session::print(section("Deleted Images", &removed_images(&images.removed)))?;
        freed += images.freed;
        // Steps of builds have no labels; what was used lately stays when `until` says so.
        if filter.labels.is_empty() {
            let until = filter.until.map(|until| {
                std::time::Duration::from_nanos(crate::render::time::now().saturating_sub(until))
            });
            let request = PruneRequest {
                all: self.all,
                filter: CacheFilter { until, ..CacheFilter::default() },
                keep: Keep::default(),
            };
            match engine.build_prune(&request) {
                Ok(cache) => {
                    let ids: Vec<&str> = cache.entries.iter().map(|entry| entry.id.as_str()).collect();
                    session::print(section("Deleted build cache objects", &ids))?;
                    freed += cache.freed;
                }
                // All else has been done.
                Err(cata_engine::Error::State { what, .. }) => {
                    session::note(format!("WARNING: {what}: the build cache is kept"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        session::print_line(reclaimed(freed))?;
        Ok(Exit::OK)
    }
}
