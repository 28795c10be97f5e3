//! Images in `images`: a line for each name, and the filters.

use std::collections::BTreeMap;

use cata_engine::images::Image;
use cata_spec::Reference;
use jiff::tz::TimeZone;

use crate::parse::filter::{Filters, label_matches};
use crate::parse::{self, ParseError, Parsed, boolean};
use crate::render::listing::{Kind, Row};
use crate::render::{size, time};

/// How `images` looks.
pub(crate) const KIND: Kind = Kind {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

/// How `images --digests` looks.
pub(crate) const KIND_WITH_DIGESTS: Kind = Kind {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

const HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

/// The names `--filter` knows.
pub(crate) const FILTERS: [&str; 5] = ["before", "dangling", "label", "reference", "since"];

/// What is known of one image, free of the engine's types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// `sha256:…`.
    pub(crate) id: String,
    /// Repository, tag and digest of each name; one line each.
    pub(crate) names: Vec<Line>,
    /// Nanoseconds since the epoch.
    pub(crate) created: Option<u64>,
    pub(crate) size: u64,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Line {
    pub(crate) repository: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

/// The engine's image as facts.
pub(crate) fn from_image(image: &Image) -> Facts {
    let digest_of = |name: &Reference| {
        let known = image.repo_digests.iter().find(|r| r.name() == name.name());
        known.and_then(Reference::digest).map(|d| d.to_string())
    };
    let mut names: Vec<Line> = image
        .names
        .iter()
        .map(|name| Line {
            repository: Some(name.familiar_name()),
            tag: name.tag().map(str::to_owned),
            digest: digest_of(name),
        })
        .collect();
    if names.is_empty() {
        let digest = image.repo_digests.first();
        names.push(Line {
            repository: digest.map(Reference::familiar_name),
            tag: None,
            digest: digest.and_then(Reference::digest).map(|d| d.to_string()),
        });
    }
    Facts {
        id: image.id.to_string(),
        names,
        created: image.created().and_then(|text| parse::time::parse(text, 0, &TimeZone::UTC).ok()),
        size: image.size,
        labels: image.config.config.labels.clone(),
    }
}

/// Which lines are shown.
pub(crate) struct Selection<'a> {
    pub(crate) filters: &'a Filters,
    /// `images postgres[:15]`.
    pub(crate) repository: Option<&'a str>,
}

/// Keeps what `images` shows.
pub(crate) fn select(mut images: Vec<Facts>, selection: &Selection<'_>) -> Parsed<Vec<Facts>> {
    let filters = selection.filters;
    let before = moment(&images, filters, "before")?;
    let since = moment(&images, filters, "since")?;
    let dangling = match filters.values("dangling").first() {
        Some(text) => Some(
            boolean::parse(text).map_err(|_| ParseError::new(format!("invalid filter 'dangling={text}'")))?,
        ),
        None => None,
    };
    images.retain(|image| {
        before.is_none_or(|b| image.created < Some(b))
            && since.is_none_or(|s| image.created > Some(s))
            && dangling.is_none_or(|wanted| wanted == image.names.iter().all(|line| line.tag.is_none()))
            && filters.all("label", |label| label_matches(&image.labels, label))
    });
    for image in &mut images {
        image.names.retain(|line| {
            filters.any("reference", |pattern| fits(line, pattern))
                && selection.repository.is_none_or(|pattern| fits(line, pattern))
        });
    }
    images.retain(|image| !image.names.is_empty());
    Ok(images)
}

/// Whether a name fits `repository[:tag]`, `*` standing for anything but a slash.
fn fits(line: &Line, pattern: &str) -> bool {
    let Some(repository) = &line.repository else { return false };
    let colon = pattern.rfind(':').filter(|at| !pattern.get(at + 1..).unwrap_or_default().contains('/'));
    let (name, tag) = match colon {
        Some(at) => (pattern.get(..at).unwrap_or_default(), pattern.get(at + 1..)),
        None => (pattern, None),
    };
    let tag_fits = tag.is_none_or(|tag| line.tag.as_deref().is_some_and(|have| glob(tag, have)));
    // `images postgres` means docker.io/library/postgres too.
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    tag_fits && glob(name, repository)
}

/// `*` and `?`, which stop at slashes.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            for end in ends {
                if text.get(..end).is_some_and(|skipped| skipped.contains('/')) {
                    return false;
                }
                if glob(rest, text.get(end..).unwrap_or_default()) {
                    return true;
                }
            }
            false
        }
        Some(wanted) => {
            let mut characters = text.chars();
            let same = characters.next().is_some_and(|c| if wanted == '?' { c != '/' } else { c == wanted });
            same && glob(pattern.as_str(), characters.as_str())
        }
    }
}

fn moment(images: &[Facts], filters: &Filters, filter: &str) -> Parsed<Option<u64>> {
    let Some(text) = filters.values(filter).first() else { return Ok(None) };
    let id = |image: &Facts| image.id.strip_prefix("sha256:").unwrap_or(&image.id).to_owned();
    let tagged = if text.contains(':') { text.clone() } else { format!("{text}:latest") };
    let found = images.iter().find(|image| {
        image.names.iter().any(|line| fits(line, &tagged))
            || (text.len() >= 4 && id(image).starts_with(text.as_str()))
    });
    match found {
        Some(image) => Ok(image.created),
        None => Err(ParseError::new(format!("No such image: {text}"))),
    }
}

/// The cells of each line of one image.
pub(crate) fn cells(image: &Facts, now: u64, zone: &TimeZone, truncate: bool) -> Vec<Row> {
    let bare = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    let id = if truncate { bare.get(..12).unwrap_or(bare) } else { &image.id };
    let none = || "<none>".to_owned();
    let since = image.created.map_or_else(|| "N/A".to_owned(), |then| time::ago(then, now));
    let at = image.created.map_or_else(|| "N/A".to_owned(), |then| time::long(then, zone));
    image
        .names
        .iter()
        .map(|line| {
            let cells = [
                ("Repository", line.repository.clone().unwrap_or_else(none)),
                ("Tag", line.tag.clone().unwrap_or_else(none)),
                ("Digest", line.digest.clone().unwrap_or_else(none)),
                ("ID", id.to_owned()),
                ("CreatedSince", since.clone()),
                ("CreatedAt", at.clone()),
                ("Size", size::decimal(image.size)),
                ("Containers", "N/A".to_owned()),
                ("SharedSize", "N/A".to_owned()),
                ("UniqueSize", "N/A".to_owned()),
                ("VirtualSize", size::decimal(image.size)),
            ];
            cells.into_iter().collect::<Row>().with_labels(image.labels.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::tz::TimeZone;

    use super::{FILTERS, Facts, KIND, KIND_WITH_DIGESTS, Line, Selection, cells, glob, select};
    use crate::parse::filter::Filters;
    use crate::render::listing;

    const DAY: u64 = 86_400_000_000_000;
    const NOW: u64 = 20_000 * DAY;

    fn images() -> Vec<Facts> {
        let line = |repository: &str, tag: &str| Line {
            repository: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            digest: Some(format!("sha256:{}", "d".repeat(64))),
        };
        let image = |letter: &str, names: Vec<Line>, days: u64| Facts {
            id: format!("sha256:{}", letter.repeat(64)),
            names,
            created: Some(NOW - days * DAY),
            size: 258_600_000,
            labels: BTreeMap::from([("maker".to_owned(), letter.to_owned())]),
        };
        vec![
            image("a", vec![line("postgres", "15"), line("localhost:5000/team/postgres", "latest")], 3),
            image("b", vec![line("busybox", "latest")], 10),
            image("c", vec![Line::default()], 100),
        ]
    }

    fn shown(filters: &[&str], repository: Option<&str>) -> String {
        let typed: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        let result = Filters::parse(&typed, &FILTERS)
            .and_then(|filters| select(images(), &Selection { filters: &filters, repository }));
        match result {
            Ok(images) => {
                let rows: Vec<_> = images.iter().flat_map(|i| cells(i, NOW, &TimeZone::UTC, true)).collect();
                listing::text(&KIND, &rows, Some("{{.Repository}}:{{.Tag}}"), false)
                    .unwrap()
                    .replace('\n', " ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn table_is_dockers() {
        let rows: Vec<_> = images().iter().flat_map(|i| cells(i, NOW, &TimeZone::UTC, true)).collect();
        insta::assert_snapshot!(listing::text(&KIND, &rows, None, false).unwrap());
        insta::assert_snapshot!(listing::text(&KIND_WITH_DIGESTS, &rows, None, false).unwrap());
        assert_eq!(listing::text(&KIND, &rows, None, true).unwrap().lines().count(), 4);
    }

    #[test]
    fn filters_select() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&[], Some("postgres")),
            (&[], Some("postgres:14")),
            (&[], Some("localhost:5000/team/postgres")),
            (&["reference=*:latest"], None),
            (&["reference=localhost:5000/*/post*"], None),
            (&["dangling=true"], None),
            (&["dangling=false"], None),
            (&["label=maker=b"], None),
            (&["before=busybox"], None),
            (&["since=busybox"], None),
            (&["since=nothing"], None),
            (&["dangling=perhaps"], None),
        ];
        let lines: Vec<String> =
            cases.iter().map(|(f, r)| format!("{f:?} {r:?} => {}", shown(f, *r))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn glob_stops_at_slashes() {
        assert!(glob("b*x", "busybox"));
        assert!(glob("*", "a"));
        assert!(glob("?b", "ab"));
        assert!(!glob("*", "a/b"));
        assert!(!glob("busy", "busybox"));
    }
}
