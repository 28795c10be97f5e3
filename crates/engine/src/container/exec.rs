//! `exec` and `attach`: streams of a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_runtime::ExecRequest;
use cata_runtime::plan::WindowSize;
use cata_sandbox::client::{Attached, Client, ClientError};
use cata_sandbox::protocol::{Exec, ExecStdio, FailureKind, Streams};
use cata_sandbox::status::StatusKind;
use cata_spec::Name;

use crate::container::names;
use crate::container::wait::Waiter;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result, client_error, refused};

/// What a user can say of one more process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `-e`, as `NAME=value`.
    pub env: Vec<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// The terminal's first size: rows, columns.
    pub window: Option<(u16, u16)>,
    /// `--privileged`.
    pub privileged: bool,
    /// `-d`: nobody waits.
    pub detach: bool,
    /// By which it can be asked for; made up when absent.
    pub id: Option<String>,
}

/// A process started by exec.
#[derive(Debug)]
pub struct Session {
    client: Client,
    number: u32,
    /// As the host sees it.
    pub pid: i32,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
}

impl Session {
    /// Waits for its end; the exit code.
    ///
    /// # Errors
    /// The connection failed. A killed supervisor ends the session with 137.
    pub fn finish(mut self) -> Result<i32> {
        match self.client.finish_exec(self.number, None) {
            Ok(code) => Ok(code),
            Err(ClientError::Gone) => Ok(137),
            Err(error) => Err(client_error("exec", &error)),
        }
    }
}

impl AsFd for Session {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

impl Engine {
    /// Starts one more process in a running container. `stdio` are the caller's own descriptors, which the
    /// process gets without a copy between; `None` is `/dev/null`; all are ignored with a terminal.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run or is paused; kind `Command` when the program cannot be started.
    pub fn exec(
        &self,
        container: &str,
        options: ExecOptions,
        stdio: [Option<BorrowedFd<'_>>; 3],
    ) -> Result<Session> {
        let (record, mut client) = self.client(container)?;
        let (status, _) = self.status(&record.id)?;
        if status.status == StatusKind::Paused {
            return Err(Error::State {
                what: format!("container {} is paused, unpause the container before exec", record.name),
                hint: Some(format!("cata unpause {}", record.name)),
            });
        }
        let request = ExecRequest {
            argv: options.argv,
            env: options.env,
            user: options.user,
            cwd: options.workdir.map(Into::into),
            terminal: options.tty,
            window: options.window.map(|(rows, columns)| WindowSize { rows, columns }),
            privileged: options.privileged,
        };
        let [stdin, stdout, stderr] = stdio;
        let passed = Streams { stdin: stdin.is_some(), stdout: stdout.is_some(), stderr: stderr.is_some() };
        let (stdio, fds) = if options.tty {
            (ExecStdio::Terminal, Vec::new())
        } else {
            (ExecStdio::Passed(passed), [stdin, stdout, stderr].into_iter().flatten().collect())
        };
        let id = options.id.unwrap_or_else(|| names::random_id().to_string());
        self.tell_container(
            &record,
            &format!("exec_create: {}", request.argv.join(" ")),
            &[("execID", id.as_str())],
        );
        let exec = Exec { id, request, stdio, wait: !options.detach };
        let started = client.exec(exec, &fds).map_err(|e| not_started(&record.name, &e))?;
        Ok(Session { client, number: started.number, pid: started.pid, terminal: started.terminal })
    }

    /// A new id for something that is no container.
    #[must_use]
    pub fn new_id(&self) -> String {
        names::random_id().to_string()
    }

    /// Sets the size of a running container's terminal.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run, or has none.
    pub fn resize(&self, container: &str, (rows, columns): (u16, u16)) -> Result<()> {
        let size = WindowSize { rows, columns };
        self.client(container)?.1.resize(size).map_err(|e| client_error("resize", &e))
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// As [`Engine::resize`]; no such exec.
    pub fn resize_exec(&self, container: &str, exec: &str, (rows, columns): (u16, u16)) -> Result<()> {
        let size = WindowSize { rows, columns };
        self.client(container)?.1.resize_exec(exec, size).map_err(|e| client_error("resize", &e))
    }

    /// An exec's pid, and its exit code once it has ended.
    ///
    /// # Errors
    /// The container does not run; no such exec.
    pub fn exec_state(&self, container: &str, exec: &str) -> Result<(i32, Option<i32>)> {
        self.client(container)?.1.inspect_exec(exec).map_err(|e| client_error("inspect the exec", &e))
    }

    /// Streams of a running container, and a question about its end asked before they were handed out.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run.
    pub fn attach(&self, container: &str, streams: Streams) -> Result<(Attached, Waiter)> {
        let (record, mut client) = self.client(container)?;
        let attached = client.attach(streams).map_err(|e| match e {
            ClientError::Gone | ClientError::NotRunning(_) => Error::State {
                what: "You cannot attach to a stopped container, start it first".to_owned(),
                hint: Some(format!("cata start -a {}", record.name)),
            },
            error => refused("attach to", record.name.as_str(), &error),
        })?;
        self.tell_container(&record, "attach", &[]);
        let mut waiter = Waiter::new(client);
        waiter.ask(cata_sandbox::protocol::Until::NextExit)?;
        Ok((attached, waiter))
    }
}

/// A process that is not there counts as a command that cannot be invoked, whatever the reason.
fn not_started(container: &Name, error: &ClientError) -> Error {
    match refused("exec in", container.as_str(), error) {
        Error::Sandbox(mut foreign)
            if foreign.kind == Kind::Internal
                && matches!(error, ClientError::Failed(f) if f.kind == FailureKind::Start) =>
        {
            foreign.kind = Kind::Command(126);
            Error::Sandbox(foreign)
        }
        error => error,
    }
}
