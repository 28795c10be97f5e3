//! How long each phase of a start took, for `run --timing`.

use std::time::{Duration, Instant};

/// A stopwatch that names what it measured.
#[derive(Debug)]
pub struct Timing {
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
}

impl Default for Timing {
    fn default() -> Self {
        Self { last: Instant::now(), phases: Vec::with_capacity(12) }
    }
}

impl Timing {
    /// Ends the current phase under `name` and starts the next.
    pub fn mark(&mut self, name: &'static str) {
        let now = Instant::now();
        self.phases.push((name, now - self.last));
        self.last = now;
    }

    /// Ends the current phase, the end of which somebody else has measured: `parts` are phases of their own, what
    /// went before them is `name`.
    pub fn mark_before(&mut self, name: &'static str, parts: &[(&'static str, Duration)]) {
        let now = Instant::now();
        let known: Duration = parts.iter().map(|(_, took)| *took).sum();
        self.phases.push((name, (now - self.last).saturating_sub(known)));
        self.phases.extend_from_slice(parts);
        self.last = now;
    }

    /// The phases so far, in order.
    #[must_use]
    pub fn phases(&self) -> &[(&'static str, Duration)] {
        &self.phases
    }
}
