//! Exec: what was asked for is kept here until it is started; what has been started is its supervisor's, which can be
//! asked by whoever serves after this.

use std::os::fd::{AsFd as _, OwnedFd};

use cata_engine::container::exec::{ExecOptions, Session};
use cata_engine::status::StatusKind;
use hyper::StatusCode;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

use crate::call::{Answer, Call, Line};
use crate::container::attach::kind;
use crate::fields::Fields;
use crate::refusal::{Outcome, Refusal};
use crate::shared::{Exec, Server, Shared, locked};
use crate::stream::{self, Keys};

/// The most that are remembered.
const MOST: usize = 1000;

/// `POST /containers/{id}/exec`.
pub(crate) fn create(server: &Server, mut call: Call, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let view = server.engine.present(&record)?;
    match view.status.status {
        StatusKind::Running => {}
        StatusKind::Paused => {
            return Err(Refusal::conflict(format!(
                "Container {id} is paused, unpause the container before exec"
            )));
        }
        _ => return Err(Refusal::conflict(format!("Container {} is not running", record.id))),
    }
    let mut fields = Fields::new("", call.document()?)?;
    let argv = fields.list("Cmd")?;
    if argv.is_empty() {
        return Err(Refusal::invalid("No exec command specified"));
    }
    let exec = Exec {
        container: record.id.to_string(),
        attach: [fields.flag("AttachStdin")?, fields.flag("AttachStdout")?, fields.flag("AttachStderr")?],
        keys: fields.text("DetachKeys")?,
        options: ExecOptions {
            argv,
            env: fields.list("Env")?,
            user: fields.text("User")?,
            workdir: fields.text("WorkingDir")?,
            tty: fields.flag("Tty")?,
            window: None,
            privileged: fields.flag("Privileged")?,
            detach: false,
            id: None,
        },
        started: false,
        pid: 0,
        code: None,
    };
    // Said again at the start, or in the path; a terminal's size comes with the start, or later.
    fields.ignore(&["Detach", "ConsoleSize", "Container"]);
    fields.finish()?;
    let exec_id = server.engine.new_id();
    let mut execs = locked(&server.execs);
    if execs.len() >= MOST {
        execs.retain(|_, exec| exec.started && exec.code.is_none());
    }
    execs.insert(exec_id.clone(), exec);
    Ok(Answer::Document(StatusCode::CREATED, json!({ "Id": exec_id })))
}

/// `POST /exec/{id}/start`.
pub(crate) fn start(server: &Shared, mut call: Call, id: &str) -> Outcome<Answer> {
    let mut fields = Fields::new("", call.document()?)?;
    let detach = fields.flag("Detach")?;
    let size = fields.value("ConsoleSize");
    fields.ignore(&["Tty"]);
    fields.finish()?;
    let mut exec = {
        let mut execs = locked(&server.execs);
        let exec = execs.get_mut(id).ok_or_else(|| missing(id))?;
        if exec.started {
            return Err(Refusal::conflict(format!("exec {id} has already been started")));
        }
        exec.started = true;
        exec.clone()
    };
    exec.options.id = Some(id.to_owned());
    exec.options.detach = detach;
    exec.options.window = window(&size);
    if detach {
        let begun = begin(server, &exec, true);
        note(server, id, |exec| match &begun {
            Ok((session, _)) => exec.pid = session.pid,
            Err(refusal) => exec.code = Some(code(refusal)),
        });
        return begun.map(|_| Answer::Empty(StatusCode::OK));
    }
    if !server.engine.is_running(&server.engine.find(&exec.container)?)? {
        return Err(Refusal::conflict(format!("container {} is not running", exec.container)));
    }
    let terminal = exec.options.tty;
    let (server, id) = (Shared::clone(server), id.to_owned());
    // It starts when the head of the answer has been sent: some clients lose what comes together with that.
    let speak = Box::new(move |line: Line| {
        let begun = begin(&server, &exec, false);
        let (session, streams) = match begun {
            Ok(begun) => begun,
            // A command that cannot be started says so on its own stream, and has Docker's exit code.
            Err(refusal) => {
                note(&server, &id, |exec| exec.code = Some(code(&refusal)));
                return stream::say(&line, &refusal.message, !terminal);
            }
        };
        note(&server, &id, |exec| exec.pid = session.pid);
        let Ok(end) = session.as_fd().try_clone_to_owned() else { return };
        // Its exit code must be there when the client sees the stream end.
        stream::converse(line, streams, Some(end.as_fd()), || {
            // Of one whose client has detached, or has gone, the supervisor tells.
            if let Some(code) = ended(session) {
                note(&server, &id, |exec| exec.code = Some(code));
            }
        });
    });
    Ok(Answer::Hijack { kind: kind(terminal), speak })
}

/// The exit code of a command that could not be started.
fn code(refusal: &Refusal) -> i32 {
    refusal.exit_code.map_or(126, i32::from)
}

/// The exit code, if it has ended by now.
fn ended(session: Session) -> Option<i32> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let moment = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    let ready = {
        let mut fds = [PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&moment)).is_ok_and(|count| count > 0)
    };
    if ready { session.finish().ok() } else { None }
}

/// Starts it, and gives our ends of its streams.
fn begin(server: &Server, exec: &Exec, detach: bool) -> Outcome<(Session, stream::Streams)> {
    let keys = Keys::parse(exec.keys.as_deref())?;
    let failed = |error: rustix::io::Errno| Refusal::failed(&std::io::Error::from(error));
    let mut streams = stream::Streams { stdin: None, outputs: Vec::new(), terminal: exec.options.tty, keys };
    let mut theirs: [Option<OwnedFd>; 3] = [None, None, None];
    if !detach && !exec.options.tty {
        for (at, wanted) in exec.attach.into_iter().enumerate() {
            if wanted {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
                if at == 0 {
                    streams.stdin = Some(writer);
                    theirs[0] = Some(reader);
                } else {
                    streams.outputs.push((if at == 1 { 1 } else { 2 }, reader));
                    theirs[at] = Some(writer);
                }
            }
        }
    }
    let [stdin, stdout, stderr] = &theirs;
    let passed = [stdin, stdout, stderr].map(|fd| fd.as_ref().map(OwnedFd::as_fd));
    let mut session = server.engine.exec(&exec.container, exec.options.clone(), passed)?;
    drop(theirs);
    if let Some(master) = session.terminal.take() {
        if exec.attach[0] {
            streams.stdin = Some(master.try_clone()?);
        }
        streams.outputs.push((1, master));
    }
    Ok((session, streams))
}

/// `GET /exec/{id}/json`.
pub(crate) fn inspect(server: &Server, id: &str) -> Outcome<Answer> {
    let known = locked(&server.execs).get(id).cloned();
    if let Some(mut exec) = known {
        if exec.started && exec.code.is_none() {
            match server.engine.exec_state(&exec.container, id) {
                Ok((pid, code)) => (exec.pid, exec.code) = (pid, code),
                // With its container.
                Err(_) => exec.code = Some(137),
            }
        }
        return Answer::ok(document(id, &exec));
    }
    // Of a server that was here before.
    for view in server.engine.views()? {
        let container = view.record.id.to_string();
        if server.engine.is_running(&view.record)?
            && let Ok((pid, code)) = server.engine.exec_state(&container, id)
        {
            let options = ExecOptions::default();
            let exec = Exec { container, options, attach: [false; 3], keys: None, started: true, pid, code };
            return Answer::ok(document(id, &exec));
        }
    }
    Err(missing(id))
}

fn document(id: &str, exec: &Exec) -> Value {
    let (entrypoint, arguments) =
        exec.options.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    json!({
        "ID": id,
        "Running": exec.started && exec.code.is_none(),
        "ExitCode": exec.code,
        "ProcessConfig": {
            "tty": exec.options.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": exec.options.privileged,
            "user": exec.options.user,
        },
        "OpenStdin": exec.attach[0],
        "OpenStdout": exec.attach[1],
        "OpenStderr": exec.attach[2],
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": "",
        "Pid": exec.pid,
    })
}

/// `POST /exec/{id}/resize`.
pub(crate) fn resize(server: &Server, call: &Call, id: &str) -> Outcome<Answer> {
    let container =
        locked(&server.execs).get(id).map(|exec| exec.container.clone()).ok_or_else(|| missing(id))?;
    server.engine.resize_exec(&container, id, size(call)?)?;
    Ok(Answer::Empty(StatusCode::OK))
}

/// Rows and columns of a resize.
pub(crate) fn size(call: &Call) -> Outcome<(u16, u16)> {
    let number = |name: &str| {
        let number = call.number(name)?.and_then(|n| u16::try_from(n).ok());
        number.ok_or_else(|| Refusal::invalid(format!("invalid {name}")))
    };
    Ok((number("h")?, number("w")?))
}

fn window(size: &Value) -> Option<(u16, u16)> {
    let number = |at: usize| size.get(at).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
    number(0).zip(number(1)).filter(|size| *size != (0, 0))
}

fn note(server: &Server, id: &str, change: impl FnOnce(&mut Exec)) {
    if let Some(exec) = locked(&server.execs).get_mut(id) {
        change(exec);
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::missing(format!("No such exec instance: {id}"))
}
