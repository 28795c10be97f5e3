//! Blobs and manifests to a registry.

use std::io::{self, Read};
use std::time::Duration;

use cata_spec::Digest;
use ureq::http::{Method, StatusCode, header};

use super::client::{Ask, Client, Payload, join};
use crate::error::{Error, RegistryError};
use crate::progress::{Event, Progress};
use crate::store::Store;

/// Attempts at one blob.
const ATTEMPTS: u32 = 4;
/// Bodies from this size on are announced first.
const EXPECT_FROM: u64 = 1 << 20;
/// One request of an upload in pieces: below the 1 MB that nginx allows unless told otherwise.
const PIECE: u64 = 768 << 10;

/// How a blob got to the registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Existed,
    Mounted(String),
    Uploaded,
}

/// Brings a blob to the registry unless it is there; `others` are repositories it may be mounted from.
pub(crate) fn blob(
    client: &Client,
    store: &Store,
    digest: &Digest,
    others: &[String],
    pause: Duration,
    progress: &dyn Progress,
) -> Result<Sent, Error> {
    let path = client.path(&format!("blobs/{digest}"));
    let mut attempt = 1;
    loop {
        let tried = once(client, store, digest, &path, others, progress);
        match tried {
            Err(Error::Registry(error)) if attempt < ATTEMPTS && is_transient(&error) => {
                attempt += 1;
                progress.event(Event::Retrying { digest: *digest, attempt, reason: error.to_string() });
                std::thread::sleep(pause * 2u32.pow(attempt - 1));
            }
            other => return other,
        }
    }
}

fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } => true,
        // 404: the upload's session is gone.
        RegistryError::Status { status, .. } => matches!(status, 404 | 408 | 429 | 500 | 502..=504),
        _ => false,
    }
}

fn once(
    client: &Client,
    store: &Store,
    digest: &Digest,
    path: &str,
    others: &[String],
    progress: &dyn Progress,
) -> Result<Sent, Error> {
    let head = client.send(Ask::new(Method::HEAD, path))?;
    if head.status() == StatusCode::OK {
        return Ok(Sent::Existed);
    }
    let mut location = None;
    for other in others {
        let target = client.path(&format!("blobs/uploads/?mount={digest}&from={other}"));
        let response = client.send(Ask { payload: Payload::Bytes(&[]), ..Ask::new(Method::POST, target) })?;
        match response.status() {
            StatusCode::CREATED => return Ok(Sent::Mounted(other.clone())),
            // Not mounted, but an upload was opened in its place.
            StatusCode::ACCEPTED => {
                location = location_of(&response);
                break;
            }
            _ => {}
        }
    }
    let location = match location {
        Some(location) => absolute(client, location),
        None => open_upload(client)?,
    };
    let (file, size) = store.open_blob(digest)?;
    let mut reader = Counted { file, sent: 0, digest: *digest, progress };
    let mut ask = Ask {
        payload: Payload::Stream(&mut reader, size),
        ..Ask::new(Method::PUT, finish(&location, digest))
    }
    .header("Content-Type", "application/octet-stream");
    if size > EXPECT_FROM {
        // Who refuses so much says so before it is sent.
        ask = ask.header("Expect", "100-continue");
    }
    let response = client.send(ask)?;
    match response.status() {
        StatusCode::CREATED => Ok(Sent::Uploaded),
        // Something between us and the registry has a limit for one request: in pieces, then.
        StatusCode::PAYLOAD_TOO_LARGE => {
            let (file, size) = store.open_blob(digest)?;
            let mut reader = Counted { file, sent: 0, digest: *digest, progress };
            let location = open_upload(client)?;
            in_pieces(client, location, digest, &mut reader, size)
        }
        _ => Err(client.unexpected(&format!("PUT {path}"), response).into()),
    }
}

/// Opens an upload; where it goes on.
fn open_upload(client: &Client) -> Result<String, RegistryError> {
    let target = client.path("blobs/uploads/");
    let response =
        client.send(Ask { payload: Payload::Bytes(&[]), ..Ask::new(Method::POST, target.as_str()) })?;
    match response.status() {
        StatusCode::ACCEPTED => next_location(client, &response),
        StatusCode::FORBIDDEN => Err(client.forbidden()),
        _ => Err(client.unexpected(&format!("POST {target}"), response)),
    }
}

/// Uploads a blob as a chain of PATCH requests, each of [`PIECE`] bytes.
fn in_pieces(
    client: &Client,
    mut location: String,
    digest: &Digest,
    reader: &mut Counted<'_>,
    size: u64,
) -> Result<Sent, Error> {
    let mut begin = 0;
    while begin < size {
        let length = PIECE.min(size - begin);
        let mut piece = reader.by_ref().take(length);
        let ask = Ask {
            payload: Payload::Stream(&mut piece, length),
            ..Ask::new(Method::PATCH, location.as_str())
        }
        .header("Content-Type", "application/octet-stream")
        .header("Content-Range", format!("{begin}-{}", begin + length - 1));
        let response = client.send(ask)?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(client.unexpected("PATCH of an upload", response).into());
        }
        location = next_location(client, &response)?;
        begin += length;
    }
    let ask = Ask { payload: Payload::Bytes(&[]), ..Ask::new(Method::PUT, finish(&location, digest)) };
    let response = client.send(ask)?;
    match response.status() {
        StatusCode::CREATED => Ok(Sent::Uploaded),
        _ => Err(client.unexpected("PUT at the end of an upload", response).into()),
    }
}

/// The address that ends an upload.
fn finish(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

fn next_location(client: &Client, response: &Answer) -> Result<String, RegistryError> {
    let location = location_of(response).ok_or_else(|| client.unreachable("the upload has no location"))?;
    Ok(absolute(client, location))
}

/// A location as a path of the registry or a whole address.
fn absolute(client: &Client, location: String) -> String {
    if location.starts_with('/') { location } else { join(&client.base(), &location).unwrap_or(location) }
}

type Answer = ureq::http::Response<ureq::Body>;

fn location_of(response: &Answer) -> Option<String> {
    Some(response.headers().get(header::LOCATION)?.to_str().ok()?.to_owned())
}

/// Puts a manifest under `selector` (tag or digest).
pub(crate) fn manifest(
    client: &Client,
    selector: &str,
    media_type: &str,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let path = client.path(&format!("manifests/{selector}"));
    let ask = Ask { payload: Payload::Bytes(bytes), ..Ask::new(Method::PUT, path.as_str()) }
        .header("Content-Type", media_type);
    let response = client.send(ask)?;
    match response.status() {
        StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
        StatusCode::FORBIDDEN => Err(client.forbidden()),
        _ => Err(client.unexpected(&format!("PUT {path}"), response)),
    }
}

/// Tells how much was sent.
struct Counted<'p> {
    file: std::fs::File,
    sent: u64,
    digest: Digest,
    progress: &'p dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.sent += n as u64;
        self.progress.event(Event::Uploaded { digest: self.digest, bytes: self.sent });
        Ok(n)
    }
}
