//! What is wrong with a Dockerfile, and where.

use std::fmt::Write as _;

/// The result of reading and planning.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What is wrong.
    pub message: String,
    /// A way out, where one is known.
    pub hint: Option<String>,
    /// Where: the first line is 1; 0: nowhere in particular.
    pub line: usize,
    /// The words in that line that the caret points at.
    pub at: Option<String>,
}

impl Error {
    /// A fault somewhere; [`Error::on`] says where.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, line: 0, at: None }
    }

    /// With a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Pointing at these words.
    #[must_use]
    pub fn at(mut self, words: impl Into<String>) -> Self {
        self.at = Some(words.into());
        self
    }

    /// In this line, unless a more precise one is known.
    #[must_use]
    pub fn on(mut self, line: usize) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    /// `Dockerfile:3`, the line and a caret below the words; nothing without a line.
    #[must_use]
    pub fn excerpt(&self, file: &str, text: &str) -> String {
        excerpt(file, text, self.line, self.at.as_deref())
    }
}

/// The line of a file with a caret below some words of it (below all of it, if they are not there). A
/// continued instruction is looked through for the words.
#[must_use]
pub fn excerpt(file: &str, text: &str, line: usize, at: Option<&str>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let Some(mut shown) = line.checked_sub(1).and_then(|index| lines.get(index)).copied() else {
        return String::new();
    };
    let mut number = line;
    if let Some(words) = at.filter(|words| !words.is_empty())
        && let Some(offset) = lines[line - 1..].iter().take(64).position(|line| line.contains(words))
    {
        number = line + offset;
        shown = lines[number - 1];
    }
    let shown = shown.trim_end();
    let found = at.and_then(|words| shown.find(words).map(|start| (start, words)));
    let (start, words) = found.unwrap_or((shown.len() - shown.trim_start().len(), shown.trim_start()));
    let margin = number.to_string().len().max(3);
    let gap: String =
        shown[..start].chars().map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
    let carets = "^".repeat(words.chars().count().clamp(1, 100));
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:>margin$} {file}:{number}", "-->");
    let _ = writeln!(out, "{number:>margin$} | {shown}");
    let _ = writeln!(out, "{:>margin$} | {gap}{carets}", "");
    out
}

/// The known word that is nearest to a mistyped one, if near enough.
#[must_use]
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let near = |candidate: &&str| distance(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase());
    known.into_iter().min_by_key(near).filter(|candidate| near(candidate) <= 2 && candidate.len() > 2)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut left_above = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = left_above + usize::from(x != *y);
            left_above = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_points_at_the_words() {
        let text = "FROM a\nCOPY --chmdo=1 \\\n  x /y\n";
        let shown = Error::new("unknown flag").at("--chmdo").on(2).excerpt("Dockerfile", text);
        assert_eq!(shown, "--> Dockerfile:2\n  2 | COPY --chmdo=1 \\\n    |      ^^^^^^^\n");
        let shown = Error::new("no").at("x /y").on(2).excerpt("Dockerfile", text);
        assert!(shown.contains("  3 |   x /y\n    |   ^^^^\n"), "{shown}");
        assert_eq!(Error::new("nowhere").excerpt("Dockerfile", text), "");
    }

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(nearest("RUM", ["RUN", "COPY"]), Some("RUN"));
        assert_eq!(nearest("FROMAGE", ["FROM", "RUN"]), None);
    }
}
