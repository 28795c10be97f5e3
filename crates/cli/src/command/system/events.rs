//! `events`: what happens, or has happened, to containers, images, networks and volumes.

use std::collections::BTreeMap;

use cata_engine::event;
use cata_engine::journal::{Entry, Query};
use cata_engine::plan::events::{EventFilter, NAMES};
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::command::container::logs::leave_with_the_reader;
use crate::parse;
use crate::parse::filter::Filters;
use crate::render::error::Failure;
use crate::render::template::Format;
use crate::render::time;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Show only what fits (container=web, event=die, type=network …)
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Print with "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Begin with what has happened since (2006-01-02T15:04:05Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// End at this moment (as for --since)
    #[arg(long, value_name = "string")]
    until: Option<String>,
}

/// How an event is printed.
enum How {
    Line(TimeZone),
    Json,
    Template(Box<Format>),
}

impl Verb for Events {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.filter, &NAMES)?;
        let named = NAMES.iter().map(|name| ((*name).to_owned(), filters.values(name).to_vec()));
        let filter = EventFilter::new(named.filter(|(_, values)| !values.is_empty()).collect())?;
        let (now, zone) = (time::now(), TimeZone::system());
        let moment = |text: &Option<String>| -> Result<Option<i64>, Failure> {
            let Some(text) = text.as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
            Ok(Some(i64::try_from(parse::time::parse(text, now, &zone)?).unwrap_or(i64::MAX)))
        };
        let query = Query { since: moment(&self.since)?, until: moment(&self.until)?, cancel: None };
        let how = match self.format.as_deref().unwrap_or_default() {
            "" => How::Line(zone.clone()),
            "json" => How::Json,
            template => How::Template(Box::new(Format::parse(template)?)),
        };
        leave_with_the_reader();
        let mut failed = None;
        session.engine()?.events(&query, &filter, &mut |entry| {
            let printed = text(entry, &how).and_then(session::print_line);
            failed = printed.err();
            failed.is_none()
        })?;
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Exit::OK),
        }
    }
}

fn text(entry: &Entry, how: &How) -> Result<String, Failure> {
    match how {
        How::Line(zone) => Ok(line(entry, zone)),
        How::Json => Ok(event::document(entry).to_string()),
        How::Template(format) => format.fill(&fields(entry)),
    }
}

/// PURE: Docker's line.
fn line(entry: &Entry, zone: &TimeZone) -> String {
    let nanos = u64::try_from(entry.at).unwrap_or_default();
    let pairs: Vec<String> = entry.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pairs = if pairs.is_empty() { String::new() } else { format!(" ({})", pairs.join(", ")) };
    let id = if entry.id.is_empty() { String::new() } else { format!(" {}", entry.id) };
    format!("{} {} {}{id}{pairs}", time::zoned(nanos, zone), entry.subject.name(), entry.action)
}

/// What a template can name: Go's fields of Docker's message.
fn fields(entry: &Entry) -> serde_json::Value {
    let document = event::document(entry);
    let old = |key: &str| document.get(key).cloned().unwrap_or_else(|| json!(""));
    let attributes: &BTreeMap<String, String> = &entry.attributes;
    json!({
        "Status": old("status"),
        "ID": old("id"),
        "From": old("from"),
        "Type": entry.subject.name(),
        "Action": entry.action,
        "Actor": {"ID": entry.id, "Attributes": attributes},
        "Scope": "local",
        "Time": entry.at.div_euclid(1_000_000_000),
        "TimeNano": entry.at,
    })
}

#[cfg(test)]
mod tests {
    use cata_engine::journal::Subject;

    use super::*;

    #[test]
    fn lines_and_documents_are_dockers() {
        let entry = Entry {
            at: 1_700_000_000_123_456_789,
            subject: Subject::Container,
            action: "die".to_owned(),
            id: "abc".to_owned(),
            attributes: [("image", "busybox"), ("exitCode", "7")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        insta::assert_snapshot!(line(&entry, &TimeZone::UTC), @"2023-11-14T22:13:20.123456789Z container die abc (exitCode=7, image=busybox)");
        insta::assert_snapshot!(event::document(&entry), @r#"{"status":"die","id":"abc","from":"busybox","Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"7","image":"busybox"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}"#);
        let format = How::Template(Box::new(
            Format::parse("{{.Type}} {{.Actor.ID}} {{.Action}} {{.Actor.Attributes.exitCode}} {{.Time}}")
                .unwrap(),
        ));
        assert_eq!(text(&entry, &format).unwrap(), "container abc die 7 1700000000");
    }
}
