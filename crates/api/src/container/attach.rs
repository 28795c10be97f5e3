//! `attach` and `logs`: what a container says, now or before.

use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::Duration;

use cata_engine::container::logs::{LogOptions, Stream};
use cata_engine::{Attached, Streams};

use crate::call::{Answer, Call, Line};
use crate::refusal::{Outcome, Refusal};
use crate::shared::{Server, Shared};
use crate::stream::{self, Keys, frame};
use crate::time;

/// What a stream is, for clients that ask.
const RAW: &str = "application/vnd.docker.raw-stream";
const FRAMED: &str = "application/vnd.docker.multiplexed-stream";

/// The kind of a container's stream.
pub(crate) fn kind(terminal: bool) -> &'static str {
    if terminal { RAW } else { FRAMED }
}

/// `POST /containers/{id}/attach`.
pub(crate) fn attach(server: &Shared, call: &Call, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let terminal = record.request.tty;
    let keys = Keys::parse(call.word("detachKeys"))?;
    let wanted = Streams {
        stdin: call.flag("stdin") && record.request.open_stdin,
        stdout: call.flag("stdout"),
        stderr: call.flag("stderr") && !terminal,
    };
    let live = call.flag("stream");
    let past = call.flag("logs");
    let runs = server.engine.is_running(&record)?;
    let waiting = (live && !runs).then(|| server.add_attacher(record.id.as_str(), wanted));
    let server = Shared::clone(server);
    let id = record.id.to_string();
    let speak = Box::new(move |mut line: Line| {
        if past {
            write_past(&server, &id, &mut line, terminal);
        }
        if !live {
            return;
        }
        let streams = match waiting {
            Some((number, receiver)) => wait_for_start(&server, &id, number, &receiver, &line),
            None => Some(None),
        };
        // The start failed, or the client has gone.
        let Some(streams) = streams else { return };
        let streams = match streams {
            Some(streams) => streams,
            None => match server.engine.attach(&id, wanted) {
                Ok((streams, _)) => streams,
                // Ended meanwhile.
                Err(_) => return,
            },
        };
        let outputs = [(1, streams.stdout), (2, streams.stderr)];
        let outputs = outputs.into_iter().filter_map(|(number, fd)| Some((number, fd?))).collect();
        stream::converse(
            line,
            stream::Streams { stdin: streams.stdin, outputs, terminal, keys },
            None,
            || {},
        );
    });
    Ok(Answer::Hijack { kind: kind(terminal), speak })
}

/// Until somebody has started the container: this server, which hands out streams, or anybody else.
fn wait_for_start(
    server: &Server,
    id: &str,
    number: u64,
    receiver: &mpsc::Receiver<Option<Attached>>,
    line: &Line,
) -> Option<Option<Attached>> {
    loop {
        match receiver.recv_timeout(Duration::from_millis(250)) {
            Ok(streams) => return Some(streams),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let record = server.engine.find(id).ok();
        let runs = record.as_ref().is_some_and(|record| server.engine.is_running(record).unwrap_or(false));
        if record.is_none() || stream::is_gone(&line.socket) || runs {
            if !server.forget_attacher(id, number) {
                // It is being started by this server at this moment, which will say so.
                return receiver.recv().ok();
            }
            return if runs { Some(None) } else { None };
        }
    }
}

/// What was said before.
fn write_past(server: &Server, id: &str, line: &mut Line, terminal: bool) {
    use std::io::Write as _;
    let socket = &mut line.socket;
    let _ = server.engine.logs(id, LogOptions::default(), &mut |entry| {
        let head = frame(number(entry.stream), entry.bytes.len());
        let head = if terminal { &[][..] } else { &head[..] };
        socket.write_all(head).and_then(|()| socket.write_all(&entry.bytes)).is_ok()
    });
}

fn number(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// `GET /containers/{id}/logs`.
pub(crate) fn logs(server: &Shared, call: &Call, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let (stdout, stderr) = (call.flag("stdout"), call.flag("stderr"));
    if !stdout && !stderr {
        return Err(Refusal::invalid("Bad parameters: you must choose at least one stream"));
    }
    let moment = |name: &str| -> Outcome<Option<i64>> {
        let Some(text) = call.word(name).filter(|text| *text != "0") else { return Ok(None) };
        time::moment(text).map(Some).ok_or_else(|| Refusal::invalid(format!("invalid {name}: {text}")))
    };
    let options = LogOptions {
        // What is no number means all, as Docker has it.
        tail: call.word("tail").and_then(|text| text.parse().ok()),
        since: moment("since")?,
        until: moment("until")?,
        follow: call.flag("follow"),
        cancel: None,
    };
    let (timestamps, details) = (call.flag("timestamps"), call.flag("details"));
    let terminal = record.request.tty;
    // What cannot be read is refused before anything is sent.
    server.engine.logs(id, LogOptions { tail: Some(0), ..LogOptions::default() }, &mut |_| false)?;
    let (server, id) = (Shared::clone(server), record.id.to_string());
    let write = move |output: &mut crate::call::Output| {
        let options = LogOptions { cancel: Some(output.gone.as_fd()), ..options };
        let outcome = server.engine.logs(&id, options, &mut |entry| {
            let wanted = if entry.stream == Stream::Stdout { stdout } else { stderr };
            if !wanted {
                return true;
            }
            // What log options would add to it is never anything.
            let details = if details { " " } else { "" };
            let stamp = if timestamps { format!("{} {details}", entry.time) } else { details.to_owned() };
            let length = stamp.len() + entry.bytes.len();
            let mut bytes = Vec::with_capacity(length + 8);
            if !terminal {
                bytes.extend_from_slice(&frame(number(entry.stream), length));
            }
            bytes.extend_from_slice(stamp.as_bytes());
            bytes.extend_from_slice(&entry.bytes);
            output.send(bytes).is_ok()
        });
        // The headers are sent: there is nobody to tell.
        drop(outcome);
    };
    Ok(Answer::Stream { kind: kind(terminal), headers: Vec::new(), write: Box::new(write) })
}
