//! Here-documents: `<<NAME`, `<<-NAME`, `<<"NAME"`.

use super::lines::Lines;
use super::words;
use crate::ast::Heredoc;
use crate::error::{Error, Result};

/// Whether a word begins a here-document: its name, whether variables are expanded, whether tabs go.
pub(super) fn mark(word: &str) -> Option<(String, bool, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let bare = ['"', '\''].iter().find_map(|quote| rest.strip_prefix(*quote)?.strip_suffix(*quote));
    let name = bare.unwrap_or(rest);
    let fits =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    fits.then(|| (name.to_owned(), bare.is_none(), chomp))
}

/// Reads the here-documents that a line asks for from the lines that follow it.
pub(super) fn read(text: &str, lines: &mut Lines<'_>) -> Result<Vec<Heredoc>> {
    let mut found = Vec::new();
    for word in words::split(text, lines.escape) {
        let Some((name, expand, chomp)) = mark(&word) else { continue };
        let mut content = String::new();
        loop {
            let Some(line) = lines.next_raw() else {
                return Err(Error::new(format!("unterminated heredoc `{name}`"))
                    .at(word)
                    .hint(format!("a line with nothing but `{name}` ends it")));
            };
            let line = if chomp { line.trim_start_matches('\t') } else { line };
            if line == name {
                break;
            }
            content.push_str(line);
            content.push('\n');
        }
        found.push(Heredoc { name, content, expand, chomp });
    }
    Ok(found)
}
