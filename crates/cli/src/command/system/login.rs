//! `login` and `logout`.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use cata_engine::images::registry::login::{Kept, host};
use clap::Args;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::terminal::raw;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Password or token (seen by every user of this machine: better is --password-stdin)
    #[arg(short, long, value_name = "string")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// User name
    #[arg(short, long, value_name = "string")]
    username: Option<String>,
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for Login {
    fn call(self, session: &Session) -> Outcome {
        let host = host(self.server.as_deref().unwrap_or_default());
        if self.password.is_some() && self.password_stdin {
            return Err(Failure::flag("--password and --password-stdin are mutually exclusive"));
        }
        if self.password_stdin && self.username.is_none() {
            return Err(Failure::flag("the --password-stdin option requires --username"));
        }
        let engine = session.engine()?;
        if self.username.is_none() && self.password.is_none() && engine.login_again(&host)? {
            session::note("Authenticated with existing credentials");
            session::print_line("Login Succeeded")?;
            return Ok(Exit::OK);
        }
        let user = match self.username {
            Some(user) => user,
            None => ask("Username: ", false)?,
        };
        if user.is_empty() {
            return Err(Failure::usage("username is empty"));
        }
        let password = match self.password {
            Some(password) => {
                session::note(
                    "WARNING! Using --password via the CLI is insecure. Use --password-stdin instead.",
                );
                password
            }
            None if self.password_stdin => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|e| Failure::io("read the password", &e))?;
                text.trim_end_matches(['\n', '\r']).to_owned()
            }
            None => ask("Password: ", true)?,
        };
        if password.is_empty() {
            return Err(Failure::usage("password is empty"));
        }
        match engine.login(&host, &user, &password)? {
            Kept::Helper(_) => {}
            Kept::File(path) => session::note(format!(
                "WARNING! Your password is stored unencrypted in '{}'.\nA credential helper (docker-credential-pass, docker-credential-secretservice) would keep it in a keyring.",
                path.display()
            )),
        }
        session::print_line("Login Succeeded")?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for Logout {
    fn call(self, session: &Session) -> Outcome {
        let host = host(self.server.as_deref().unwrap_or_default());
        if session.engine()?.logout(&host)? {
            session::print_line(format!("Removing login credentials for {host}"))?;
        } else {
            session::print_line(format!("Not logged in to {host}"))?;
        }
        Ok(Exit::OK)
    }
}

/// One line from the terminal, a secret one without echo.
fn ask(prompt: &str, secret: bool) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("cannot perform an interactive login from a non TTY device")
            .with_hint("give --username and --password-stdin"));
    }
    let _ = write!(std::io::stderr(), "{prompt}");
    let silent = if secret { raw::silence() } else { None };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if silent.is_some() {
        session::note("");
    }
    drop(silent);
    read.map_err(|e| Failure::io("read from the terminal", &e))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
