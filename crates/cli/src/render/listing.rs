//! Listings: `ls` commands in all their formats, from rows of named cells.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::Failure;
use super::table;
use super::template::Format;
use crate::session;

/// One line of a listing: names as templates use them (`ID`, `Names`) with their texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    cells: Map<String, Value>,
    labels: Arc<BTreeMap<String, String>>,
}

impl Row {
    /// A row of a thing with these labels, for `{{.Label "key"}}`.
    pub(crate) fn with_labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = Arc::new(labels);
        self
    }

    /// With one more cell.
    pub(crate) fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.cells.insert(name.to_owned(), Value::String(text.into()));
        self
    }

    fn filled(&self, format: &Format) -> Result<String, Failure> {
        let labels = Arc::clone(&self.labels);
        let label = move |key: &str| labels.get(key).cloned().unwrap_or_default();
        format.fill_row(&Value::Object(self.cells.clone()), label)
    }
}

impl<'a> FromIterator<(&'a str, String)> for Row {
    fn from_iter<I: IntoIterator<Item = (&'a str, String)>>(cells: I) -> Self {
        // Docker's JSON has them sorted.
        let sorted: BTreeMap<&str, String> = cells.into_iter().collect();
        let cells = sorted.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        Self { cells, labels: Arc::default() }
    }
}

/// What kind of listing it is.
pub(crate) struct Kind {
    /// The template of the plain table.
    pub(crate) table: &'static str,
    /// The template of `-q`.
    pub(crate) quiet: &'static str,
    /// Heading of each column where it is not the name in capitals.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// Prints rows in the format asked for.
pub(crate) fn print(kind: &Kind, rows: &[Row], format: Option<&str>, quiet: bool) -> Result<(), Failure> {
    session::print(text(kind, rows, format, quiet)?)
}

/// Rows in the format asked for.
pub(crate) fn text(kind: &Kind, rows: &[Row], format: Option<&str>, quiet: bool) -> Result<String, Failure> {
    match format.unwrap_or_default() {
        // `-q` decides between table and ids; a template decides for itself, as Docker does.
        "" | "table" if quiet => lines(&Format::parse(kind.quiet)?, rows),
        "" | "table" => aligned(kind, kind.table, rows),
        "json" | "{{json .}}" => {
            let mut text = String::new();
            for row in rows {
                text.push_str(&Value::Object(row.cells.clone()).to_string());
                text.push('\n');
            }
            Ok(text)
        }
        "raw" => Err(Failure::flag("format 'raw' is not supported yet: use json or a template")),
        template => match template.strip_prefix("table") {
            Some(columns) if columns.starts_with(char::is_whitespace) || columns.starts_with("\\t") => {
                let columns = columns.trim_start();
                aligned(kind, columns.strip_prefix("\\t").unwrap_or(columns), rows)
            }
            _ => lines(&Format::parse(template)?, rows),
        },
    }
}

fn lines(format: &Format, rows: &[Row]) -> Result<String, Failure> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&row.filled(format)?);
        text.push('\n');
    }
    Ok(text)
}

/// The heading is the same template filled with the columns' headings.
fn aligned(kind: &Kind, template: &str, rows: &[Row]) -> Result<String, Failure> {
    let format = Format::parse(template)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let names: Vec<&String> = rows.first().map(|row| row.cells.keys().collect()).unwrap_or_default();
    let mut headings: Map<String, Value> =
        kind.headings.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
    for name in names {
        if !headings.contains_key(name) {
            headings.insert(name.clone(), Value::from(spaced(name)));
        }
    }
    // A heading that is not a text in the rows (a function wants a list) must not spoil the listing.
    lines.push(format.fill_row(&Value::Object(headings), label_heading).unwrap_or_default());
    for row in rows {
        lines.push(row.filled(&format)?);
    }
    Ok(table::docker(&lines))
}

/// A label's column is headed by the last part of its key, as Docker does.
fn label_heading(key: &str) -> String {
    key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ")
}

/// `CreatedAt` to `CREATED AT`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    let mut previous_lower = false;
    for character in name.chars() {
        if previous_lower && character.is_uppercase() {
            text.push(' ');
        }
        previous_lower = character.is_lowercase();
        text.extend(character.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Kind, Row, text};

    const KIND: Kind = Kind {
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("CreatedAt", "CREATED AT")],
    };

    fn rows() -> Vec<Row> {
        let row = |id: &str, name: &str, at: &str| {
            let cells = [("ID", id.to_owned()), ("Names", name.to_owned()), ("CreatedAt", at.to_owned())];
            let labels = BTreeMap::from([("org.my-team".to_owned(), format!("of {name}"))]);
            cells.into_iter().collect::<Row>().with_labels(labels)
        };
        vec![row("0123456789ab", "pg", "today"), row("ba9876543210", "a<b", "before")]
    }

    #[test]
    fn labels_have_a_column_of_their_own() {
        let format = Some("table {{.ID}}\t{{.Label \"org.my-team\"}}\t{{.Label \"none\"}}");
        insta::assert_snapshot!(text(&KIND, &rows(), format, false).unwrap(), @r"
        CONTAINER ID   my team   none
        0123456789ab   of pg     
        ba9876543210   of a<b    
        ");
    }

    #[test]
    fn every_format_of_a_listing() {
        let formats = [
            None,
            Some("table {{.Names}}\\t{{.CreatedAt}}"),
            Some("{{.ID}}: {{.Names}}"),
            Some("json"),
            Some("{{json .}}"),
            Some("{{.Nope}}"),
        ];
        let mut all = String::new();
        for format in formats {
            let shown = text(&KIND, &rows(), format, false).unwrap_or_else(|f| f.text(false));
            all.push_str(&format!("--format {format:?}\n{shown}"));
        }
        all.push_str(&format!("-q\n{}", text(&KIND, &rows(), None, true).unwrap()));
        all.push_str(&format!("no rows\n{}", text(&KIND, &[], None, false).unwrap()));
        insta::assert_snapshot!(all);
    }
}
