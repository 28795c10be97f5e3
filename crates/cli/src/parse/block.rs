//! Limits of block devices: `--device-read-bps /dev/sda:1mb` and the like.

use std::path::PathBuf;

use cata_engine::request::{BlockLimit, BlockLimitKind};

use super::{ParseError, Parsed, size};

/// `--device-read-bps`.
pub(crate) fn read_bytes(text: &str) -> Parsed<BlockLimit> {
    limit(text, BlockLimitKind::ReadBytes)
}

/// `--device-write-bps`.
pub(crate) fn write_bytes(text: &str) -> Parsed<BlockLimit> {
    limit(text, BlockLimitKind::WriteBytes)
}

/// `--device-read-iops`.
pub(crate) fn read_operations(text: &str) -> Parsed<BlockLimit> {
    limit(text, BlockLimitKind::ReadOperations)
}

/// `--device-write-iops`.
pub(crate) fn write_operations(text: &str) -> Parsed<BlockLimit> {
    limit(text, BlockLimitKind::WriteOperations)
}

/// `--blkio-weight-device`.
pub(crate) fn weight(text: &str) -> Parsed<BlockLimit> {
    limit(text, BlockLimitKind::Weight)
}

fn limit(text: &str, kind: BlockLimitKind) -> Parsed<BlockLimit> {
    let invalid = |why: &str| ParseError::new(format!("'{text}': {why}"));
    let Some((device, value)) = text.rsplit_once(':') else {
        return Err(invalid("the form is <device>:<limit>"));
    };
    if !device.starts_with("/dev/") {
        return Err(invalid("the device is to be a path beneath /dev"));
    }
    let value = match kind {
        BlockLimitKind::ReadBytes | BlockLimitKind::WriteBytes => size::binary(value)
            .map_err(|_| invalid("the rate is a number of bytes, with a unit of kb, mb, or gb"))?,
        BlockLimitKind::ReadOperations | BlockLimitKind::WriteOperations => {
            value.parse().map_err(|_| invalid("the rate is a number"))?
        }
        BlockLimitKind::Weight => match value.parse() {
            Ok(weight @ 10..=1000) => weight,
            _ => return Err(invalid("the weight is a number between 10 and 1000")),
        },
    };
    Ok(BlockLimit { device: PathBuf::from(device), kind, value })
}

#[cfg(test)]
mod tests {
    use super::{read_bytes, weight, write_operations};

    #[test]
    fn parse_takes_rates_and_weights() {
        assert_eq!(read_bytes("/dev/sda:1mb").unwrap().value, 1 << 20);
        let by_id = write_operations("/dev/disk/by-id/a:b:100").unwrap();
        assert_eq!(by_id.device.to_str(), Some("/dev/disk/by-id/a:b"));
        assert_eq!(weight("/dev/sda:1000").unwrap().value, 1000);
        for bad in ["sda:1", "/dev/sda", "/dev/sda:", "/dev/sda:x", "/dev/sda:-1"] {
            assert!(read_bytes(bad).is_err() && write_operations(bad).is_err(), "{bad}");
        }
        assert!(weight("/dev/sda:9").is_err() && weight("/dev/sda:1001").is_err());
    }
}
