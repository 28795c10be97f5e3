//! `completion`: scripts for shells, made of the same tree that parses.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Completion {
    #[arg(required = true, value_name = "SHELL")]
    shell: String,
}

impl Verb for Completion {
    fn call(self, _: &Session) -> Outcome {
        let shell = match self.shell.as_str() {
            "bash" => Shell::Bash,
            "zsh" => Shell::Zsh,
            "fish" => Shell::Fish,
            other => {
                return Err(Failure::usage(format!(
                    "no completion for shell '{other}': use bash, zsh or fish"
                )));
            }
        };
        session::print_bytes(&script(shell))?;
        Ok(Exit::OK)
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let mut command = crate::program();
    let mut bytes = Vec::new();
    generate(shell, &mut command, "cata", &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::script;

    #[test]
    fn scripts_know_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["container", "network-alias", "health-cmd"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
