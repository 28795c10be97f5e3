//! Sizes for people, as Docker prints them: `258MB`, `1.2kB`, three or four digits.

/// Powers of 1000, three significant digits (images).
pub(crate) fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Powers of 1024, four significant digits (memory).
pub(crate) fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three or four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let suffix = units.get(unit).copied().unwrap_or_default();
    format!("{}{suffix}", significant(value, digits))
}

/// C's `%.Ng`, for values from 0 to 9999.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value >= 1000.0 {
        4
    } else if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{binary, decimal};

    #[test]
    fn decimal_is_gos_units() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (4_260_000, "4.26MB"),
            (258_600_000, "259MB"),
            (1_500_000_000, "1.5GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decimal(bytes), text);
        }
    }

    #[test]
    fn binary_has_four_digits() {
        assert_eq!(binary(25_272_000_000), "23.54GiB");
        assert_eq!(binary(512 << 20), "512MiB");
        assert_eq!(binary(1023 << 10), "1023KiB");
    }
}
