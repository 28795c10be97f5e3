//! `--chown`: names as the image knows them.

use std::io::Read as _;
use std::path::Path;

use cata_sys::path::Root;
use rustix::fs::OFlags;

use super::BuildError;
use crate::error::Kind;

/// Larger than any honest file of users.
const FILE_MAX: u64 = 4 << 20;

/// `user[:group]`, by names or numbers.
pub(super) fn owner(root: &Root, text: &str) -> Result<(u32, u32), BuildError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let uid = id(root, "/etc/passwd", user, "user")?;
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => id(root, "/etc/group", group, "group")?,
        // A name brings its group; a number alone is both.
        None => match user.parse::<u32>() {
            Ok(number) => number,
            Err(_) => field(root, "/etc/passwd", user, 3).unwrap_or(uid),
        },
    };
    Ok((uid, gid))
}

fn id(root: &Root, file: &str, name: &str, what: &str) -> Result<u32, BuildError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    field(root, file, name, 2).ok_or_else(|| {
        BuildError::new(
            Kind::InvalidArgument,
            format!("unable to find {what} {name}: no matching entries in {file}"),
        )
        .hint(Some(format!("the image must have the {what} before; a number needs none")))
    })
}

/// A number in the line of `name`.
fn field(root: &Root, file: &str, name: &str, at: usize) -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = root.open(Path::new(file), flags).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(fd).take(FILE_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(at)?.parse().ok()
}
