//! Docker's Engine API: the cata-serve command.
//!
//! It is the command line by other means: [`server`] speaks HTTP, [`route`] knows whose a request is, and the
//! endpoints call the engine as commands do. It owns nothing but its connections: containers go on without it, and
//! any other that is started sees all of them.

mod build;
mod call;
mod container;
mod fields;
mod image;
mod listen;
mod network;
mod refusal;
mod route;
mod server;
mod shared;
mod stream;
mod system;
mod time;
mod volume;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cata_engine::{Engine, Paths};

use crate::shared::Server;

/// What `cata serve` hands over.
#[derive(Debug, Default)]
struct Options {
    paths: Paths,
    socket: Option<String>,
    group: Option<String>,
    idle: Option<Duration>,
}

/// Between two looks for supervisors that were killed.
const SWEEP: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // There is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::from(125)
        }
    }
}

fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let options = parse(words)?;
    let engine = Engine::open(options.paths).map_err(|error| error.to_string())?;
    let listening = listen::listen(options.socket.as_deref(), options.group.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Requests that wait (a stop, a pull, a body that comes slowly) hold a thread each.
        .max_blocking_threads(1024)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let server = Arc::new(Server::new(engine));
    sweep(&server);
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listening.socket)
            .map_err(|error| format!("cannot listen: {error}"))?;
        if let Some(path) = &listening.path {
            let _ = writeln!(std::io::stderr(), "API listen on {}", path.display());
        }
        server::serve(server, listener, options.idle).await.map_err(|error| error.to_string())
    })
}

/// Ends what the death of a supervisor has ended, as every command does when it begins: clients wait for such ends.
fn sweep(server: &Arc<Server>) {
    let server = Arc::downgrade(server);
    // Without it others find them.
    let _ = std::thread::Builder::new().name("sweep".to_owned()).spawn(move || {
        while let Some(server) = server.upgrade() {
            // What cannot be swept now is tried again.
            let _ = server.engine.sweep();
            drop(server);
            std::thread::sleep(SWEEP);
        }
    });
}

/// PURE: `cata serve` has checked what its user typed.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("flag needs an argument: {word}"));
        match word.as_str() {
            "--root" => options.paths.root = PathBuf::from(value()?),
            "--state" => options.paths.state = PathBuf::from(value()?),
            "--config" => options.paths.config = PathBuf::from(value()?),
            "--socket" => options.socket = Some(value()?),
            "--group" => options.group = Some(value()?),
            "--idle" => {
                let seconds = value()?.parse().map_err(|_| "--idle takes seconds".to_owned())?;
                options.idle = Some(Duration::from_secs(seconds));
            }
            _ => return Err(format!("unknown flag: {word} (this program is started by `cata serve`)")),
        }
    }
    Ok(options)
}
