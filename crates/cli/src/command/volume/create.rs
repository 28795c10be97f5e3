//! `volume create`.

use clap::Args;

use crate::parse::{key_value, volume};
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver that keeps the volume (local)
    #[arg(short, long, value_name = "string", default_value = "local")]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Set an option of the driver
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

impl Verb for Create {
    fn call(self, session: &Session) -> Outcome {
        if self.driver != "local" {
            return Err(Failure::usage(format!(
                "volume driver '{}' is not supported yet: use local",
                self.driver
            )));
        }
        let name = volume::volume_name(self.name.as_deref().unwrap_or_default());
        let name = name.map_err(|e| Failure::usage(e.to_string()))?;
        let labels = key_value::labels(&self.label)?;
        let options = key_value::pairs(&self.opt, "option")?;
        let volume = session.engine()?.volume_create(name, labels, options)?;
        session::print_line(volume.name.as_str())?;
        Ok(Exit::OK)
    }
}
