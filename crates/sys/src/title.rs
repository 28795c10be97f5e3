//! What `ps` and `/proc/<pid>/cmdline` show of this process.

use rustix::io::Errno;

/// Where the kernel put this program's arguments: they lie there for the whole life of the process, and
/// copies of it have them at the same place.
#[derive(Debug, Clone, Copy)]
pub struct Title {
    start: usize,
    length: usize,
}

impl Title {
    /// Asks `/proc`.
    ///
    /// # Errors
    /// `ENOENT` without `/proc`; `EINVAL` when it does not tell.
    pub fn find() -> Result<Self, Errno> {
        let text = std::fs::read_to_string("/proc/self/stat")
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        // The name, in parentheses, may hold anything; the third field follows it. These are 48 and 49.
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = after_name.split_ascii_whitespace().skip(48 - 3).map(str::parse::<usize>);
        match (fields.next(), fields.next()) {
            (Some(Ok(start)), Some(Ok(end))) if start != 0 && end > start => {
                Ok(Self { start, length: end - start })
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Puts one word, cut to the room there is, in place of all arguments.
    pub fn replace(self, word: &str) {
        // What is left stays zero, at least one byte of it: the end of the text.
        let word = &word.as_bytes()[..word.len().min(self.length - 1)];
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
        // SAFETY: the kernel mapped these bytes readable and writable for the arguments of this program, and
        // nobody holds a reference into them: the C library and `std::env` copy them, by pointer, when asked.
        unsafe { place.write_bytes(0, self.length) };
        // SAFETY: as above; the word is not longer than the room.
        unsafe { place.copy_from_nonoverlapping(word.as_ptr(), word.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_as_large_as_the_arguments() {
        let arguments = std::fs::read("/proc/self/cmdline").expect("cmdline");
        assert_eq!(Title::find().expect("a place").length, arguments.len());
    }
}
