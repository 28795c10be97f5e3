//! `network ls`, from the same documents that `network inspect` shows.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use crate::options::list::ListOptions;
use crate::parse::filter::{Filters, label_matches};
use crate::render::listing::{self, Kind, Row};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
    ],
};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    list: ListOptions,
}

impl Verb for List {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.list.filter, &["driver", "id", "label", "name", "scope", "type"])?;
        let engine = session.engine()?;
        let mut rows = Vec::new();
        for network in engine.network_list()? {
            let document = engine.network_inspect(network.name.as_str())?;
            if matches(&document, &filters) {
                rows.push(cells(&document, !self.list.no_trunc));
            }
        }
        listing::print(&KIND, &rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(Exit::OK)
    }
}

fn text<'a>(document: &'a Value, key: &str) -> &'a str {
    document.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn labels(document: &Value) -> BTreeMap<String, String> {
    let entries = document.get("Labels").and_then(Value::as_object).into_iter().flatten();
    entries.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn matches(document: &Value, filters: &Filters) -> bool {
    let builtin = matches!(text(document, "Name"), "bridge" | "host" | "none");
    filters.any("id", |id| text(document, "Id").starts_with(id))
        && filters.any("name", |name| text(document, "Name").contains(name))
        && filters.any("driver", |driver| text(document, "Driver") == driver)
        && filters.any("scope", |scope| text(document, "Scope") == scope)
        && filters.any("type", |kind| if builtin { kind == "builtin" } else { kind == "custom" })
        && filters.all("label", |label| label_matches(&labels(document), label))
}

fn cells(document: &Value, truncate: bool) -> Row {
    let id = text(document, "Id");
    let id = if truncate { id.get(..12).unwrap_or(id) } else { id };
    let flag = |key: &str| document.get(key).and_then(Value::as_bool).unwrap_or_default().to_string();
    let labels = labels(document);
    let joined = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let cells = [
        ("ID", id.to_owned()),
        ("Name", text(document, "Name").to_owned()),
        ("Driver", text(document, "Driver").to_owned()),
        ("Scope", text(document, "Scope").to_owned()),
        ("IPv6", flag("EnableIPv6")),
        ("Internal", flag("Internal")),
        ("Labels", joined),
        ("CreatedAt", text(document, "Created").to_owned()),
    ];
    cells.into_iter().collect::<Row>().with_labels(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{KIND, cells, matches};
    use crate::parse::filter::Filters;
    use crate::render::listing;

    #[test]
    fn networks_are_listed_and_filtered() {
        let documents = [
            json!({"Id": "a".repeat(64), "Name": "bridge", "Driver": "bridge", "Scope": "local", "Labels": {}}),
            json!({"Id": "b".repeat(64), "Name": "app", "Driver": "bridge", "Scope": "local", "Labels": {"x": "1"}}),
        ];
        let rows: Vec<_> = documents.iter().map(|d| cells(d, true)).collect();
        insta::assert_snapshot!(listing::text(&KIND, &rows, None, false).unwrap(), @r"
        NETWORK ID     NAME      DRIVER    SCOPE
        aaaaaaaaaaaa   bridge    bridge    local
        bbbbbbbbbbbb   app       bridge    local
        ");
        let count = |filter: &str| {
            let filters = Filters::parse(&[filter.to_owned()], &["name", "label", "type", "id"]).unwrap();
            documents.iter().filter(|d| matches(d, &filters)).count()
        };
        assert_eq!((count("type=custom"), count("label=x=1"), count("name=b"), count("id=bb")), (1, 1, 1, 1));
    }
}
