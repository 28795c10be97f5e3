//! `machine rm`.

use cata_engine::container::RemoveOptions;
use cata_engine::status::StatusKind;
use clap::Args;

use crate::command::each;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Kill it first
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.machines, |name| {
            let state = engine.machine_view(name)?.status.status;
            if !self.force && !matches!(state, StatusKind::Created | StatusKind::Exited) {
                return Err(Failure::client(format!("machine {name} is running"))
                    .with_hint(format!("`cata machine stop {name}` first, or `cata machine rm -f {name}`")));
            }
            engine.remove(name, RemoveOptions { force: self.force, volumes: true })?;
            session::print_line(name)
        })
    }
}
