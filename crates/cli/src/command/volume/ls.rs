//! `volume ls`.

use std::collections::{BTreeMap, BTreeSet};

use cata_engine::record::MountKind;
use clap::Args;
use serde_json::Value;

use crate::options::list::ListOptions;
use crate::parse::boolean;
use crate::parse::filter::{Filters, label_matches};
use crate::render::listing::{self, Kind, Row};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    headings: &[("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT")],
};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    list: ListOptions,
}

impl Verb for List {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.list.filter, &["dangling", "driver", "label", "name"])?;
        let engine = session.engine()?;
        // Containers are looked at only when it matters whether a volume is used.
        let mut used = BTreeSet::new();
        if !filters.values("dangling").is_empty() {
            for view in engine.views()? {
                for mount in view.record.mounts {
                    if let MountKind::Volume { name, .. } = mount.kind {
                        used.insert(name);
                    }
                }
            }
        }
        let rows: Vec<Row> = engine
            .volume_list()?
            .iter()
            .filter(|volume| {
                filters.any("name", |name| volume.name.as_str().contains(name))
                    && filters.any("driver", |driver| driver == "local")
                    && filters.all("label", |label| label_matches(&volume.labels, label))
                    && filters
                        .any("dangling", |text| boolean::parse(text) == Ok(!used.contains(&volume.name)))
            })
            .map(|volume| cells(&engine.volume_document(volume)))
            .collect();
        listing::print(&KIND, &rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(Exit::OK)
    }
}

fn cells(document: &Value) -> Row {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let labels = document.get("Labels").and_then(Value::as_object).into_iter().flatten();
    let labels: BTreeMap<String, String> =
        labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
    let joined = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let cells = [
        ("Driver", text("Driver")),
        ("Name", text("Name")),
        ("Mountpoint", text("Mountpoint")),
        ("Scope", text("Scope")),
        ("Labels", joined),
    ];
    cells.into_iter().collect::<Row>().with_labels(labels)
}
