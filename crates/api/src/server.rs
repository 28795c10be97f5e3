//! HTTP: connections, requests and answers. All that may wait is done on threads of its own: the engine's calls are
//! blocking ones, as they are for the command line.

use std::future::{Future as _, poll_fn};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::call::{Answer, Call, Input, Line, Output, Speaker};
use crate::refusal::{Outcome, Refusal};
use crate::route;
use crate::shared::Server;

/// The newest version of Docker's API that is spoken.
pub(crate) const NEWEST: u32 = 47;
/// The oldest one.
pub(crate) const OLDEST: u32 = 24;
/// Pieces of a body that may wait.
const WAITING: usize = 16;

/// Serves a listener until it fails, or nobody has been connected for `idle`.
pub(crate) async fn serve(
    server: Arc<Server>,
    listener: UnixListener,
    idle: Option<std::time::Duration>,
) -> io::Result<()> {
    loop {
        let accepted = match idle {
            None => listener.accept().await,
            Some(idle) => match tokio::time::timeout(idle, listener.accept()).await {
                Ok(accepted) => accepted,
                Err(_) if Arc::strong_count(&server) > 1 => continue,
                Err(_) => return Ok(()),
            },
        };
        let Ok((stream, _)) = accepted else {
            // Too many descriptors: some will be closed.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let server = Arc::clone(&server);
        let client = stream.as_fd().try_clone_to_owned();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, std::convert::Infallible>(answer(server, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // Whoever hung up knows it.
            let (mut connection, mut gone) = (pin!(connection), pin!(hung_up(client)));
            let over = poll_fn(|context| {
                let over =
                    connection.as_mut().poll(context).is_ready() || gone.as_mut().poll(context).is_ready();
                if over { Poll::Ready(()) } else { Poll::Pending }
            });
            over.await;
        });
    }
}

/// Until a client has gone for good. One that only says no more still reads: hyper must not take the one for the other,
/// and then sees neither.
async fn hung_up(client: io::Result<OwnedFd>) {
    let watched = client.and_then(|client| UnixStream::from_std(client.into()));
    let Ok(client) = watched else { return std::future::pending().await };
    while client.readable().await.is_ok() {
        let looked = client.try_io(Interest::READABLE, || {
            let mut fds = [PollFd::new(&client, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut fds, Some(&now))?;
            // What there is to read is another's: until the next news.
            if fds[0].revents().contains(PollFlags::HUP) {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        if looked.is_ok() {
            return;
        }
    }
}

/// One request.
async fn answer(server: Arc<Server>, mut request: Request<Incoming>) -> Response<Piecewise> {
    let upgrades = request.headers().get(UPGRADE).is_some();
    let upgrade = hyper::upgrade::on(&mut request);
    let outcome = match call(request) {
        Ok(call) => {
            let done = tokio::task::spawn_blocking(move || route::answer(&server, call)).await;
            done.unwrap_or_else(|error| Err(Refusal::failed(&error)))
        }
        Err(refusal) => Err(refusal),
    };
    let mut response = match outcome {
        Ok(Answer::Document(status, document)) => {
            // A newline, as Docker's encoder writes it.
            plain(status, "application/json", format!("{document}\n").into())
        }
        Ok(Answer::Text(text)) => plain(StatusCode::OK, "text/plain; charset=utf-8", text.into()),
        Ok(Answer::Empty(status)) => plain(status, "", Bytes::new()),
        Ok(Answer::Stream { kind, headers, write }) => stream(kind, headers, write),
        Ok(Answer::Hijack { .. }) if !upgrades => {
            let message = "this stream needs `Connection: Upgrade` and `Upgrade: tcp`";
            let document = json!({ "message": message });
            plain(StatusCode::BAD_REQUEST, "application/json", format!("{document}\n").into())
        }
        Ok(Answer::Hijack { kind, speak }) => {
            tokio::spawn(hand_over(upgrade, speak));
            let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, kind, Bytes::new());
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
            response
        }
        Err(refusal) => plain(
            refusal.status,
            "application/json",
            format!("{}\n", json!({ "message": refusal.message })).into(),
        ),
    };
    let headers = response.headers_mut();
    let version = HeaderValue::from_str(&format!("1.{NEWEST}"));
    headers.insert("Api-Version", version.unwrap_or_else(|_| HeaderValue::from_static("1.24")));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", HeaderValue::from_static(concat!("Catamaran/", env!("CARGO_PKG_VERSION"))));
    response
}

/// The request as the endpoints see it; its body follows as it comes.
fn call(request: Request<Incoming>) -> Outcome<Call> {
    let (head, mut body) = request.into_parts();
    let (path, version) = versioned(head.uri.path())?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => frame.into_data().map_err(|_| io::ErrorKind::InvalidData.into()),
                Err(error) => Err(io::Error::other(error)),
            };
            if sender.send(piece).await.is_err() {
                // Nobody wants the rest.
                return;
            }
        }
    });
    let query = head.uri.query().unwrap_or_default();
    Ok(Call::new((head.method, path, version), query, head.headers, Input::new(receiver)))
}

/// PURE: `/v1.41/containers/json` taken apart, as far as that version is spoken.
fn versioned(path: &str) -> Outcome<(String, u32)> {
    let Some(rest) = path.strip_prefix("/v1.") else { return Ok((path.to_owned(), NEWEST)) };
    let (minor, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let minor: u32 = minor.parse().map_err(|_| Refusal::missing("page not found"))?;
    if minor < OLDEST {
        return Err(Refusal::invalid(format!(
            "client version 1.{minor} is too old. Minimum supported API version is 1.{OLDEST}, please upgrade your client to a newer version"
        )));
    }
    if minor > NEWEST {
        return Err(Refusal::invalid(format!(
            "client version 1.{minor} is too new. Maximum supported API version is 1.{NEWEST}"
        )));
    }
    Ok((format!("/{rest}"), minor))
}

fn plain(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Piecewise> {
    let (sender, pieces) = mpsc::channel(1);
    let length = bytes.len() as u64;
    if !bytes.is_empty() {
        // There is room for one.
        let _ = sender.try_send(bytes);
    }
    let mut response = Response::new(Piecewise { pieces, length: Some(length), left: length, _gone: None });
    *response.status_mut() = status;
    if !kind.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn stream(
    kind: &'static str,
    headers: Vec<(&'static str, String)>,
    write: crate::call::Writer,
) -> Response<Piecewise> {
    let (sender, pieces) = mpsc::channel(WAITING);
    let Ok((gone, here)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "", Bytes::new());
    };
    // Not the runtime's threads, which are counted: this may last as long as a container does.
    let spawned = std::thread::Builder::new().name("stream".to_owned()).spawn(move || {
        write(&mut Output::new(sender, gone));
    });
    if spawned.is_err() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "", Bytes::new());
    }
    let mut response = Response::new(Piecewise { pieces, length: None, left: 0, _gone: Some(here) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Gives a connection to who speaks on it.
async fn hand_over(upgrade: hyper::upgrade::OnUpgrade, speak: Speaker) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() else { return };
    let Ok(socket) = parts.io.into_inner().into_std() else { return };
    let early = parts.read_buf;
    // See `stream`.
    let _ = std::thread::Builder::new().name("line".to_owned()).spawn(move || {
        if socket.set_nonblocking(false).is_ok() {
            speak(Line { socket, early });
        }
    });
}

/// A body in pieces.
struct Piecewise {
    pieces: mpsc::Receiver<Bytes>,
    /// Known from the beginning, or not.
    length: Option<u64>,
    left: u64,
    /// Closed with the body: whoever makes the pieces sees it.
    _gone: Option<OwnedFd>,
}

impl Body for Piecewise {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.pieces.poll_recv(context).map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Some(Ok(Frame::data(piece)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.length.is_some() && self.left == 0
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self.length {
            Some(_) => hyper::body::SizeHint::with_exact(self.left),
            None => hyper::body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_are_spoken() {
        assert_eq!(versioned("/v1.41/containers/json").unwrap(), ("/containers/json".to_owned(), 41));
        assert_eq!(versioned("/_ping").unwrap(), ("/_ping".to_owned(), NEWEST));
        assert_eq!(versioned("/v1.41").unwrap().0, "/");
        for (path, text) in
            [("/v1.12/info", "too old"), ("/v1.99/info", "too new"), ("/v1.x/info", "not found")]
        {
            let message = versioned(path).unwrap_err().message;
            assert!(message.contains(text), "{message}");
        }
    }
}
