//! `cata-vmm`: the process that stands for a container whose program runs in a virtual machine. The supervisor
//! starts it, never a user.
//!
//! `cata-vmm machine` is the machine: it puts the container's tree together and has it served, starts KVM or
//! QEMU, gives up every right, and only then reads what the guest says. Its standard streams are the
//! container's, its exit code is the container's, and signals it gets go to the container's process.
//! `cata-vmm session` is one `exec`: a process whose streams, signals and exit code are those of one process in
//! the guest, spoken of with the machine over a socket.
//!
//! Descriptor 3 is the supervisor's plan, 4 the socket to it ([`cata_guest::report`]); a session has the
//! machine at 5.

mod alone;
mod child;
mod console;
mod kvm;
mod machine;
mod names;
mod pump;
mod qemu;
mod qmp;
mod relay;
mod session;
mod stage;

use std::fmt::Display;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use cata_guest::order::Errand;
use cata_guest::protocol::Failed;
use cata_guest::report::Report;
use cata_sys::message;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("machine") => match cata_sys::detach::received::<2>() {
            Ok([plan, socket]) => machine::run(&plan, &socket),
            Err(_) => not_by_hand(),
        },
        Some("session") => match cata_sys::detach::received::<3>() {
            Ok([plan, socket, machine]) => session::run(&plan, &socket, machine),
            Err(_) => not_by_hand(),
        },
        Some("probe") => probe(),
        _ => not_by_hand(),
    }
}

/// Whether machines run on KVM here: success, or the reason in words.
fn probe() -> ExitCode {
    use std::io::Write as _;
    let answer = cata_vmm::probe::probe(std::path::Path::new(kvm::DEVICE));
    let _ = writeln!(std::io::stdout(), "{answer}");
    ExitCode::from(u8::from(answer != cata_vmm::probe::Answer::Usable))
}

fn not_by_hand() -> ExitCode {
    use std::io::Write as _;
    let text = "cata-vmm is started by a container's supervisor: use `cata run --isolation vm`";
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(2)
}

/// Why there is no machine, or no process in it: what the user is told.
#[derive(Debug)]
struct Refusal(Failed);

impl Refusal {
    fn new(message: impl Display) -> Self {
        Self(Failed { message: message.to_string(), hint: None, exit_code: 125 })
    }

    fn with_hint(message: impl Display, hint: impl Into<String>) -> Self {
        Self(Failed { message: message.to_string(), hint: Some(hint.into()), exit_code: 125 })
    }

    /// For `map_err`: what was being done.
    fn at<E: Into<std::io::Error>>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format_args!("cannot {what}: {}", error.into()))
    }
}

/// Tells the supervisor; who has gone need not know.
fn report(socket: BorrowedFd<'_>, report: &Report) {
    if let Ok(bytes) = serde_json::to_vec(report) {
        let _ = message::send(socket, &bytes, &[]);
    }
}

/// Reads the sealed plan.
fn read_errand(plan: &OwnedFd) -> Result<Errand, Refusal> {
    let length = rustix::fs::fstat(plan).map_err(Refusal::at("look at the plan"))?.st_size;
    let mut text = vec![0_u8; usize::try_from(length).unwrap_or(0)];
    let mut read = 0;
    while read < text.len() {
        match rustix::io::pread(plan.as_fd(), &mut text[read..], u64::try_from(read).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Refusal::at("read the plan")(error)),
        }
    }
    serde_json::from_slice(&text).map_err(|error| Refusal::new(format_args!("cannot read the plan: {error}")))
}
