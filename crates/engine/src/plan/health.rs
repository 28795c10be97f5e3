//! PURE: the probe: the image's health check with the request's flags laid over it.

use std::time::Duration;

use cata_sandbox::launch::HealthPlan;

use crate::error::Error;
use crate::request::HealthRequest;

/// An image's health check in Docker's form; durations in nanoseconds, 0 or absent: the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageHealth {
    /// `["CMD", …]`, `["CMD-SHELL", line]`, `["NONE"]`.
    pub test: Vec<String>,
    /// Nanoseconds.
    pub interval: u64,
    /// Nanoseconds.
    pub timeout: u64,
    /// Nanoseconds.
    pub start_period: u64,
    /// Nanoseconds.
    pub start_interval: u64,
    /// 0: the default.
    pub retries: u32,
}

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// The probe to run, if any.
///
/// # Errors
/// [`Error::Invalid`] for flags that contradict one another or an image's test of an unknown form.
pub fn plan(request: &HealthRequest, image: Option<&ImageHealth>) -> Result<Option<HealthPlan>, Error> {
    let flags = request.command.is_some()
        || !request.argv.is_empty()
        || request.interval.is_some()
        || request.timeout.is_some()
        || request.start_period.is_some()
        || request.start_interval.is_some()
        || request.retries.is_some();
    if request.disabled {
        if flags {
            return Err(Error::Invalid("--no-healthcheck conflicts with --health-* options".to_owned()));
        }
        return Ok(None);
    }
    let image = image.cloned().unwrap_or_default();
    let argv = match &request.command {
        Some(line) => shell(line),
        None if !request.argv.is_empty() => request.argv.clone(),
        None => match image.test.first().map(String::as_str) {
            None | Some("NONE") => return Ok(None),
            Some("CMD") => image.test[1..].to_vec(),
            Some("CMD-SHELL") => shell(image.test.get(1).map_or("", String::as_str)),
            Some(other) => {
                return Err(Error::Invalid(format!("health check of unknown form `{other}` in the image")));
            }
        },
    };
    if argv.is_empty() {
        return Ok(None);
    }
    let pick = |flag: Option<u64>, image: u64, default: Duration| {
        let nanos = flag.filter(|&n| n > 0).unwrap_or(image);
        if nanos == 0 { default } else { Duration::from_nanos(nanos) }
    };
    Ok(Some(HealthPlan {
        argv,
        interval: pick(request.interval, image.interval, INTERVAL),
        timeout: pick(request.timeout, image.timeout, TIMEOUT),
        start_period: pick(request.start_period, image.start_period, Duration::ZERO),
        start_interval: pick(request.start_interval, image.start_interval, START_INTERVAL),
        retries: match request.retries.filter(|&r| r > 0).unwrap_or(image.retries) {
            0 => RETRIES,
            retries => retries,
        },
        on_unhealthy: request.on_unhealthy,
    }))
}

fn shell(line: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_laid_over_the_image() {
        let image = ImageHealth {
            test: vec!["CMD".into(), "check".into()],
            interval: 5_000_000_000,
            ..ImageHealth::default()
        };
        let request = HealthRequest { retries: Some(7), ..HealthRequest::default() };
        let plan = plan(&request, Some(&image)).unwrap().unwrap();
        assert_eq!(plan.argv, ["check"]);
        assert_eq!((plan.interval.as_secs(), plan.timeout.as_secs(), plan.retries), (5, 30, 7));
    }

    #[test]
    fn none_and_no_healthcheck_disable() {
        let image = ImageHealth { test: vec!["NONE".into()], ..ImageHealth::default() };
        assert_eq!(plan(&HealthRequest::default(), Some(&image)).unwrap(), None);
        let request = HealthRequest { disabled: true, ..HealthRequest::default() };
        let image = ImageHealth { test: vec!["CMD".into(), "x".into()], ..ImageHealth::default() };
        assert_eq!(plan(&request, Some(&image)).unwrap(), None);
        let both = HealthRequest { disabled: true, retries: Some(1), ..HealthRequest::default() };
        assert!(plan(&both, None).is_err());
    }
}
