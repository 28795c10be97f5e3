//! `rm`: all at once; `-f` does not mind what is not there.

use cata_engine::container::RemoveOptions;
use clap::Args;

use crate::command::each_at_once;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Kill containers that run
    #[arg(short, long)]
    force: bool,
    /// Remove the anonymous volumes of the containers too
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let options = RemoveOptions { force: self.force, volumes: self.volumes };
        let remove = |name: &str| engine.remove(name, options).map_err(Failure::from);
        if !self.force {
            return each_at_once(&self.containers, remove, |name, ()| session::print_line(name));
        }
        // With -f a container that is not there is said, but is no failure.
        let remove = |name: &str| match remove(name) {
            Err(failure) if failure.is_not_found() => Ok(Some(failure)),
            result => result.map(|()| None),
        };
        each_at_once(&self.containers, remove, |name, missing| match missing {
            Some(failure) => {
                failure.report();
                Ok(())
            }
            None => session::print_line(name),
        })
    }
}
