//! `system df`: what takes up the disk.

use cata_engine::Stamp;
use cata_engine::container::inspect::status_word;
use cata_engine::disk::DiskUsage;
use cata_engine::status::{Status, StatusKind};
use clap::Args;

use crate::render::error::Failure;
use crate::render::listing::{self, Kind, Row};
use crate::render::{size, table, time};
use crate::row::container::status_text;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print each image, container, volume and step of builds
    #[arg(short, long)]
    verbose: bool,
}

impl Verb for Df {
    fn call(self, session: &Session) -> Outcome {
        if self.verbose && self.format.is_some() {
            return Err(Failure::usage("--format and --verbose exclude each other"));
        }
        let usage = session.engine()?.disk_usage()?;
        if self.verbose {
            session::print(verbose(&usage, time::now()))?;
        } else {
            listing::print(&KIND, &summary(&usage), self.format.as_deref(), false)?;
        }
        Ok(Exit::OK)
    }
}

/// PURE: the four lines.
fn summary(usage: &DiskUsage) -> Vec<Row> {
    let active_images = usage.images.iter().filter(|image| image.containers > 0).count();
    let written = |alive: Option<bool>| {
        let of = usage.containers.iter().filter(|one| alive.is_none_or(|alive| one.alive == alive));
        of.map(|one| one.written).sum::<u64>()
    };
    let volumes = |used: Option<bool>| {
        let of = usage.volumes.iter().filter(|one| used.is_none_or(|used| (one.containers > 0) == used));
        of.map(|one| one.size).sum::<u64>()
    };
    let cache = |free_only: bool| {
        let of = usage.build_cache.iter().filter(|one| !(free_only && one.shared));
        of.map(|one| one.size).sum::<u64>()
    };
    let row = |kind: &str, total: usize, active: usize, size: u64, free: u64| {
        let cells = [
            ("Type", kind.to_owned()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", size::decimal(size)),
            ("Reclaimable", reclaimable(free, size)),
        ];
        cells.into_iter().collect::<Row>()
    };
    let (containers, volume_count) = (usage.containers.len(), usage.volumes.len());
    let alive = usage.containers.iter().filter(|one| one.alive).count();
    let mounted = usage.volumes.iter().filter(|one| one.containers > 0).count();
    vec![
        row("Images", usage.images.len(), active_images, usage.layers, usage.layers_unused),
        row("Containers", containers, alive, written(None), written(Some(false))),
        row("Local Volumes", volume_count, mounted, volumes(None), volumes(Some(false))),
        row("Build Cache", usage.build_cache.len(), 0, cache(false), cache(true)),
    ]
}

/// `12.3MB (45%)`.
fn reclaimable(free: u64, of: u64) -> String {
    let percent = (u128::from(free) * 100).checked_div(u128::from(of));
    match percent {
        Some(percent) => format!("{} ({percent}%)", size::decimal(free)),
        None => size::decimal(free),
    }
}

/// PURE: everything by itself.
fn verbose(usage: &DiskUsage, now: u64) -> String {
    let ago = |then: u64| time::ago(then, now);
    let mut text = String::from("Images space usage:\n\n");
    let mut lines =
        vec!["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS".to_owned()];
    for one in &usage.images {
        let facts = crate::row::image::from_image(&one.image);
        let none = || "<none>".to_owned();
        for name in &facts.names {
            lines.push(
                [
                    name.repository.clone().unwrap_or_else(none),
                    name.tag.clone().unwrap_or_else(none),
                    one.image.id.short(),
                    facts.created.map_or_else(|| "N/A".to_owned(), ago),
                    size::decimal(one.image.size),
                    size::decimal(one.shared),
                    size::decimal(one.image.size.saturating_sub(one.shared)),
                    one.containers.to_string(),
                ]
                .join("\t"),
            );
        }
    }
    text.push_str(&table::docker(&lines));
    text.push_str("\nContainers space usage:\n\n");
    let mut lines =
        vec!["CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES".to_owned()];
    for one in &usage.containers {
        let command: String = one.record.config.argv.join(" ").chars().take(20).collect();
        lines.push(
            [
                one.record.id.short().to_owned(),
                one.record.image.reference.clone(),
                format!("\"{command}\"").replace(['\t', '\n'], " "),
                one.record.mounts.len().to_string(),
                size::decimal(one.written),
                ago(one.record.created),
                state(&one.status, now),
                one.record.name.to_string(),
            ]
            .join("\t"),
        );
    }
    text.push_str(&table::docker(&lines));
    text.push_str("\nLocal Volumes space usage:\n\n");
    let mut lines = vec!["VOLUME NAME\tLINKS\tSIZE".to_owned()];
    for one in &usage.volumes {
        lines.push(format!("{}\t{}\t{}", one.volume.name, one.containers, size::decimal(one.size)));
    }
    text.push_str(&table::docker(&lines));
    text.push_str("\nBuild cache usage:\n\n");
    let mut lines = vec!["CACHE ID\tCACHE TYPE\tSIZE\tSHARED\tDESCRIPTION".to_owned()];
    for one in &usage.build_cache {
        let description: String = one.description.chars().take(60).collect();
        let description = description.replace(['\t', '\n'], " ");
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{description}",
            one.id,
            one.kind,
            size::decimal(one.size),
            one.shared
        ));
    }
    text.push_str(&table::docker(&lines));
    text
}

/// As `ps` has it.
fn state(status: &Status, now: u64) -> String {
    let nanos = |stamp: Option<Stamp>| stamp.and_then(|stamp| u64::try_from(stamp.unix_nanos()).ok());
    let health = status.health.as_ref().filter(|_| status.status == StatusKind::Running);
    let facts =
        (status_word(status.status), status.exit_code, status.oom_killed, health.map(|health| health.status));
    status_text(facts, (nanos(status.started_at), nanos(status.finished_at)), now)
}

#[cfg(test)]
mod tests {
    use super::reclaimable;

    #[test]
    fn shares_of_nothing_have_no_percent() {
        assert_eq!(reclaimable(0, 0), "0B");
        assert_eq!(reclaimable(5_000_000, 20_000_000), "5MB (25%)");
        assert_eq!(reclaimable(7, 7), "7B (100%)");
    }
}
