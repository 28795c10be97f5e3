//! From text to [`ast`](crate::ast): pure, and any bytes that are text are read without harm.

mod flags;
mod heredoc;
mod instruction;
mod lines;
mod words;

pub use words::json_list;

use crate::ast::{Dockerfile, Kind};
use crate::error::{Error, Result};

/// Larger than any Dockerfile that was written by hand or by a sane program.
pub const TEXT_MAX: usize = 4 << 20;

/// Reads a Dockerfile.
///
/// # Errors
/// The first fault, with its line.
pub fn parse(text: &str) -> Result<Dockerfile> {
    if text.len() > TEXT_MAX {
        return Err(Error::new(format!("the Dockerfile is larger than {TEXT_MAX} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (directives, body) = lines::directives(text)?;
    let mut file = Dockerfile { directives, ..Dockerfile::default() };
    let mut lines = lines::Lines::new(text, body, file.directives.escape);
    while let Some(line) = lines.next_logical() {
        let number = line.number;
        let instruction = instruction::read(line, &mut lines).map_err(|error| error.on(number))?;
        let first = file.instructions.iter().all(|known| matches!(known.kind, Kind::Arg(_)));
        if first && !matches!(instruction.kind, Kind::From(_) | Kind::Arg(_)) {
            return Err(Error::new("no build stage in current context")
                .hint("a Dockerfile begins with FROM; only ARG may stand in front of it")
                .at(instruction.keyword.clone())
                .on(number));
        }
        file.instructions.push(instruction);
    }
    file.oddities = lines.oddities;
    if !file.instructions.iter().any(|instruction| matches!(instruction.kind, Kind::From(_))) {
        return Err(Error::new("the Dockerfile has no build stage").hint("it begins with `FROM image`"));
    }
    Ok(file)
}

/// Reads one instruction, as an ONBUILD trigger holds it: its first line, then here-documents.
///
/// # Errors
/// As [`parse`].
pub fn parse_trigger(text: &str, escape: char) -> Result<crate::ast::Instruction> {
    let mut lines = lines::Lines::new(text, 0, escape);
    let line = lines.next_logical().ok_or_else(|| Error::new("an empty ONBUILD trigger"))?;
    instruction::read(line, &mut lines)
}

#[cfg(test)]
mod tests;
