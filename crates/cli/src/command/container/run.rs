//! `run`: create, start, and in the foreground stay until the end.

use std::os::fd::AsFd as _;

use cata_engine::container::{StartOptions, Started};
use cata_engine::record::Record;
use cata_engine::request::CreateRequest;
use cata_engine::{Streams, Timing};
use clap::Args;

use super::create::{CidFile, convert, create};
use crate::options::convert::Use;
use crate::options::create::CreateOptions;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::terminal::detach::Keys;
use crate::terminal::{self, Link, Manners, Parting};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    options: CreateOptions,
    /// Leave the container running in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from a container with a terminal (ctrl-p,ctrl-q)
    #[arg(long, value_name = "string", value_parser = terminal::detach::parse)]
    detach_keys: Option<Keys>,
    /// Pass signals on to the process
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", action = clap::ArgAction::Set, value_parser = crate::parse::boolean::parse)]
    sig_proxy: bool,
    /// Print how long each phase of the start took
    #[arg(long)]
    timing: bool,
    // Everything after the image belongs to the container, dashes or not.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    image_and_command: Vec<String>,
}

impl Verb for Run {
    fn call(self, session: &Session) -> Outcome {
        let mut timing = Timing::default();
        let using = if self.detach { Use::Detached } else { Use::Foreground };
        let cidfile = CidFile::claim(self.options.life.cidfile.as_deref())?;
        let quiet = self.options.life.quiet;
        let request = convert(self.options, self.image_and_command, using)?;
        timing.mark("parse");
        let keys = self.detach_keys.unwrap_or_else(Keys::docker);
        let going =
            Going { detach: self.detach, quiet, keys, sig_proxy: self.sig_proxy, phases: self.timing };
        go(session, request, cidfile, &going, timing)
    }
}

/// How a container is run.
pub(crate) struct Going {
    /// In the background.
    pub(crate) detach: bool,
    /// Without a word of its image's way here.
    pub(crate) quiet: bool,
    /// Keys that detach.
    pub(crate) keys: Keys,
    /// Signals are passed on.
    pub(crate) sig_proxy: bool,
    /// Whether the phases are printed.
    pub(crate) phases: bool,
}

/// Creates a container, starts it, and stays with it if it is in the foreground.
pub(crate) fn go(
    session: &Session,
    request: CreateRequest,
    cidfile: CidFile,
    going: &Going,
    mut timing: Timing,
) -> Outcome {
    let (attach, tty) = (request.attach, request.tty);
    if !going.detach {
        terminal::check_tty(attach.stdin, tty)?;
    }
    let created = create(session, request, going.quiet, &mut timing)?;
    let record = created.record;
    cidfile.write(record.id.as_str())?;
    let attached = attach.stdin || attach.stdout || attach.stderr;
    // With a terminal its master side is wanted in any case: it takes the window's size.
    let streams =
        Streams { stdin: attach.stdin || tty, stdout: attach.stdout, stderr: attach.stderr && !tty };
    let wanted = (!going.detach && attached).then_some(streams);
    let window = if tty { terminal::window() } else { None };
    let options = StartOptions { attach: wanted, window };
    let engine = session.engine()?;
    let started = match engine.start(&record, options, &mut timing) {
        Ok(started) => started,
        Err(error) => {
            if record.request.auto_remove {
                // Docker's --rm removes what never started as well; the first error is the one to tell.
                let _ = engine.remove(
                    record.id.as_str(),
                    cata_engine::container::RemoveOptions { force: true, volumes: true },
                );
            }
            return Err(error.into());
        }
    };
    if going.phases {
        print_phases(&timing);
    }
    let Some(started) = started else {
        return Err(Failure::client(format!("container {} runs already", record.name)));
    };
    for withheld in &started.withheld {
        session::note(format!("WARNING: {withheld}"));
    }
    if wanted.is_none() {
        session::print_line(record.id.as_str())?;
        return Ok(Exit::OK);
    }
    stay(session, &record, started, attach.stdin, &going.keys, going.sig_proxy)
}

/// Stays with a started container until its end or until the user detaches; its exit code is ours.
pub(crate) fn stay(
    session: &Session,
    record: &Record,
    started: Started,
    stdin: bool,
    keys: &Keys,
    sig_proxy: bool,
) -> Outcome {
    let link = link(started.streams, stdin)?;
    let forward = sig_proxy.then(|| forwarder(session, record.id.as_str()));
    let waiter = started.waiter;
    if terminal::converse(link, Manners { keys, forward }, waiter.as_fd())? == Parting::Detached {
        return Ok(Exit::OK);
    }
    let end = waiter.finish()?;
    // A machine that broke, say: what ended well or by its own code has no error.
    if let Some(error) = &end.error {
        session::note(format!("error: {error}"));
    }
    Ok(exit(end.code))
}

/// An exit code of the kernel's as ours.
pub(crate) fn exit(code: i32) -> Exit {
    Exit(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// The engine's streams as the terminal client wants them.
pub(crate) fn link(streams: cata_engine::Attached, stdin: bool) -> Result<Link, Failure> {
    let window = match (&streams.stdin, streams.terminal) {
        (Some(master), true) => {
            Some(master.try_clone().map_err(|e| Failure::io("duplicate the terminal", &e))?)
        }
        _ => None,
    };
    Ok(Link {
        input: streams.stdin.filter(|_| stdin),
        output: streams.stdout,
        errors: streams.stderr,
        window,
    })
}

/// Passes signals on; a container that has just ended needs none.
pub(crate) fn forwarder(session: &Session, container: &str) -> Box<dyn Fn(i32) + Send> {
    let paths = session.paths();
    let container = container.to_owned();
    Box::new(move |signal| {
        if let Ok(engine) = cata_engine::Engine::open(paths.clone()) {
            let _ = engine.kill(&container, Some(&signal.to_string()));
        }
    })
}

fn print_phases(timing: &Timing) {
    let mut total = std::time::Duration::ZERO;
    for (name, took) in timing.phases() {
        total += *took;
        session::note(format!("{name:>12}  {:>9.3} ms", took.as_secs_f64() * 1000.0));
    }
    session::note(format!("{:>12}  {:>9.3} ms", "total", total.as_secs_f64() * 1000.0));
}
