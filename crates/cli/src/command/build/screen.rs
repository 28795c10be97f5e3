//! A build's progress: a live view on a terminal, lines elsewhere, JSON for programs.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use cata_engine::build::{BuildEvent, BuildProgress, BuildRequest, Built};

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::render::error::Failure;
use crate::render::size;
use crate::session;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Auto,
    Plain,
    Tty,
    Quiet,
    RawJson,
}

impl Progress {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "tty" => Ok(Self::Tty),
            "quiet" | "none" => Ok(Self::Quiet),
            "rawjson" => Ok(Self::RawJson),
            _ => Err("expected auto, plain, tty, quiet or rawjson".to_owned()),
        }
    }
}

/// Lines of output below a running step.
const TAIL: usize = 6;
/// Lines kept of a step, for the case that it fails.
const KEPT: usize = 40;
/// Between two paintings.
const FRAME: Duration = Duration::from_millis(100);

/// The sink of a build's events.
pub(crate) struct Screen {
    mode: Progress,
    shared: Arc<Mutex<State>>,
    painter: Mutex<Option<JoinHandle<()>>>,
    /// The signal that came, 0: none.
    interrupted: Arc<AtomicUsize>,
    /// Whether one came: the next one ends us.
    again: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<usize, Step>,
    /// Lines above the moving part, not yet written.
    settled: Vec<Settled>,
    painted: usize,
    ended: bool,
    /// Somebody has pressed Ctrl-C.
    stopping: bool,
    longest: Option<(Duration, String)>,
}

/// What does not move any more.
enum Settled {
    Step {
        mark: &'static str,
        title: String,
        end: String,
    },
    /// Of a step that failed: all of it.
    Output(String),
}

struct Step {
    title: String,
    begun: Instant,
    /// RFC 3339.
    started: String,
    lines: VecDeque<String>,
    /// A title is only said when there is something to say of the step.
    said: bool,
    failed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Screen {
    pub(super) fn new(mode: Progress, quiet: bool) -> Self {
        let mode = match mode {
            _ if quiet => Progress::Quiet,
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Tty,
            Progress::Auto => Progress::Plain,
            other => other,
        };
        let shared = Arc::new(Mutex::new(State::default()));
        let interrupted: Arc<AtomicUsize> = Arc::default();
        let painter = (mode == Progress::Tty).then(|| {
            let (shared, interrupted) = (Arc::clone(&shared), Arc::clone(&interrupted));
            std::thread::spawn(move || {
                loop {
                    {
                        let mut state = lock(&shared);
                        state.stopping = interrupted.load(Ordering::Relaxed) != 0;
                        paint(&mut state);
                        if state.ended {
                            return;
                        }
                    }
                    std::thread::sleep(FRAME);
                }
            })
        });
        Self { mode, shared, painter: Mutex::new(painter), interrupted, again: Arc::default() }
    }

    /// From now on the first signal that would end us ends the build, so that nothing half-made stays; the second ends us.
    /// What our caller had us ignore (`nohup`, a script's `&`) stays ignored.
    pub(super) fn watch_signals(&self) -> Result<(), Failure> {
        let ignored = ignored_signals();
        for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0)
        {
            let number = usize::try_from(signal).unwrap_or_default();
            let (first, again) = (Arc::clone(&self.interrupted), Arc::clone(&self.again));
            // In this order: who ends us looks before the mark is made.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))
                .and_then(|_| flag::register(signal, again))
                .and_then(|_| flag::register_usize(signal, first, number))
                .map_err(|e| Failure::io("watch signals", &e))?;
        }
        Ok(())
    }

    /// The signal that ended the build.
    pub(super) fn interrupted(&self) -> Option<u8> {
        u8::try_from(self.interrupted.load(Ordering::Relaxed)).ok().filter(|signal| *signal > 0)
    }

    /// Nothing moves any more. Returns the last lines of what failed.
    pub(super) fn finish(&self) -> Vec<String> {
        lock(&self.shared).ended = true;
        if let Some(painter) = lock(&self.painter).take() {
            // A painter that panicked has nothing more to paint.
            let _ = painter.join();
        }
        let state = lock(&self.shared);
        state.steps.values().filter(|step| step.failed).flat_map(|step| step.lines.iter().cloned()).collect()
    }

    /// One paragraph at the end.
    pub(super) fn summary(&self, built: &Built, request: &BuildRequest) {
        if matches!(self.mode, Progress::Quiet | Progress::RawJson) {
            return;
        }
        for warning in &built.warnings {
            session::note(format!("WARNING: {warning}"));
        }
        let names: Vec<String> = request.tags.iter().map(cata_spec::Reference::familiar).collect();
        let mut text = String::new();
        if let Some(image) = &built.image {
            let hex = image.id.hex();
            let (id, size) = (&hex[..12], size::decimal(image.size));
            match names.as_slice() {
                [] => text.push_str(&format!("built {id} ({size}) ")),
                names => text.push_str(&format!("built {} ({id}, {size}) ", names.join(", "))),
            }
        } else {
            text.push_str("built ");
        }
        text.push_str(&format!(
            "in {}: {} of {} steps cached",
            seconds(built.took),
            built.cached,
            built.steps
        ));
        if let Some((took, title)) =
            lock(&self.shared).longest.as_ref().filter(|(t, _)| *t > Duration::from_millis(200))
        {
            text.push_str(&longest(title, &seconds(*took), text.chars().count()));
        }
        session::note(text);
    }
}

/// PURE: what took longest, as the end of a line of 80 columns that has `before`; with few left a line of its own.
fn longest(title: &str, took: &str, before: usize) -> String {
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = |room: usize| {
        if title.chars().count() <= room {
            return title.clone();
        }
        title.chars().take(room.saturating_sub(1)).chain(['…']).collect()
    };
    let around = "; longest:  ()".len() + took.len();
    match 80_usize.saturating_sub(before + around) {
        room if room >= 20 || room >= title.chars().count() => format!("; longest: {} ({took})", cut(room)),
        _ => format!("\nlongest: {} ({took})", cut(80 + 2 - around)),
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1}s", took.as_secs_f64())
}

impl BuildProgress for Screen {
    fn event(&self, event: BuildEvent<'_>) {
        let mut state = lock(&self.shared);
        match self.mode {
            Progress::RawJson => raw(&state, &event),
            Progress::Plain => plain(&state, &event),
            _ => {}
        }
        state.take(event, self.mode == Progress::Tty);
    }

    fn is_unwanted(&self) -> bool {
        self.interrupted().is_some()
    }
}

impl State {
    fn take(&mut self, event: BuildEvent<'_>, live: bool) {
        match event {
            BuildEvent::Begin { step, title } => {
                let fresh = Step {
                    title,
                    begun: Instant::now(),
                    started: cata_engine::images::timestamp(SystemTime::now()),
                    lines: VecDeque::new(),
                    said: false,
                    failed: false,
                };
                self.steps.insert(step, fresh);
            }
            BuildEvent::Line { step, text } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    if step.lines.len() == KEPT {
                        step.lines.pop_front();
                    }
                    step.lines.push_back(harmless(text));
                    step.said = true;
                }
            }
            BuildEvent::Pull { step, event } => {
                if let Some(step) = self.steps.get_mut(&step)
                    && let Some(text) = pull_text(&event)
                {
                    step.lines.push_back(text);
                }
            }
            BuildEvent::End { step: number, cached, took, error, cancelled } => {
                let Some(step) = self.steps.get_mut(&number) else { return };
                let title = step.title.clone();
                let (mark, end) = match (&error, cached) {
                    (Some(_), _) if cancelled => ("–", "cancelled".to_owned()),
                    (Some(_), _) => ("✗", seconds(took)),
                    (None, true) => ("✓", "cached".to_owned()),
                    (None, false) => ("✓", seconds(took)),
                };
                if live {
                    self.settled.push(Settled::Step { mark, title: title.clone(), end });
                    if error.is_some() && !cancelled {
                        self.settled.extend(step.lines.iter().cloned().map(Settled::Output));
                    }
                }
                if error.is_some() && !cancelled {
                    step.failed = true;
                } else {
                    self.steps.remove(&number);
                }
                if !cached && self.longest.as_ref().is_none_or(|(longest, _)| took > *longest) {
                    self.longest = Some((took, title));
                }
            }
        }
    }
}

/// Signals that this process ignores, a bit for each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// What a program wrote, without what would move the cursor.
fn harmless(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let last = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    let mut clean = String::with_capacity(last.len());
    let mut characters = last.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // A sequence ends with a letter.
                if characters.next() == Some('[') {
                    let _ = characters.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            '\t' => clean.push_str("    "),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

fn pull_text(event: &cata_engine::images::Event) -> Option<String> {
    use cata_engine::images::Event;
    match event {
        Event::Absent { reference } => Some(format!("pulling {}", reference.familiar())),
        Event::Resolved { reference, registry, .. } => {
            Some(format!("{} from {registry}", reference.familiar()))
        }
        Event::Retrying { reason, .. } => Some(format!("trying again: {reason}")),
        _ => None,
    }
}

/// BuildKit's lines.
fn plain(state: &State, event: &BuildEvent<'_>) {
    let since = |step: &usize| state.steps.get(step).map_or(0.0, |s| s.begun.elapsed().as_secs_f64());
    match event {
        BuildEvent::Begin { step, title } => session::note(format!("#{step} {title}")),
        BuildEvent::Line { step, text } => {
            session::note(format!("#{step} {:.3} {}", since(step), String::from_utf8_lossy(text)));
        }
        BuildEvent::Pull { step, event } => {
            if let Some(text) = pull_text(event) {
                session::note(format!("#{step} {text}"));
            }
        }
        BuildEvent::End { step, cancelled: true, .. } => session::note(format!("#{step} CANCELED")),
        BuildEvent::End { step, cached, took, error, .. } => match (error, cached) {
            (Some(error), _) => session::note(format!("#{step} ERROR: {error}")),
            (None, true) => session::note(format!("#{step} CACHED")),
            (None, false) => session::note(format!("#{step} DONE {}", seconds(*took))),
        },
    }
}

/// BuildKit's `SolveStatus`, one document a line: programs that read its `rawjson` read this.
fn raw(state: &State, event: &BuildEvent<'_>) {
    if let Some(document) = status(state, event, &cata_engine::images::timestamp(SystemTime::now())) {
        session::note(document.to_string());
    }
}

fn status(state: &State, event: &BuildEvent<'_>, now: &str) -> Option<serde_json::Value> {
    // What a vertex is called by; BuildKit's are digests of what is solved, which nobody looks into.
    let digest = |step: usize| format!("sha256:{step:064x}");
    let vertex = |step: usize, name: &str, started: &str| serde_json::json!({ "digest": digest(step), "name": name, "started": started });
    match event {
        BuildEvent::Begin { step, title } => {
            Some(serde_json::json!({ "vertexes": [vertex(*step, title, now)] }))
        }
        BuildEvent::Line { step, text } => {
            let mut line = text.to_vec();
            line.push(b'\n');
            let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, line);
            let log =
                serde_json::json!({ "vertex": digest(*step), "stream": 1, "data": data, "timestamp": now });
            Some(serde_json::json!({ "logs": [log] }))
        }
        BuildEvent::Pull { step, event } => {
            let text = pull_text(event)?;
            let status = serde_json::json!({
                "id": text, "vertex": digest(*step), "current": 0, "timestamp": now, "started": now,
            });
            Some(serde_json::json!({ "statuses": [status] }))
        }
        BuildEvent::End { step, cached, error, .. } => {
            let begun = state.steps.get(step)?;
            let mut vertex = vertex(*step, &begun.title, &begun.started);
            vertex["completed"] = serde_json::json!(now);
            if *cached {
                vertex["cached"] = serde_json::json!(true);
            }
            if let Some(error) = error {
                vertex["error"] = serde_json::json!(error);
            }
            Some(serde_json::json!({ "vertexes": [vertex] }))
        }
    }
}

/// So many characters of a text.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(columns.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

/// A title with its time, behind a mark: a line that does not wrap, for what wraps cannot be painted over.
fn beside(title: &str, time: &str, columns: usize) -> String {
    let around = "● ".chars().count() + "  ".len() + time.chars().count() + 1;
    format!("{}  {time}", cut(title, columns.saturating_sub(around).max(1)))
}

/// Paints the moving part anew, with what has settled above it.
fn paint(state: &mut State) {
    let (rows, columns) = crate::terminal::window()
        .map_or((24, 80), |(rows, columns)| (usize::from(rows), usize::from(columns)));
    let mut out = String::new();
    if state.painted > 0 {
        out.push_str(&format!("\x1b[{}A\r\x1b[J", state.painted));
    }
    for settled in state.settled.drain(..) {
        out.push_str(&match settled {
            Settled::Step { mark, title, end } => format!("{mark} {}", beside(&title, &end, columns)),
            Settled::Output(line) => format!("    {line}"),
        });
        out.push('\n');
    }
    let mut moving = Vec::new();
    if !state.ended {
        let running: Vec<&Step> = state.steps.values().filter(|step| !step.failed).collect();
        // Each step has its title before any has more of its output.
        let tail = (rows.saturating_sub(2) / running.len().max(1)).saturating_sub(1).min(TAIL);
        for step in running {
            let time = seconds(step.begun.elapsed());
            moving.push(format!("\x1b[36m●\x1b[0m {}", beside(&step.title, &time, columns)));
            if step.said {
                let skip = step.lines.len().saturating_sub(tail);
                let lines = step.lines.iter().skip(skip).map(|line| cut(line, columns.saturating_sub(5)));
                moving.extend(lines.map(|line| format!("\x1b[2m    {line}\x1b[0m")));
            }
        }
    }
    // A moving part taller than the screen could not be painted over.
    moving.truncate(rows.saturating_sub(2 + usize::from(state.stopping)).max(1));
    if state.stopping && !state.ended {
        moving.push(cut("stopping; Ctrl-C once more ends it at once", columns.saturating_sub(1)));
    }
    state.painted = moving.len();
    for line in moving {
        out.push_str(&line);
        out.push('\n');
    }
    if !out.is_empty() {
        let mut stderr = std::io::stderr().lock();
        // A terminal that is gone needs no picture.
        let _ = stderr.write_all(out.as_bytes()).and_then(|()| stderr.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_fits_into_80_columns() {
        assert_eq!(longest("[1/2]  RUN  true", "2.1s", 40), "; longest: [1/2] RUN true (2.1s)");
        for before in [0, 30, 50, 70, 120] {
            let text = longest(&"x".repeat(100), "2.1s", before);
            let columns = |text: &str| text.chars().count();
            let line = text.strip_prefix('\n').map_or_else(|| before + columns(&text), columns);
            assert!(line <= 80 && text.contains('…'), "{before}: {text}");
        }
    }

    #[test]
    fn output_of_programs_moves_nothing() {
        assert_eq!(harmless(b"10%\r20%\r100%\r"), "100%");
        assert_eq!(harmless(b"\x1b[31mred\x1b[0m\x07\tx"), "red    x");
    }

    #[test]
    fn titles_keep_their_time_and_never_wrap() {
        assert_eq!(beside("[1/2] RUN x", "1.0s", 80), "[1/2] RUN x  1.0s");
        let long = beside(&"é".repeat(200), "123.4s", 80);
        assert!(long.ends_with("…  123.4s"), "{long}");
        assert_eq!("● ".chars().count() + long.chars().count(), 79);
        assert_eq!(beside("title", "1.0s", 3), "…  1.0s");
    }

    #[test]
    fn raw_documents_are_buildkits() {
        let mut state = State::default();
        let begin = || BuildEvent::Begin { step: 3, title: "[1/2] RUN x".to_owned() };
        let begun = status(&state, &begin(), "now").unwrap();
        let digest = begun["vertexes"][0]["digest"].clone();
        assert_eq!(digest.as_str().map(str::len), Some("sha256:".len() + 64));
        assert!(begun["vertexes"][0]["completed"].is_null());
        state.take(begin(), false);
        let line = status(&state, &BuildEvent::Line { step: 3, text: b"hi" }, "now").unwrap();
        assert_eq!((&line["logs"][0]["vertex"], line["logs"][0]["data"].as_str()), (&digest, Some("aGkK")));
        let end = BuildEvent::End {
            step: 3,
            cached: true,
            took: Duration::ZERO,
            error: Some("no".to_owned()),
            cancelled: false,
        };
        let end = &status(&state, &end, "then").unwrap()["vertexes"][0];
        assert_eq!(
            (&end["name"], &end["completed"]),
            (&serde_json::json!("[1/2] RUN x"), &serde_json::json!("then"))
        );
        assert_eq!((&end["cached"], &end["error"]), (&serde_json::json!(true), &serde_json::json!("no")));
    }
}
