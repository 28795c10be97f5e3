//! `exec`: one more process in a running container. Without a terminal it gets our own descriptors, so that
//! nothing is copied.

use std::os::fd::AsFd as _;

use cata_engine::container::exec::ExecOptions;
use clap::Args;

use super::create::read_file;
use super::run::exit;
use crate::parse;
use crate::render::error::Failure;
use crate::session::Session;
use crate::terminal::detach::Keys;
use crate::terminal::{self, Link, Manners, Parting};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Leave the command running in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from a command with a terminal (ctrl-p,ctrl-q)
    #[arg(long, value_name = "string", value_parser = terminal::detach::parse)]
    detach_keys: Option<Keys>,
    /// Set an environment variable (NAME alone takes the caller's)
    #[arg(short, long, value_name = "list")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command (nearly) everything the host may do
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User or uid, with an optional group (user[:group])
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    // Everything after the container belongs to the command, dashes or not.
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND")]
    container_and_command: Vec<String>,
}

impl Verb for Exec {
    fn call(self, session: &Session) -> Outcome {
        let env = self.environment()?;
        let mut words = self.container_and_command.into_iter();
        let container = words.next().unwrap_or_default();
        let attached = !self.detach;
        if attached {
            terminal::check_tty(self.interactive, self.tty)?;
        }
        let options = ExecOptions {
            id: None,
            argv: words.collect(),
            env,
            user: self.user,
            workdir: self.workdir,
            tty: self.tty,
            window: if attached && self.tty { terminal::window() } else { None },
            privileged: self.privileged,
            detach: self.detach,
        };
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let stdio = [
            (attached && self.interactive).then(|| stdin.as_fd()),
            attached.then(|| stdout.as_fd()),
            attached.then(|| stderr.as_fd()),
        ];
        let mut process = session.engine()?.exec(&container, options, stdio)?;
        if self.detach {
            return Ok(Exit::OK);
        }
        if let Some(master) = process.terminal.take() {
            let clone = || master.try_clone().map_err(|e| Failure::io("duplicate the terminal", &e));
            let input = if self.interactive { Some(clone()?) } else { None };
            let link = Link { input, output: Some(clone()?), errors: None, window: Some(clone()?) };
            drop(master);
            let keys = self.detach_keys.unwrap_or_else(Keys::docker);
            if terminal::converse(link, Manners { keys: &keys, forward: None }, process.as_fd())?
                == Parting::Detached
            {
                return Ok(Exit::OK);
            }
        }
        Ok(exit(process.finish()?))
    }
}

impl Exec {
    fn environment(&self) -> Result<Vec<String>, Failure> {
        let own = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let mut env = Vec::new();
        for path in &self.env_file {
            let variables = parse::env::file(path, &read_file(path)?, own)?;
            env.extend(variables.into_iter().map(|(name, value)| format!("{name}={value}")));
        }
        for text in &self.env {
            env.extend(parse::env::variable(text, own)?.map(|(name, value)| format!("{name}={value}")));
        }
        Ok(env)
    }
}
