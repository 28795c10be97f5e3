//! The process that owns one container: composes the sandbox's driver, the network's name service and, where the
//! firewall is not ours to publish ports by, its forwarder.
//!
//! It is started by the engine, never by hand: descriptor 3 is the plan, descriptor 4 the engine's socket. With
//! the first word `hold` it holds the namespaces of a user without privileges instead.

mod services;

use std::process::ExitCode;

use cata_sandbox::hold;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(hold::WORD) {
        let mut pid = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let from = [pid(), pid()];
        let held = cata_sys::detach::received().map_err(Into::into).and_then(|given| hold::hold(given, from));
        return ExitCode::from(u8::from(held.is_err()));
    }
    let Ok([plan, socket]) = cata_sys::detach::received::<2>() else {
        // No terminal and no log: the exit code is all there is to say it with.
        return ExitCode::from(2);
    };
    match cata_sandbox::driver::run(plan, socket, services::make) {
        Ok(()) => ExitCode::SUCCESS,
        // Told to the engine already.
        Err(_) => ExitCode::FAILURE,
    }
}
