//! `POST /containers/{id}/wait`. The answer's head goes out at once: clients start the container only when they have
//! it. What comes after that moment is read from the journal.

use cata_engine::journal::{Query, Subject};
use cata_engine::plan::events::EventFilter;
use cata_engine::status::StatusKind;
use cata_engine::{Stamp, Until};
use serde_json::{Value, json};

use std::os::fd::AsFd as _;

use crate::call::{Answer, Call};
use crate::refusal::{Outcome, Refusal};
use crate::shared::{Server, Shared};

/// Until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

pub(crate) fn wait(server: &Shared, call: &Call, id: &str) -> Outcome<Answer> {
    let condition = match call.word("condition").unwrap_or("not-running") {
        "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Refusal::invalid(format!("invalid condition: \"{other}\""))),
    };
    let since = Stamp::now().unix_nanos();
    let record = server.engine.find(id)?;
    let view = server.engine.present(&record)?;
    let rests =
        !matches!(view.status.status, StatusKind::Running | StatusKind::Paused | StatusKind::Restarting);
    let last = (!matches!(view.status.status, StatusKind::Created)).then_some(view.status.exit_code);
    let (server, id) = (Shared::clone(server), record.id.to_string());
    Answer::lines(move |output| {
        let answer = match condition {
            Condition::NotRunning if rests => Some(answer(last.unwrap_or(0), None)),
            Condition::NotRunning => match server.engine.wait(&id, Until::NotRunning) {
                Ok(exit) => Some(answer(exit.code, exit.error.as_deref())),
                Err(error) => Some(answer(-1, Some(&error.to_string()))),
            },
            Condition::NextExit | Condition::Removed => {
                follow(&server, &id, condition, (since, last.unwrap_or(0)), output)
            }
        };
        if let Some(answer) = answer {
            let _ = output.line(&answer);
        }
    })
}

fn answer(code: i32, error: Option<&str>) -> Value {
    match error {
        Some(text) if code < 0 => json!({ "StatusCode": code, "Error": { "Message": text } }),
        _ => json!({ "StatusCode": code }),
    }
}

/// `None`: nobody listens any more.
fn follow(
    server: &Server,
    id: &str,
    condition: Condition,
    (since, mut code): (i64, i32),
    output: &crate::call::Output,
) -> Option<Value> {
    let filter = [("container".to_owned(), vec![id.to_owned()])].into();
    let filter = EventFilter::new(filter).ok()?;
    let query = Query { since: Some(since), until: None, cancel: Some(output.gone.as_fd()) };
    let mut done = false;
    let followed = server.engine.events(&query, &filter, &mut |entry| {
        if entry.subject != Subject::Container || entry.id != id {
            return true;
        }
        if entry.action == "die" {
            code = entry.attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(code);
        }
        done = entry.action == if condition == Condition::NextExit { "die" } else { "destroy" }
            // Nothing comes after the end of everything.
            || entry.action == "destroy";
        !done
    });
    match followed {
        Ok(()) => done.then(|| answer(code, None)),
        Err(error) => Some(answer(-1, Some(&error.to_string()))),
    }
}
