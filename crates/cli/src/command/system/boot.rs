//! `system start`, `system stop`, `system unit`: containers go up and down with the host.

use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use cata_engine::record::Record;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Start {}

impl Verb for Start {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        told(|tell| engine.start_at_boot(tell))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Stop {}

impl Verb for Stop {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        told(|tell| engine.stop_for_shutdown(tell))
    }
}

/// Prints the names of those that went well as they come, and the errors of the others.
pub(crate) fn told(
    act: impl FnOnce(&(dyn Fn(&Record, cata_engine::Result<()>) + Sync)) -> cata_engine::Result<()>,
) -> Outcome {
    let failed = AtomicBool::new(false);
    act(&|record, outcome| {
        let outcome = outcome.map_err(Failure::from).and_then(|()| session::print_line(record.name.as_str()));
        if let Err(failure) = outcome {
            failure.report();
            failed.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(if failed.into_inner() { Exit(1) } else { Exit::OK })
}

#[derive(Debug, Args)]
pub(crate) struct Unit {}

impl Verb for Unit {
    fn call(self, session: &Session) -> Outcome {
        let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
        let globals = session.given().into_iter();
        let words = std::iter::once(program.to_string_lossy().into_owned()).chain(globals);
        let command: Vec<String> = words.map(|word| quoted(&word)).collect();
        session::print(unit(&command.join(" ")))?;
        Ok(Exit::OK)
    }
}

/// PURE: the unit. Supervisors that it has started are stopped by `system stop`; those of other sessions too.
fn unit(command: &str) -> String {
    format!(
        "# cata system unit > /etc/systemd/system/catamaran.service\n\
         # systemctl daemon-reload && systemctl enable --now catamaran\n\
         [Unit]\n\
         Description=Containers with a restart policy\n\
         Wants=network-online.target\n\
         After=network-online.target local-fs.target nss-lookup.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={command} system start\n\
         ExecStop={command} system stop\n\
         # What does not start is told and leaves the others running.\n\
         SuccessExitStatus=1\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=120\n\
         KillMode=process\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// PURE: a word as systemd reads it (systemd.syntax, systemd.service: specifiers and variables).
fn quoted(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if word.contains(char::is_whitespace) || word.contains(['"', '\'', '\\', ';']) {
        format!("\"{word}\"")
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, unit};

    #[test]
    fn quoted_keeps_what_systemd_would_read_otherwise() {
        assert_eq!(quoted("/usr/bin/cata"), "/usr/bin/cata");
        assert_eq!(quoted("/a b/100%/$HOME"), "\"/a b/100%%/$$HOME\"");
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }

    #[test]
    fn unit_names_the_command_twice() {
        let text = unit("/usr/bin/cata --root /x");
        assert!(text.contains("\nExecStart=/usr/bin/cata --root /x system start\n"));
        assert!(text.contains("\nExecStop=/usr/bin/cata --root /x system stop\n"));
    }
}
