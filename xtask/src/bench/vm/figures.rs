//! Rows of figures, and the table that they become.

use std::fmt;

/// A round's figures, one for each column.
pub(super) type Row = Vec<f64>;

/// Whose figures the others' ratios are to.
pub(super) const OURS: &str = "cata-vmm";

/// The rounds of several hypervisors.
#[derive(Debug)]
pub(super) struct Figures {
    columns: Vec<String>,
    rows: Vec<(String, Vec<Row>)>,
}

impl Figures {
    pub(super) fn new<S: ToString>(columns: &[S]) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub(super) fn add(&mut self, name: &str, row: Row) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, rounds)) => rounds.push(row),
            None => self.rows.push((name.to_owned(), vec![row])),
        }
    }
}

/// Rows in one line.
pub(super) fn plain(rows: &[Row]) -> String {
    let row = |row: &Row| row.iter().map(|value| figure(*value)).collect::<Vec<_>>().join(" ");
    rows.iter().map(row).collect::<Vec<_>>().join(" | ")
}

fn figure(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { 0 };
    format!("{value:.digits$}")
}

fn median(rounds: &[Row], column: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().filter_map(|row| row.get(column).copied()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | {} |", self.columns.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.columns.len()))?;
        let ours = self.rows.iter().find(|(name, _)| name == OURS).map(|(_, rounds)| rounds);
        for (name, rounds) in &self.rows {
            write!(f, "| {name} |")?;
            for column in 0..self.columns.len() {
                let value = median(rounds, column);
                write!(f, " {}", figure(value))?;
                if let Some(ours) = ours {
                    write!(f, " (× {:.2})", value / median(ours, column))?;
                }
                write!(f, " |")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_medians_and_their_ratios_to_ours() {
        let mut figures = Figures::new(&["a", "b"]);
        for (name, row) in [("y", [3.0, 10.0]), (OURS, [1.0, 20.0]), (OURS, [2.0, 20.0]), (OURS, [9.0, 20.0])]
        {
            figures.add(name, row.to_vec());
        }
        let text = figures.to_string();
        assert!(text.contains("| cata-vmm | 2.00 (× 1.00) | 20 (× 1.00) |"), "{text}");
        assert!(text.contains("| y | 3.00 (× 1.50) | 10 (× 0.50) |"), "{text}");
    }
}
