//! `update`.

use cata_engine::container::update::UpdateRequest;
use cata_engine::request::{Resources, RestartPolicy};
use clap::Args;

use crate::command::each;
use crate::options::convert;
use crate::options::create::LimitOptions;
use crate::parse;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: LimitOptions,
    /// What to do when the container ends (no, always, unless-stopped, on-failure[:times])
    #[arg(long, value_name = "string", value_parser = parse::restart::parse)]
    restart: Option<RestartPolicy>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Update {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let request = UpdateRequest { resources: convert::limits(self.limits)?, restart: self.restart };
        if request.resources == Resources::default() && request.restart.is_none() {
            return Err(Failure::usage("you must provide one or more flags when using this command")
                .with_hint("see 'cata update --help'"));
        }
        each(&self.containers, |name| {
            engine.update(name, &request)?;
            session::print_line(name)
        })
    }
}
