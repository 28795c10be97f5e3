//! `import`: a tar of a root file system becomes an image of one layer.
//!
//! The layer is kept compressed (as it came, or gzip if it came plain): an imported image is a base that
//! is pushed and saved, and compressing happens in a thread beside the unpacking of the same bytes.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use cata_spec::Platform;
use cata_spec::image::{ContainerConfig, Descriptor, History, ImageConfig, RootFs};

use crate::archive::ingest::{self, Plain};
use crate::archive::instruction;
use crate::error::{ArchiveError, Error};
use crate::layer::unpack::read_chunk;
use crate::request::{CommitRequest, Image, ImportRequest};
use crate::store::Store;

/// Makes an image of a tar stream.
///
/// # Errors
/// A `--change` that makes no sense (before anything is read); a damaged or hostile stream; no space.
pub fn import(
    store: &Store,
    source: &mut (dyn Read + Send),
    request: &ImportRequest,
) -> Result<Image, Error> {
    let mut run = ContainerConfig::default();
    for change in &request.changes {
        instruction::apply(change, &mut run)?;
    }
    store.clear_leftovers()?;
    let made = make(store, source, request, run);
    if made.is_err() {
        // A whole layer whose image could not be written.
        let _ = store.collect_garbage();
    }
    made
}

fn make(
    store: &Store,
    source: &mut (dyn Read + Send),
    request: &ImportRequest,
    run: ContainerConfig,
) -> Result<Image, Error> {
    let _lease = store.lease()?;
    let layer = ingest::layer(store, Plain::Compress, || {
        read_chunk(source).map_err(|e| ArchiveError::Read(e).into())
    })?;
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let created = rfc3339(SystemTime::now());
    let config = ImageConfig {
        created: Some(created.clone()),
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        comment: request.message.clone(),
        config: run,
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        history: vec![History {
            created: Some(created),
            comment: Some(request.message.clone().unwrap_or_else(|| "Imported from -".to_owned())),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    let layers = vec![Descriptor::new(layer.media_type, layer.digest, layer.size)];
    store.seal_layers(&[layer.diff_id])?;
    let names = request.reference.iter().cloned().collect();
    crate::commit(
        store,
        &CommitRequest { config, layers, names, annotations: Default::default(), docker: false },
    )
}

/// A time as Docker writes it.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Civil date from days since 1970, by eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_docker_does() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000000Z");
    }
}
