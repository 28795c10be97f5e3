//! Listings: `ls` commands in all their formats, from rows of named cells.

use serde_json::{Map, Value};

use super::error::Failure;
use super::table;
use super::template::Format;
use crate::session;

/// One line of a listing: names as templates use them (`ID`, `Names`) with their texts.
pub(crate) type Row = Map<String, Value>;

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
                text.push_str(&Value::Object(row.clone()).to_string());
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
        text.push_str(&format.fill(&Value::Object(row.clone()))?);
        text.push('\n');
    }
    Ok(text)
}

/// The heading is the same template filled with the columns' headings.
fn aligned(kind: &Kind, template: &str, rows: &[Row]) -> Result<String, Failure> {
    let format = Format::parse(template)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let names: Vec<&String> = rows.first().map(|row| row.keys().collect()).unwrap_or_default();
    let mut headings: Row =
        kind.headings.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
    for name in names {
        if !headings.contains_key(name) {
            headings.insert(name.clone(), Value::from(spaced(name)));
        }
    }
    // A heading that is not a text in the rows (a function wants a list) must not spoil the listing.
    lines.push(format.fill(&Value::Object(headings)).unwrap_or_default());
    for row in rows {
        lines.push(format.fill(&Value::Object(row.clone()))?);
    }
    Ok(table::docker(&lines))
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
    use serde_json::json;

    use super::{Kind, Row, text};

    const KIND: Kind = Kind {
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("CreatedAt", "CREATED AT")],
    };

    fn rows() -> Vec<Row> {
        let rows = json!([
            {"ID": "0123456789ab", "Names": "pg", "CreatedAt": "today"},
            {"ID": "ba9876543210", "Names": "a<b", "CreatedAt": "before"},
        ]);
        serde_json::from_value(rows).unwrap()
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
