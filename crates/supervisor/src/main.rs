//! The process that owns one container: composes the sandbox's driver and the network's name service.
//!
//! It is started by the engine, never by hand: descriptor 3 is the plan, descriptor 4 the engine's socket.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use cata_sandbox::service::Service;

fn main() -> ExitCode {
    let Ok([plan, socket]) = cata_sys::detach::received::<2>() else {
        // No terminal and no log: the exit code is all there is to say it with.
        return ExitCode::from(2);
    };
    match cata_sandbox::driver::run(plan, socket, make_service) {
        Ok(()) => ExitCode::SUCCESS,
        // Told to the engine already.
        Err(_) => ExitCode::FAILURE,
    }
}

fn make_service(_plan: serde_json::Value, _sockets: Vec<OwnedFd>) -> Result<Box<dyn Service>, String> {
    Err("name service is not composed yet".to_owned())
}
