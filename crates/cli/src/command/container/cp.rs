//! `cp`: files between a container and the host, through a tar stream; `-` is that stream itself.

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cata_engine::Engine;
use cata_engine::images::tree::{self, Unpack, Unpacked};
use clap::Args;

use crate::render::error::Failure;
use crate::render::size;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep owners, setuid bits and device nodes
    #[arg(short, long)]
    archive: bool,
    /// Follow a link at the end of the source path
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Print nothing when all went well
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "SOURCE")]
    source: String,
    #[arg(required = true, value_name = "DESTINATION")]
    destination: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Container { name: &'a str, path: &'a str },
    Local(&'a str),
    Stream,
}

impl Verb for Cp {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let (said, copied) = match (end(&self.source), end(&self.destination)) {
            (End::Container { name, path }, End::Stream) => {
                let called = base(path).unwrap_or(".");
                engine
                    .copy_out(name, path, self.follow_link, called, &mut Output)
                    .map_err(Failure::streamed)?;
                return Ok(Exit::OK);
            }
            (End::Stream, End::Container { name, path }) => {
                let copied = engine.copy_in(name, path, self.archive, &mut io::stdin())?;
                (self.destination.as_str(), copied)
            }
            (End::Container { name, path }, End::Local(to)) => {
                (to, self.outward(engine, (name, path), Path::new(to))?)
            }
            (End::Local(from), End::Container { name, path }) => {
                (self.destination.as_str(), self.inward(engine, from, (name, path))?)
            }
            (End::Container { .. }, End::Container { .. }) => {
                return Err(Failure::usage("copying between containers is not supported"));
            }
            _ => return Err(Failure::usage("must specify at least one container source")),
        };
        if copied.left_out > 0 {
            session::note(format!(
                "WARNING: {} device nodes were left out; --archive brings them along",
                copied.left_out
            ));
        }
        if !self.quiet {
            session::note(format!("Successfully copied {} to {said}", size::decimal(copied.size)));
        }
        Ok(Exit::OK)
    }
}

impl Cp {
    fn outward(&self, engine: &Engine, (name, path): (&str, &str), to: &Path) -> Result<Unpacked, Failure> {
        let stat = engine.path_stat(name, path, self.follow_link)?;
        let source = Source {
            dir: stat
                .ok_or_else(|| {
                    Failure::client(format!("could not find the file {path} in container {name}"))
                })?
                .is_dir(),
            contents: is_contents(path),
            name: base(path),
        };
        let real = std::fs::canonicalize(to);
        let target = match real.as_deref().map(Path::is_dir) {
            Ok(true) => Target::Directory,
            Ok(false) => Target::File,
            Err(_) => Target::Nothing,
        };
        let to = real.unwrap_or_else(|_| to.to_owned());
        let (dir, called) = landing(&source, target, &to.to_string_lossy(), to.as_os_str().as_bytes())?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let place = rustix::fs::open(&dir, flags, rustix::fs::Mode::empty()).map_err(|e| {
            Failure::io(format!("invalid output path: directory {}", dir.display()), &e.into())
        })?;
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let how = Unpack {
            place,
            is_root: false,
            base: Vec::new(),
            owner: (!self.archive).then_some(owner),
            owners: tree::Owners::default(),
        };
        piped(
            |pipe| Ok(engine.copy_out(name, path, self.follow_link, &called, pipe).map(|_| ())?),
            |pipe| tree::unpack(pipe, how).map_err(|error| Failure::client(chain(&error))),
        )
    }

    fn inward(&self, engine: &Engine, from: &str, (name, path): (&str, &str)) -> Result<Unpacked, Failure> {
        let failed = |e: io::Error| Failure::io(from, &e);
        let follow = self.follow_link || is_contents(from) || from.ends_with('/');
        let real = if follow {
            std::fs::canonicalize(from).map_err(failed)?
        } else {
            let local = Path::new(from);
            let parent = match local.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                Some(parent) => parent,
                None => local,
            };
            let parent = std::fs::canonicalize(parent).map_err(failed)?;
            match local.file_name() {
                Some(name) => parent.join(name),
                None => std::fs::canonicalize(local).map_err(failed)?,
            }
        };
        let dir = std::fs::symlink_metadata(&real).map_err(failed)?.is_dir();
        let source = Source { dir, contents: is_contents(from), name: base(from) };
        let target = match engine.path_stat(name, path, true)? {
            Some(stat) if stat.is_dir() => Target::Directory,
            Some(_) => Target::File,
            None => Target::Nothing,
        };
        let (into, called) = landing(&source, target, path, path.as_bytes())?;
        let (parent, leaf) = match (real.parent(), real.file_name()) {
            (Some(parent), Some(leaf)) => (parent.to_owned(), leaf.to_owned()),
            _ => (real.clone(), ".".into()),
        };
        let parent = std::fs::File::open(parent).map_err(failed)?;
        piped(
            |pipe| match tree::write(
                parent.as_fd(),
                leaf.as_bytes(),
                called.as_bytes(),
                &tree::Owners::default(),
                pipe,
            ) {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::client(chain(&error))),
            },
            |pipe| Ok(engine.copy_in(name, &into.to_string_lossy(), self.archive, pipe)?),
        )
    }
}

/// Puts a file, a link or a tree of the host's at a path of a container; directories on the way are made.
pub(crate) fn put(engine: &Engine, from: &Path, container: &str, to: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::io(from.display().to_string(), &e);
    let (Some(parent), Some(leaf)) = (from.parent(), from.file_name()) else {
        return Err(Failure::client(format!("{} cannot be copied", from.display())));
    };
    let parent = std::fs::File::open(parent).map_err(failed)?;
    let called = to.strip_prefix("/").unwrap_or(to).as_os_str().as_bytes();
    piped(
        |pipe| match tree::write(parent.as_fd(), leaf.as_bytes(), called, &tree::Owners::default(), pipe) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::client(chain(&error))),
        },
        |pipe| Ok(engine.copy_in(container, "/", false, pipe)?),
    )
    .map(|_| ())
}

/// What is copied.
struct Source<'a> {
    dir: bool,
    /// The path ends with `/.`: what is in the directory, and not the directory.
    contents: bool,
    name: Option<&'a str>,
}

/// What is where it is copied to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Directory,
    File,
    Nothing,
}

/// PURE: the directory that is unpacked into, and what the copy is called there, by Docker's rules.
fn landing(
    source: &Source<'_>,
    target: Target,
    shown: &str,
    to: &[u8],
) -> Result<(PathBuf, String), Failure> {
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(to));
    let beside = || -> Result<(PathBuf, String), Failure> {
        let name = path.file_name().ok_or_else(|| Failure::usage(format!("no such directory: {shown}")))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok((parent, name.to_string_lossy().into_owned()))
    };
    match (target, source.dir) {
        (Target::Directory, true) if source.contents => Ok((path, ".".to_owned())),
        (Target::Directory, _) => Ok((path, source.name.unwrap_or(".").to_owned())),
        (Target::File, true) => Err(Failure::usage(format!("cannot copy directory to file {shown}"))),
        (Target::Nothing, false) if to.ends_with(b"/") => {
            Err(Failure::usage(format!("no such directory: {shown}")))
        }
        (Target::File, false) | (Target::Nothing, _) => beside(),
    }
}

/// PURE: whether a path means what is in a directory.
fn is_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// PURE: the last part of a path; `None` for `/`, `.` and `..`.
fn base(path: &str) -> Option<&str> {
    Path::new(path).file_name().and_then(std::ffi::OsStr::to_str)
}

/// PURE: `CONTAINER:PATH` unless it begins as a path does; `-` is the stream.
fn end(text: &str) -> End<'_> {
    match text.split_once(':') {
        _ if text == "-" => End::Stream,
        Some((name, path)) if !name.is_empty() && !name.starts_with(['.', '/']) => {
            End::Container { name, path }
        }
        _ => End::Local(text),
    }
}

/// Runs both ends of a pipe at once. The reader's failure is the one to tell: the writer only noticed it.
fn piped<T>(
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Failure> + Send,
    read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (mut reader, mut writer) = io::pipe().map_err(|e| Failure::io("make a pipe", &e))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write(&mut writer));
        let outcome = read(&mut reader);
        // What the writer has still to say must not wait for a reader.
        drop(reader);
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (outcome, written) {
            // A stream that ends too early does so because its writer failed.
            (Err(_), Err(failure)) if !failure.message().contains("Broken pipe") => Err(failure),
            (outcome, Ok(())) => outcome,
            (Err(failure), Err(_)) => Err(failure),
            (Ok(_), Err(failure)) => Err(failure),
        }
    })
}

/// Our own standard output, whose reader may go.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_tells_containers_from_paths() {
        assert_eq!(end("c:/a"), End::Container { name: "c", path: "/a" });
        assert_eq!(end("c:"), End::Container { name: "c", path: "" });
        for path in ["./c:/a", "/tmp/a:b", "file", ":x"] {
            assert_eq!(end(path), End::Local(path));
        }
        assert_eq!(end("-"), End::Stream);
    }

    #[test]
    fn landing_follows_dockers_rules() {
        let rule = |path: &'static str, dir, target, to: &str| {
            let source = Source { dir, contents: is_contents(path), name: base(path) };
            match landing(&source, target, to, to.as_bytes()) {
                Ok((at, called)) => format!("{} + {called}", at.display()),
                Err(failure) => format!("error: {}", failure.message()),
            }
        };
        use Target::{Directory, File, Nothing};
        let lines = [
            rule("/a/f", false, Directory, "/t"),
            rule("/a/f", false, File, "/t/g"),
            rule("/a/f", false, Nothing, "/t/g"),
            rule("/a/f", false, Nothing, "g"),
            rule("/a/f", false, Nothing, "/t/"),
            rule("/a/d", true, Directory, "/t"),
            rule("/a/d/.", true, Directory, "/t"),
            rule("/a/d", true, Nothing, "/t/e"),
            rule("/a/d/.", true, Nothing, "/t/e"),
            rule("/a/d", true, File, "/t/f"),
            rule("/", true, Directory, "/t"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        /t + f
        /t + g
        /t + g
        . + g
        error: no such directory: /t/
        /t + d
        /t + .
        /t + e
        /t + e
        error: cannot copy directory to file /t/f
        /t + .
        ");
    }
}
