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
    let failed = |e: std::io::Error| Failure::io("read from the terminal", &e);
    if secret && let Some(silent) = raw::silence() {
        let line = secret_line(&mut stdin.lock());
        session::note("");
        drop(silent);
        return line.map_err(failed)?.ok_or_else(|| Failure::usage("the login was cancelled"));
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A line typed byte by byte, with the keys that edit it; `None` when it was broken off.
fn secret_line(input: &mut impl std::io::BufRead) -> std::io::Result<Option<String>> {
    const BREAK: [u8; 2] = [0x03, 0x1c];
    let mut line = Vec::new();
    for byte in input.bytes() {
        match byte? {
            b'\n' | b'\r' | 0x04 => break,
            key if BREAK.contains(&key) => return Ok(None),
            0x7f | 0x08 => {
                // A character of several bytes goes as a whole.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            byte => line.push(byte),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::secret_line;

    #[test]
    fn secret_lines_can_be_edited_and_broken_off() {
        let read = |typed: &str| secret_line(&mut typed.as_bytes()).unwrap();
        assert_eq!(read("secret\nrest").as_deref(), Some("secret"));
        assert_eq!(read("se\u{e4}\x7fcret\r").as_deref(), Some("secret"));
        assert_eq!(read("wrong\x15right\n").as_deref(), Some("right"));
        assert_eq!(read("sec\x03"), None);
        assert_eq!(read("\x7f\n").as_deref(), Some(""));
    }
}
