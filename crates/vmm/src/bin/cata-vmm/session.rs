//! `cata-vmm session`: one `exec`. It holds the user's streams and nothing else; what the guest says reaches
//! it only as bytes of a stream and an exit code.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use cata_guest::protocol::{Decoder, Exited, FIRST, Failed, Frame, Kind, ProtocolError, Start, Started};
use cata_guest::report::{LONGEST, Report};
use cata_runtime::plan::WindowSize;
use cata_runtime::{ExecPlan, ExecRequest};
use cata_sys::message;
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::tcgetwinsize;

use crate::pump::{Pump, make_raw};
use crate::{Refusal, alone, read_errand, report};

/// How long the last output may take to be taken.
const LAST: std::time::Duration = std::time::Duration::from_secs(10);

/// What whoever asked for the session may send to its process by way of this one.
const FORWARDED: [Signal; 8] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
];

pub(crate) fn run(plan: &OwnedFd, supervisor: &OwnedFd, machine: OwnedFd) -> ExitCode {
    match begin(plan, supervisor) {
        Ok((start, terminal)) => match speak(&start, terminal, supervisor, machine) {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
            Err(failed) => refuse(supervisor, failed),
        },
        Err(Refusal(failed)) => refuse(supervisor, failed),
    }
}

fn refuse(supervisor: &OwnedFd, failed: Failed) -> ExitCode {
    let code = u8::try_from(failed.exit_code).unwrap_or(125);
    if std::env::args().nth(2).is_some() {
        // A probe has nobody who hears the report: its output is what is kept.
        let text = format!("{}\n", failed.message);
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    }
    report(supervisor.as_fd(), &Report::Failed(failed));
    ExitCode::from(code)
}

/// What is to be started, from the request that the supervisor has put into the socket before.
fn begin(plan: &OwnedFd, supervisor: &OwnedFd) -> Result<(Frame, bool), Refusal> {
    let request = message::receive(supervisor.as_fd(), LONGEST, 0)
        .map_err(Refusal::at("read the request"))?
        .ok_or_else(|| Refusal::new("nobody asks"))?;
    let mut request: ExecRequest = serde_json::from_slice(&request.0).map_err(Refusal::new)?;
    let errand = read_errand(plan)?;
    let terminal = request.terminal;
    if terminal && let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        request.window = Some(WindowSize { rows: size.ws_row, columns: size.ws_col });
    }
    let process = Box::new(ExecPlan::new(&errand.plan, request).process);
    let start = Frame::document(Kind::Start, FIRST, &Start::Further { process }).map_err(Refusal::new)?;
    if terminal {
        make_raw();
    }
    alone::give_up_rights(errand.vm.uid)?;
    Ok((start, terminal))
}

struct Conversation {
    machine: OwnedFd,
    waiting: Vec<u8>,
}

impl Conversation {
    fn send(&mut self, frame: &Frame) -> Result<(), Errno> {
        frame.write(&mut self.waiting);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while !self.waiting.is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.machine, &self.waiting, flags) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn speak(start: &Frame, terminal: bool, supervisor: &OwnedFd, machine: OwnedFd) -> Result<i32, Failed> {
    let gone = |_| Failed { message: "container is not running".to_owned(), hint: None, exit_code: 125 };
    let nonsense = |error: ProtocolError| Failed {
        message: format!("the guest does not keep to the protocol: {error}"),
        hint: None,
        exit_code: 125,
    };
    // A terminal has keys for signals, and its hanging up is to end this process.
    let wanted = if terminal { &[Signal::WINCH][..] } else { &FORWARDED[..] };
    let wanted: Vec<i32> = wanted.iter().map(|signal| signal.as_raw()).collect();
    let signals = SignalFd::new(&wanted).map_err(|e| Refusal::new(e).0)?;
    let mut pump = Pump::new(FIRST, terminal);
    let mut talk = Conversation { machine, waiting: Vec::new() };
    let mut decoder = Decoder::default();
    let mut running = false;
    alone::filters().and_then(|filters| alone::give_up_calls(&filters)).map_err(|refusal| refusal.0)?;
    talk.send(start).map_err(gone)?;
    loop {
        let mut flags = PollFlags::IN;
        if !talk.waiting.is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut watched = vec![PollFd::new(&talk.machine, flags)];
        if running {
            watched.push(PollFd::new(&signals, PollFlags::IN));
            watched.extend(pump.watched());
        }
        let _ = poll(&mut watched, None);
        drop(watched);
        talk.flush().map_err(gone)?;
        let mut piece = [0_u8; 32 * 1024];
        match rustix::net::recv(&talk.machine, &mut piece, rustix::net::RecvFlags::DONTWAIT) {
            // The machine has ended, and this session with it, as by a signal.
            Ok((0, _)) if running => return Ok(137),
            Ok((0, _)) => return Err(gone(Errno::PIPE)),
            Ok((length, _)) => decoder.feed(&piece[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(gone(error)),
        }
        while let Some(frame) = decoder.take().map_err(nonsense)? {
            match frame.kind {
                Kind::Started => {
                    let started: Started = frame.parse().map_err(nonsense)?;
                    running = true;
                    report(supervisor.as_fd(), &Report::Started { withheld: started.withheld, boot: None });
                }
                Kind::Failed => return Err(frame.parse().map_err(nonsense)?),
                Kind::Exited => {
                    let exited: Exited = frame.parse().map_err(nonsense)?;
                    pump.finish(LAST);
                    return Ok(exited.code);
                }
                _ => pump.take(&frame).map_err(nonsense)?,
            }
        }
        if running {
            while let Some(signal) = signals.next() {
                let size = (signal == Signal::WINCH.as_raw()).then(|| pump.size()).flatten();
                talk.send(&size.unwrap_or_else(|| Frame::signal(FIRST, signal))).map_err(gone)?;
            }
            for frame in pump.exchange() {
                talk.send(&frame).map_err(gone)?;
            }
        }
    }
}
