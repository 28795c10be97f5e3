//! A file from an address of the web: no registry, and no credentials but those that are given for it. Builds take
//! sources from there.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::{StatusCode, header};

use crate::registry::web_agent;

/// A connection on which nothing moves for so long has failed.
const STALL: Duration = Duration::from_secs(60);

/// Why an address gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody there, no such address, a broken connection.
    #[error("cannot fetch {url}")]
    Unreachable {
        /// The address.
        url: String,
        /// The failure.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server's answer.
    #[error("cannot fetch {url}: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// `404 Not Found`.
        status: StatusCode,
    },
    /// The system's certificates, or a proxy that is none.
    #[error("cannot fetch {url}")]
    Setup {
        /// The address.
        url: String,
        /// The failure.
        #[source]
        source: crate::RegistryError,
    },
}

/// What is known of the file already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The server's name for this version.
    pub etag: Option<String>,
    /// When it was changed, in the server's words.
    pub last_modified: Option<String>,
}

/// The answer.
pub enum Fetched {
    /// It is what is known.
    Unchanged,
    /// A file.
    File(Download),
}

/// A file that is coming.
pub struct Download {
    /// To ask with the next time.
    pub known: Known,
    /// Its content.
    pub body: Box<dyn Read + Send>,
}

/// Asks for a file; follows redirects. `authorization` is said to this host alone.
///
/// # Errors
/// See [`FetchError`].
pub fn fetch(url: &str, known: &Known, authorization: Option<&str>) -> Result<Fetched, FetchError> {
    let agent = web_agent(url, STALL).map_err(|source| FetchError::Setup { url: url.to_owned(), source })?;
    let mut request = agent.get(url);
    if let Some(etag) = &known.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(at) = &known.last_modified {
        request = request.header(header::IF_MODIFIED_SINCE, at);
    }
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let response = request
        .call()
        .map_err(|source| FetchError::Unreachable { url: url.to_owned(), source: Box::new(source) })?;
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED {
        return Ok(Fetched::Unchanged);
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status { url: url.to_owned(), status });
    }
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let known = Known { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) };
    let body = Box::new(response.into_body().into_reader());
    Ok(Fetched::File(Download { known, body }))
}

/// A date as servers write it, `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for anything else.
#[must_use]
pub fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let number = |text: Option<&str>| text?.parse::<u64>().ok();
    let day = number(words.next()).filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)?;
    let year = number(words.next()).filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.splitn(3, ':');
    let mut part = |below| number(clock.next()).filter(|part| *part < below);
    let (hour, minute, second) = (part(24)?, part(60)?, part(61)?);
    // Days by eras that begin on 1 March, as leap days end their years then.
    let month = u64::try_from(month).ok()?;
    let (shifted, year) = if month < 2 { (month + 10, year - 1) } else { (month - 2, year) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (shifted * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_a_server_is_read_and_anything_else_is_none() {
        let at = |text| http_date(text).map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(at("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(at("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for wrong in ["", "yesterday", "Sun, 06 Nov 1994", "Sun, 06 Nov 1960 08:49:37 GMT", "Sun, x y z"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
