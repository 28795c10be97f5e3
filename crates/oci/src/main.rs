//! `cata-runtime`: an OCI runtime with runc's command line, for podman, containerd and dockerd.
//!
//! It reads a bundle, plans, and lets the library do; what it keeps is in [`store`]. It runs one command and
//! ends: a container that was created waits by itself for `start`.

#![allow(clippy::print_stdout, reason = "a command's output")]

mod args;
mod bundle;
mod clock;
mod command;
mod console;
mod criu;
mod error;
mod filter;
mod hooks;
mod log;
mod protect;
mod rights;
mod signal;
mod store;
mod timing;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use cata_runtime::cgroup::Manager;

use args::{Flag, Given, switch, value};
use error::{Error, Result};
use log::Log;
use store::Store;

/// Flags before the command.
const GLOBAL: &[Flag] = &[
    value("root", "", "DIR", "where containers are remembered (/run/cata-runtime)"),
    value("log", "", "FILE", "write errors and warnings there too"),
    value("log-format", "", "FORMAT", "`text` or `json`"),
    switch("debug", "", "write more into the log"),
    switch("systemd-cgroup", "", "let systemd make the cgroup: cgroupsPath is slice:prefix:name"),
    value(
        "rootless",
        "",
        "WORD",
        "`true`, `false` or `auto`: whose systemd is asked; else what is possible is found out",
    ),
    value("criu", "", "FILE", "the program that checkpoints (criu)"),
    switch("timing", "", "write how long each step took to standard error"),
    switch("help", "h", "show help"),
    switch("version", "v", "show the version"),
];

/// The version of the specification that is implemented.
pub(crate) const SPECIFICATION: &str = "1.3.0";

/// What every command gets.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) log: Log,
    pub(crate) timing: timing::Timing,
    /// `--criu`.
    pub(crate) criu: Option<String>,
    systemd: bool,
    rootless: Option<String>,
}

impl World {
    /// Compiled filters.
    pub(crate) fn cache(&self) -> PathBuf {
        self.store.root.join(".seccomp")
    }

    /// The systemd that makes cgroups, if one shall.
    pub(crate) fn manager(&self) -> Option<Manager> {
        let user = match self.rootless.as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => !rights::are_full(),
        };
        self.systemd.then_some(if user { Manager::User } else { Manager::System })
    }
}

fn main() -> ExitCode {
    let begin = std::time::Instant::now();
    let words = std::env::args().skip(1);
    let given = match args::parse(GLOBAL, words, 1) {
        Ok(given) => given,
        Err(error) => {
            Log::default().error(&error.to_string());
            return ExitCode::from(error.code);
        }
    };
    if given.on("version") {
        println!("cata-runtime version {}\nspec: {SPECIFICATION}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let log = Log {
        path: given.get("log").filter(|path| !path.is_empty()).map(PathBuf::from),
        json: given.get("log-format") == Some("json"),
        debug: given.on("debug"),
    };
    let Some((name, rest)) = given.words.split_first().filter(|_| !given.on("help")) else {
        println!("{}", command::help(GLOBAL));
        return ExitCode::SUCCESS;
    };
    let store = Store { root: given.get("root").map_or_else(default_root, PathBuf::from) };
    let timing = timing::Timing::new(given.on("timing").then_some(begin));
    let rootless = given.get("rootless").map(str::to_owned);
    let criu = given.get("criu").filter(|path| !path.is_empty()).map(str::to_owned);
    let world = World { store, log, timing, criu, systemd: given.on("systemd-cgroup"), rootless };
    match run(&world, &given, name, rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            world.log.error(&error.to_string());
            ExitCode::from(error.code)
        }
    }
}

fn run(world: &World, given: &Given, name: &str, rest: &[String]) -> Result<u8> {
    if let Some(format) = given.get("log-format").filter(|format| !matches!(*format, "text" | "json" | "")) {
        return Err(Error::usage(format!("invalid log format `{format}`: it is `text` or `json`")));
    }
    let command = command::find(name)?;
    let words = args::parse(command.flags, rest.iter().cloned(), command.stop)?;
    if words.on("help") {
        println!("{}", command.usage());
        return Ok(0);
    }
    command.check(&words)?;
    world.log.debug(&format!("{name} {}", words.words.join(" ")));
    if command.makes {
        protect::ensure()?;
        world.timing.done("protect");
        let preserved = words.number("preserve-fds")?.unwrap_or(0_u32);
        cata_sys::program::close_on_execute_from(preserved.saturating_add(3).saturating_add(listening()))
            .map_err(|e| Error::new(format!("close descriptors: {e}")))?;
    }
    (command.run)(world, &words)
}

/// How many descriptors systemd's protocol hands on.
pub(crate) fn listening() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn default_root() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime {
        Some(dir) if !rights::are_full() => PathBuf::from(dir).join("cata-runtime"),
        _ => PathBuf::from("/run/cata-runtime"),
    }
}
