//! Where errors and warnings go: standard error, and the log that the caller reads.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::clock;

/// The log that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// `--log`.
    pub(crate) path: Option<PathBuf>,
    /// `--log-format json`.
    pub(crate) json: bool,
    /// `--debug`.
    pub(crate) debug: bool,
}

impl Log {
    /// The command failed.
    pub(crate) fn error(&self, text: &str) {
        self.write("error", text);
        // runc says it on standard error too, and some callers read only that.
        let _ = writeln!(std::io::stderr(), "error: {text}");
    }

    /// Something asked for is not in force.
    pub(crate) fn warning(&self, text: &str) {
        if !self.write("warning", text) {
            let _ = writeln!(std::io::stderr(), "cata-runtime: warning: {text}");
        }
    }

    /// For whoever looks for a fault.
    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.write("debug", text);
        }
    }

    /// `false`: there is no log.
    fn write(&self, level: &str, text: &str) -> bool {
        let Some(path) = &self.path else { return false };
        let time = clock::now();
        let line = if self.json {
            format!("{}\n", serde_json::json!({"level": level, "msg": text, "time": time}))
        } else {
            format!("time=\"{time}\" level={level} msg={}\n", serde_json::Value::from(text))
        };
        // One write: others append to the same file.
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        file.is_ok_and(|mut file| file.write_all(line.as_bytes()).is_ok())
    }
}
