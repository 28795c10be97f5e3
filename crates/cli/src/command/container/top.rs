//! `top`: a container's processes with the host's process ids.

use clap::Args;
use jiff::tz::TimeZone;

use crate::render::time;
use crate::row::process::{Clock, columns, text, users};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER")]
    container_and_options: Vec<String>,
}

impl Verb for Top {
    fn call(self, session: &Session) -> Outcome {
        let mut words = self.container_and_options.into_iter();
        let container = words.next().unwrap_or_default();
        let columns = columns(&words.collect::<Vec<_>>())?;
        let processes = session.engine()?.processes(&container)?;
        // Without the file the numbers are shown.
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let clock = Clock { now: time::now(), zone: TimeZone::system(), users: users(&passwd) };
        session::print(text(&processes, &columns, &clock))?;
        Ok(Exit::OK)
    }
}
