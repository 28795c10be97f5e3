//! Columns, as Go's tabwriter sets them: as wide as the widest cell and three spaces, at least ten.

/// Lines of tab separated cells to aligned columns. The last cell of a line is not padded.
pub(crate) fn align(lines: &[String], min_width: usize, padding: usize) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            if column == widths.len() {
                widths.push(0);
            }
            // The last cell does not widen its column.
            if column + 1 < row.len() {
                let width = widths.get_mut(column).expect("pushed above");
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let width = (widths.get(column).copied().unwrap_or_default() + padding).max(min_width);
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

/// Docker's own settings.
pub(crate) fn docker(lines: &[String]) -> String {
    align(lines, 10, 3)
}

/// The first `width` characters, the last of them `…` when something was cut off.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::{docker, ellipsis};

    #[test]
    fn docker_pads_with_three_spaces() {
        let lines =
            ["CONTAINER ID\tIMAGE\tNAMES", "0123456789ab\tpostgres:15-bookworm\tpg"].map(str::to_owned);
        insta::assert_snapshot!(docker(&lines), @r"
        CONTAINER ID   IMAGE                  NAMES
        0123456789ab   postgres:15-bookworm   pg
        ");
    }

    #[test]
    fn ellipsis_counts_itself() {
        assert_eq!(ellipsis("docker-entrypoint.sh", 20), "docker-entrypoint.sh");
        assert_eq!(ellipsis("docker-entrypoint.sh x", 20), "docker-entrypoint.s…");
    }
}
