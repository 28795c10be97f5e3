//! Progress of transfers: bars on a terminal, a line per event elsewhere, nothing with `-q`.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use cata_engine::images::{Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::session;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// `pull` and `push`: the transfer is the command's own output.
    Stdout,
    /// `run`: standard output belongs to the container.
    Stderr,
    /// `-q`.
    Nowhere,
}

/// A sink for the image room's events.
pub(crate) struct Screen {
    to: To,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    by_layer: Mutex<HashMap<String, ProgressBar>>,
}

impl Screen {
    /// Bars if `to` is a terminal.
    pub(crate) fn new(to: To) -> Self {
        let (terminal, target) = match to {
            To::Stdout => (std::io::stdout().is_terminal(), ProgressDrawTarget::stdout()),
            To::Stderr => (std::io::stderr().is_terminal(), ProgressDrawTarget::stderr()),
            To::Nowhere => (false, ProgressDrawTarget::hidden()),
        };
        let bars = terminal.then(|| Bars {
            all: MultiProgress::with_draw_target(target),
            by_layer: Mutex::new(HashMap::new()),
        });
        Self { to, bars }
    }

    fn line(&self, text: &str) {
        match (&self.bars, self.to) {
            // A full screen or a closed pipe must not stop a transfer.
            (Some(bars), _) => {
                let _ = bars.all.println(text);
            }
            (None, To::Stdout) => {
                let _ = session::print_line(text);
            }
            (None, To::Stderr) => session::note(text),
            (None, To::Nowhere) => {}
        }
    }
}

/// The first twelve digits of a digest.
fn short(digest: &impl ToString) -> String {
    let text = digest.to_string();
    let hex = text.split(':').next_back().unwrap_or_default();
    hex.get(..12).unwrap_or(hex).to_owned()
}

impl Progress for Screen {
    fn event(&self, event: Event) {
        if self.to == To::Nowhere {
            return;
        }
        match &self.bars {
            Some(bars) => bars.event(&event, |text| self.line(text)),
            None => {
                if let Some(text) = plain(&event) {
                    self.line(&text);
                }
            }
        }
    }
}

/// The line of an event without a terminal; most have none.
fn plain(event: &Event) -> Option<String> {
    Some(match event {
        Event::Absent { reference } => format!("Unable to find image '{}' locally", reference.familiar()),
        Event::Resolved { reference, registry, .. } => {
            format!("{}: found on {registry}", reference.familiar())
        }
        Event::Layer { digest, .. } => format!("{}: Waiting", short(digest)),
        Event::Exists { digest } => format!("{}: Already exists", short(digest)),
        Event::Mounted { digest, from } => format!("{}: Mounted from {from}", short(digest)),
        Event::Retrying { digest, attempt, reason } => {
            format!("{}: Retrying (attempt {attempt}): {reason}", short(digest))
        }
        Event::Extracting { digest } => format!("{}: Download complete", short(digest)),
        Event::Done { digest } => format!("{}: Complete", short(digest)),
        Event::Downloaded { .. } | Event::Uploaded { .. } => return None,
    })
}

impl Bars {
    fn event(&self, event: &Event, line: impl Fn(&str)) {
        match event {
            Event::Absent { .. } | Event::Resolved { .. } => {
                if let Some(text) = plain(event) {
                    line(&text);
                }
            }
            Event::Layer { digest, total } => {
                self.bar(digest, "Waiting").set_length(*total);
            }
            Event::Downloaded { digest, bytes } => self.bar(digest, "Downloading").set_position(*bytes),
            Event::Uploaded { digest, bytes } => self.bar(digest, "Pushing").set_position(*bytes),
            Event::Extracting { digest } => {
                let bar = self.bar(digest, "Extracting");
                bar.set_position(bar.length().unwrap_or_default());
            }
            Event::Retrying { digest, attempt, reason } => {
                self.bar(digest, &format!("Retrying ({attempt}): {reason}")).tick();
            }
            Event::Exists { digest } => self.end(digest, "Already exists"),
            Event::Mounted { digest, from } => self.end(digest, &format!("Mounted from {from}")),
            Event::Done { digest } => self.end(digest, "Complete"),
        }
    }

    /// The bar of a layer, made when it is first heard of.
    fn bar(&self, digest: &impl ToString, doing: &str) -> ProgressBar {
        let mut bars = self.by_layer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bar = bars.entry(short(digest)).or_insert_with_key(|id| {
            let bar = self.all.add(ProgressBar::new(0));
            let style =
                ProgressStyle::with_template("{prefix}: {msg:14} [{bar:40}] {bytes:>10}/{total_bytes:10}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(id.clone());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        if bar.message() != doing {
            bar.set_message(doing.to_owned());
        }
        bar.clone()
    }

    fn end(&self, digest: &impl ToString, how: &str) {
        let bar = self.bar(digest, how);
        let style = ProgressStyle::with_template("{prefix}: {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.finish_with_message(how.to_owned());
    }
}
