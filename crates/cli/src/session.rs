//! What holds for the whole invocation: where the engine is, and the standard streams.

use std::cell::OnceCell;
use std::io::{self, Write as _};
use std::path::PathBuf;

use cata_engine::{Engine, Paths};

use crate::command::compose::ProjectOptions;
use crate::render::error::Failure;

/// The global flags.
#[derive(Debug, Default, Clone)]
pub(crate) struct Globals {
    /// `--root`.
    pub(crate) root: Option<PathBuf>,
    /// `--state`.
    pub(crate) state: Option<PathBuf>,
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
}

/// One invocation.
pub(crate) struct Session {
    globals: Globals,
    engine: OnceCell<Engine>,
    project: OnceCell<ProjectOptions>,
}

impl Session {
    /// A session that opens the engine when it is first asked for.
    pub(crate) fn new(globals: Globals) -> Self {
        Self { globals, engine: OnceCell::new(), project: OnceCell::new() }
    }

    /// The flags between `compose` and its command.
    pub(crate) fn project(&self) -> &ProjectOptions {
        self.project.get_or_init(ProjectOptions::default)
    }

    /// Keeps those flags.
    pub(crate) fn keep_project(&self, options: ProjectOptions) {
        // There is one command in a line.
        let _ = self.project.set(options);
    }

    /// The engine.
    pub(crate) fn engine(&self) -> Result<&Engine, Failure> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        // The usual file may be missing; one that was asked for may not.
        if let Some(path) = &self.globals.config {
            std::fs::metadata(path).map_err(|e| Failure::io(format!("open {}", path.display()), &e))?;
        }
        if let Some(text) = crate::rootless::refusal() {
            return Err(cata_engine::Error::Denied(text).into());
        }
        let engine = Engine::open(self.paths())?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Says what was left out of what was printed.
    pub(crate) fn tell_damage(&self) {
        for damage in self.engine.get().map(Engine::damage).unwrap_or_default() {
            note(format!("WARNING: left out: {damage}"));
        }
    }

    /// The global flags as words, for a command line that means the same engine.
    pub(crate) fn given(&self) -> Vec<String> {
        let globals = [
            ("--root", &self.globals.root),
            ("--state", &self.globals.state),
            ("--config", &self.globals.config),
        ];
        let set = globals.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
        set.flat_map(|(flag, path)| [flag.to_owned(), path.to_string_lossy().into_owned()]).collect()
    }

    /// Where the engine is.
    pub(crate) fn paths(&self) -> Paths {
        // Where there are none is told when the engine is opened.
        crate::rootless::paths(&self.globals).unwrap_or_default()
    }
}

/// Writes text to standard output.
pub(crate) fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    print_bytes(text.as_ref().as_bytes())
}

/// Writes a line to standard output.
pub(crate) fn print_line(text: impl AsRef<str>) -> Result<(), Failure> {
    let text = text.as_ref();
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    print_bytes(line.as_bytes())
}

/// Writes bytes to standard output at once; a reader that has gone away ends the command quietly.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).map_err(Failure::output)
}

/// Writes a line to standard error; nobody can be told if that fails.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}
