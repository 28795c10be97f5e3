//! The process that owns one container: composes the sandbox's driver and the network's name service.
//!
//! It is started by the engine, never by hand: descriptor 3 is the plan, descriptor 4 the engine's socket.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use cata_network::dns::{DnsPlan, Resolver};
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

fn make_service(plan: serde_json::Value, sockets: Vec<OwnedFd>) -> Result<Box<dyn Service>, String> {
    let plan: DnsPlan = serde_json::from_value(plan).map_err(|e| format!("name service: {e}"))?;
    let resolver = Resolver::new(plan, sockets).map_err(|e| format!("name service: {e}"))?;
    Ok(Box::new(NameService(resolver)))
}

/// The network's name service, in the sandbox's words.
struct NameService(Resolver);

impl Service for NameService {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn ready(&mut self) {
        self.0.ready();
    }

    fn wait(&self) -> Option<Duration> {
        self.0.wait()
    }
}
