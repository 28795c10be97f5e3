//! `cata-guest`: process 1 of a microVM. It loads the drivers its initial file system holds, mounts what the
//! container needs, and then does what the host says over the channel ([`cata_guest::protocol`]).
//!
//! One thread, one loop. What cannot be done is said to the host; where there is no host to say it to, to the
//! kernel's log, and the machine ends.

mod boot;
mod facts;
mod link;
mod machine;
mod names;
mod network;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        boot::say("cata-guest is the first process of a virtual machine, and nothing else");
        return ExitCode::from(2);
    }
    let error = match machine::run() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    boot::say(&format!("cata-guest: {error}"));
    // The kernel panics without its first process: whoever watches sees the line above it.
    ExitCode::FAILURE
}
