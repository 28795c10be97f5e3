//! `up` and `create`: what the project says comes to be; in the foreground its output is shown until its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use cata_compose::{Condition, graph};
use cata_engine::Until;
use cata_engine::request::PullPolicy;
use clap::Args;
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::converge::{Convergence, How, Ready, await_health};
use super::existing;
use super::logs::{Printer, moment_now};
use super::project::{Loaded, load};
use super::resources::{self, Images, tell};
use super::{down, life};
use crate::parse;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

/// What `up` and `create` have in common.
#[derive(Debug, Default, Args)]
pub(crate) struct Making {
    /// Build images first, whether or not they are there
    #[arg(long)]
    build: bool,
    /// Never build an image
    #[arg(long)]
    no_build: bool,
    /// Make containers anew even if nothing has changed
    #[arg(long)]
    force_recreate: bool,
    /// Leave containers as they are even if something has changed
    #[arg(long)]
    no_recreate: bool,
    /// When to pull images (always, missing, never)
    #[arg(long, value_name = "string", value_parser = parse::pull::parse)]
    pull: Option<PullPolicy>,
    /// Print nothing while pulling
    #[arg(long)]
    quiet_pull: bool,
    /// Remove containers of services that the files do not have any more
    #[arg(long)]
    remove_orphans: bool,
    /// How many containers of a service (SERVICE=NUMBER)
    #[arg(long, value_name = "list", value_parser = scale)]
    scale: Vec<(String, u32)>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    making: Making,
    /// Leave the containers running in the background
    #[arg(short, long)]
    detach: bool,
    /// Wait until all services run or are healthy; implies --detach
    #[arg(long)]
    wait: bool,
    /// Do not start the services that the named ones depend on
    #[arg(long)]
    no_deps: bool,
    /// Create the containers and start none
    #[arg(long)]
    no_start: bool,
    /// Give new containers new volumes where they have no name
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Stop all containers when one of them ends; not with --detach
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Exit with the exit code of this service; implies --abort-on-container-exit
    #[arg(long, value_name = "string")]
    exit_code_from: Option<String>,
    /// Print no names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Print without colours
    #[arg(long)]
    no_color: bool,
    /// Print the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Seconds to wait for a stop before a container is killed
    #[arg(short, long, value_name = "int")]
    timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    making: Making,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) fn scale(text: &str) -> Result<(String, u32), String> {
    let wrong = || "it must be SERVICE=NUMBER".to_owned();
    let (service, number) = text.split_once('=').ok_or_else(wrong)?;
    Ok((service.to_owned(), number.parse().map_err(|_| wrong())?))
}

impl Verb for Create {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let how = self.making.how(&loaded)?;
        let chosen = graph::chosen(&loaded.project.services, &self.services, false)?;
        self.making.make(session, &loaded, &chosen, &how)?;
        Ok(Exit::OK)
    }
}

impl Verb for Up {
    fn call(self, session: &Session) -> Outcome {
        let abort = self.abort_on_container_exit || self.exit_code_from.is_some();
        if abort && (self.detach || self.wait) {
            return Err(Failure::flag("--abort-on-container-exit and --exit-code-from need the foreground"));
        }
        let loaded = load(session, &self.services)?;
        if let Some(service) = &self.exit_code_from {
            loaded.service(service)?;
        }
        let how = How {
            renew: self.renew_anon_volumes,
            timeout: self.timeout,
            start: !self.no_start,
            ..self.making.how(&loaded)?
        };
        let chosen = graph::chosen(&loaded.project.services, &self.services, self.no_deps)?;
        let since = moment_now();
        let ready = self.making.make(session, &loaded, &chosen, &how)?;
        if self.wait {
            let needs = chosen.iter().filter_map(|name| loaded.project.services.get(name));
            let to_end: BTreeSet<&str> = needs
                .flat_map(|service| &service.depends_on)
                .filter(|need| need.condition == Condition::Completed)
                .map(|need| need.service.as_str())
                .collect();
            for one in ready.iter().filter(|one| !to_end.contains(one.service.as_str())) {
                let name = one.record.name.as_str();
                await_health(session.engine()?, &one.record, false)
                    .map_err(|why| Failure::client(format!("container {name} {why}")))?;
                tell("Container", name, "Healthy");
            }
        }
        if self.detach || self.wait || self.no_start {
            return Ok(Exit::OK);
        }
        self.attend(session, &loaded, &ready, since, abort)
    }
}

impl Making {
    fn how(&self, loaded: &Loaded) -> Result<How, Failure> {
        if self.force_recreate && self.no_recreate {
            return Err(Failure::flag("--force-recreate and --no-recreate exclude each other"));
        }
        let scale: BTreeMap<String, u32> = self.scale.iter().cloned().collect();
        scale.keys().try_for_each(|service| loaded.service(service).map(|_| ()))?;
        Ok(How { force: self.force_recreate, keep: self.no_recreate, scale, ..How::default() })
    }

    pub(super) fn make(
        &self,
        session: &Session,
        loaded: &Loaded,
        chosen: &BTreeSet<String>,
        how: &How,
    ) -> Result<Vec<Ready>, Failure> {
        let engine = session.engine()?;
        let images =
            Images { build: self.build, no_build: self.no_build, pull: self.pull, quiet: self.quiet_pull };
        let images = resources::images(session, loaded, chosen, images)?;
        let existing = existing::all(engine, &loaded.project.name)?;
        let orphans = down::orphans(loaded, &existing);
        if self.remove_orphans {
            down::remove(engine, loaded, &orphans, how.timeout, false)?;
        } else if !orphans.is_empty() {
            let names = orphans.iter().map(existing::Existing::name).collect::<Vec<_>>().join(", ");
            session::note(format!(
                "WARNING: containers of services that the files do not have: {names} (--remove-orphans removes them)"
            ));
        }
        resources::make(engine, loaded, chosen)?;
        Convergence { engine, loaded, services: chosen, images: &images, existing: &existing, how }.run()
    }
}

/// How often somebody has asked for the end.
static ASKED: AtomicU8 = AtomicU8::new(0);

impl Up {
    /// Shows what the containers write until all have ended; a signal stops them, a second one kills them.
    fn attend(
        &self,
        session: &Session,
        loaded: &Loaded,
        ready: &[Ready],
        since: i64,
        abort: bool,
    ) -> Outcome {
        let engine = session.engine()?;
        let project = &loaded.project;
        let shown = |one: &&Ready| {
            let named = self.services.is_empty() || self.services.contains(&one.service);
            named && project.services.get(&one.service).is_some_and(|service| service.attach)
        };
        let all = existing::all(engine, &project.name)?;
        let own: Vec<existing::Existing> =
            all.into_iter().filter(|one| ready.iter().any(|r| r.record.id == one.view.record.id)).collect();
        let names: Vec<String> = own.iter().map(|one| one.short(&project.name)).collect();
        let printer = Printer::new(&names, self.no_log_prefix, self.no_color, self.timestamps);
        let stop = || {
            let _ = life::in_order(loaded, &own, true, &|one| {
                life::halt(engine, loaded.before_stop(&one.service), one.id(), self.timeout)?;
                tell("Container", one.name(), "Stopped");
                Ok(())
            });
        };
        let kill = || own.iter().for_each(|one| drop(engine.kill(one.id(), None)));
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|e| Failure::io("watch signals", &e))?;
        let handle = signals.handle();
        let (aborted, mut exit) = (AtomicBool::new(false), Exit::OK);
        let printer = &printer;
        let watch = |index: usize, one: &existing::Existing, visible: bool| {
            if visible {
                printer.follow(engine, one.id(), index, since);
            }
            let ended = engine.wait(one.id(), Until::NotRunning).map_or(137, |exit| exit.code);
            session::note(format!("{} exited with code {ended}", one.short(&project.name)));
            if abort && !aborted.swap(true, Ordering::SeqCst) {
                stop();
            }
            ended
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in signals.forever() {
                    if ASKED.fetch_add(1, Ordering::SeqCst) == 0 {
                        session::note("Stopping (once more: kill)");
                        scope.spawn(stop);
                    } else {
                        kill();
                    }
                }
            });
            let watch = &watch;
            let threads: Vec<_> = own
                .iter()
                .enumerate()
                .map(|(index, one)| {
                    let visible = ready.iter().filter(shown).any(|r| r.record.id == one.view.record.id);
                    (one, scope.spawn(move || watch(index, one, visible)))
                })
                .collect();
            for (one, thread) in threads {
                let code = thread.join().unwrap_or(1);
                if self.exit_code_from.as_deref() == Some(one.service.as_str()) {
                    exit = Exit(u8::try_from(code).unwrap_or(1));
                }
            }
            handle.close();
        });
        let asked = ASKED.load(Ordering::SeqCst) > 0;
        Ok(if asked && self.exit_code_from.is_none() { Exit(130) } else { exit })
    }
}
