//! `--timing`: how long each step took.

use std::cell::RefCell;
use std::time::Instant;

/// Moments since the start, if they are wanted.
#[derive(Debug)]
pub(crate) struct Timing(Option<RefCell<(Instant, Vec<(&'static str, Instant)>)>>);

impl Timing {
    /// From this moment on, if it is asked for.
    pub(crate) fn new(begin: Option<Instant>) -> Self {
        Self(begin.map(|begin| RefCell::new((begin, Vec::new()))))
    }

    /// The step of this name has just ended.
    pub(crate) fn done(&self, step: &'static str) {
        if let Some(moments) = &self.0 {
            moments.borrow_mut().1.push((step, Instant::now()));
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        use std::io::Write as _;
        let Some(moments) = &self.0 else { return };
        let (start, steps) = &*moments.borrow();
        let mut last = *start;
        let mut text = String::new();
        for (step, moment) in steps {
            text.push_str(&format!("{:>9.3} ms  {step}\n", (*moment - last).as_secs_f64() * 1e3));
            last = *moment;
        }
        text.push_str(&format!("{:>9.3} ms  altogether\n", (last - *start).as_secs_f64() * 1e3));
        // Nothing depends on it.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
