//! `--check` and `--call`: what there is in a Dockerfile, as text or as BuildKit's documents.

use base64::Engine as _;
use cata_engine::build::{Asked, BuildRequest, Outline};
use serde_json::{Map, Value, json};

use super::options::{Call, Look};
use crate::render::error::Failure;
use crate::render::table;
use crate::session;
use crate::tree::{Exit, Outcome};

/// Looks and prints.
pub(super) fn look(request: &BuildRequest, look: Look) -> Outcome {
    let outline = cata_engine::build::outline(request)?;
    if look.json {
        let document = match look.call {
            Call::Check | Call::Build => checked(&outline, request),
            Call::Targets => targets(&outline, request),
            Call::Outline => outlined(&outline, request),
        };
        session::print_line(format!("{document:#}"))?;
    } else {
        match look.call {
            Call::Check | Call::Build => print_warnings(&outline, request)?,
            Call::Targets => print_targets(&outline)?,
            Call::Outline => print_outline(&outline)?,
        }
    }
    // As Docker: `--check` exists for scripts.
    let failed = matches!(look.call, Call::Check | Call::Build) && !outline.warnings.is_empty();
    Ok(if failed { Exit(1) } else { Exit::OK })
}

fn print_warnings(outline: &Outline, request: &BuildRequest) -> Result<(), Failure> {
    if outline.warnings.is_empty() {
        return session::print_line("Check complete, no warnings found.");
    }
    let count = outline.warnings.len();
    let noun = if count == 1 { "warning has" } else { "warnings have" };
    session::print_line(format!("Check complete, {count} {noun} been found!"))?;
    let file = &request.dockerfile;
    for warning in &outline.warnings {
        session::print(format!("\n{}", warning.text(&file.name, &file.text)))?;
    }
    Ok(())
}

fn print_targets(outline: &Outline) -> Result<(), Failure> {
    let title = |at: usize| {
        let mark = if at == outline.target { " (default)" } else { "" };
        format!("{}{mark}", outline.stages[at].title)
    };
    let rows = (0..outline.stages.len())
        .map(|at| [title(at), outline.stages[at].description.clone().unwrap_or_default()]);
    table(["TARGET", "DESCRIPTION"], &rows.collect::<Vec<_>>())
}

fn print_outline(outline: &Outline) -> Result<(), Failure> {
    if let Some(stage) = outline.stages.get(outline.target) {
        session::print_line(format!("TARGET:      {}", stage.title))?;
        if let Some(description) = &stage.description {
            session::print_line(format!("DESCRIPTION: {description}"))?;
        }
    }
    if !outline.args.is_empty() {
        session::print_line("")?;
        let row = |arg: &cata_engine::build::OutlineArg| {
            [
                arg.name.clone(),
                arg.value.clone().unwrap_or_default(),
                arg.description.clone().unwrap_or_default(),
            ]
        };
        table(["BUILD ARG", "VALUE", "DESCRIPTION"], &outline.args.iter().map(row).collect::<Vec<_>>())?;
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !list.is_empty() {
            session::print_line("")?;
            let row = |asked: &Asked| [asked.id.clone(), if asked.required { "true" } else { "" }.to_owned()];
            table([title, "REQUIRED"], &list.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    if !outline.caches.is_empty() {
        session::print_line("")?;
        let rows: Vec<[String; 1]> = outline.caches.iter().map(|cache| [cache.id.clone()]).collect();
        table(["CACHE MOUNT"], &rows)?;
    }
    Ok(())
}

fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    let mut lines = vec![head.join("\t")];
    lines.extend(rows.iter().map(|row| row.join("\t")));
    table::docker(&lines).lines().try_for_each(|line| session::print_line(line.trim_end()))
}

/// Only what is there.
fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let some = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(some.collect::<Map<_, _>>())
}

fn location(line: usize) -> Option<Value> {
    let at = json!({ "line": line });
    (line > 0).then(|| json!({ "ranges": [{ "start": at, "end": at }] }))
}

fn data(request: &BuildRequest) -> String {
    base64::engine::general_purpose::STANDARD.encode(&request.dockerfile.text)
}

fn checked(outline: &Outline, request: &BuildRequest) -> Value {
    let warnings = outline.warnings.iter().map(|warning| {
        object([
            ("ruleName", Some(json!(format!("{:?}", warning.rule)))),
            ("description", Some(json!(warning.rule.description()))),
            ("detail", Some(json!(warning.message))),
            ("location", location(warning.line)),
        ])
    });
    json!({
        "warnings": warnings.collect::<Vec<_>>(),
        "sources": [{ "filename": request.dockerfile.name, "language": "Dockerfile", "data": data(request) }],
    })
}

fn targets(outline: &Outline, request: &BuildRequest) -> Value {
    let list = outline.stages.iter().enumerate().map(|(at, stage)| {
        object([
            ("name", stage.name.as_ref().map(|name| json!(name))),
            ("default", (at == outline.target).then_some(json!(true))),
            ("description", stage.description.as_ref().map(|text| json!(text))),
            ("base", Some(json!(stage.base))),
            ("platform", stage.platform.as_ref().map(|platform| json!(platform))),
            ("location", location(stage.line)),
        ])
    });
    json!({ "targets": list.collect::<Vec<_>>(), "sources": [data(request)] })
}

fn outlined(outline: &Outline, request: &BuildRequest) -> Value {
    let stage = outline.stages.get(outline.target);
    let args = outline.args.iter().map(|arg| {
        object([
            ("name", Some(json!(arg.name))),
            ("description", arg.description.as_ref().map(|text| json!(text))),
            ("value", arg.value.as_ref().map(|value| json!(value))),
            ("location", location(arg.line)),
        ])
    });
    let asked = |list: &[Asked], name: &'static str| {
        let list = list.iter().map(|asked| {
            object([
                (name, Some(json!(asked.id))),
                ("required", asked.required.then_some(json!(true))),
                ("location", location(asked.line)),
            ])
        });
        some(list.collect())
    };
    object([
        ("name", stage.and_then(|stage| stage.name.as_ref()).map(|name| json!(name))),
        ("description", stage.and_then(|stage| stage.description.as_ref()).map(|text| json!(text))),
        ("args", some(args.collect())),
        ("secrets", asked(&outline.secrets, "name")),
        ("ssh", asked(&outline.agents, "name")),
        ("cache", asked(&outline.caches, "ID")),
        ("sources", Some(json!([data(request)]))),
    ])
}

fn some(list: Vec<Value>) -> Option<Value> {
    (!list.is_empty()).then_some(Value::Array(list))
}
