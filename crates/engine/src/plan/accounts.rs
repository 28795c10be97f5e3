//! PURE: lines of `/etc/passwd` and `/etc/group`.

/// Whom a container keeps, as he is inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'t> {
    /// His name on the host; empty: he has none.
    pub(crate) name: &'t str,
    /// His group's.
    pub(crate) group: &'t str,
    /// His id.
    pub(crate) uid: u32,
    /// His group's.
    pub(crate) gid: u32,
    /// Where he is at home.
    pub(crate) home: &'t str,
}

/// Nobody is at the end of all ids, and no reason to have them all.
const NOBODY: u32 = 65534;

fn lines(text: &str) -> impl Iterator<Item = (&str, Option<u32>)> {
    text.lines().map(|line| {
        let mut fields = line.split(':');
        (fields.next().unwrap_or_default(), fields.nth(1).and_then(|id| id.parse().ok()))
    })
}

/// How many ids the users or groups of a file need.
pub(crate) fn ids(text: &str) -> u32 {
    let all = lines(text).filter_map(|(_, id)| id).filter(|id| *id < NOBODY);
    all.max().map_or(1, |last| last + 1)
}

/// What may be a field: a name of the host is written into a file of the container's.
fn is_field(text: &str) -> bool {
    !text.is_empty() && !text.contains([':', '\n', '\0', '/'])
}

/// The name to be known by: his own, or, where it is taken or none, his number.
fn name(text: &str, kept: &str, id: u32) -> Option<String> {
    if lines(text).any(|(_, known)| known == Some(id)) {
        return None;
    }
    let own = is_field(kept) && !lines(text).any(|(name, _)| name == kept);
    Some(if own { kept.to_owned() } else { id.to_string() })
}

fn appended(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

/// `/etc/passwd` with a line for him; `None`: there is one for his id.
pub(crate) fn with_user(text: &str, kept: &Kept<'_>) -> Option<String> {
    let name = name(text, kept.name, kept.uid)?;
    let home = if kept.home.contains([':', '\n', '\0']) { "/" } else { kept.home };
    Some(appended(text, &format!("{name}:*:{}:{}:{name}:{home}:/bin/sh", kept.uid, kept.gid)))
}

/// `/etc/group` with a line for his group; `None`: there is one.
pub(crate) fn with_group(text: &str, kept: &Kept<'_>) -> Option<String> {
    let name = name(text, kept.group, kept.gid)?;
    Some(appended(text, &format!("{name}:x:{}:", kept.gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:\nnobody:x:65534:65534::/:\nbad\n";

    fn kept(name: &str, id: u32) -> Kept<'_> {
        Kept { name, group: name, uid: id, gid: id, home: "/work" }
    }

    #[test]
    fn who_is_kept_gets_one_line() {
        let text = with_user(TEXT, &kept("alice", 1000)).unwrap();
        assert_eq!(text, format!("{TEXT}alice:*:1000:1000:alice:/work:/bin/sh\n"));
        assert_eq!(with_user(&text, &kept("alice", 1000)), None);
        assert_eq!(with_user("a:x:1:1", &kept("b", 2)).unwrap(), "a:x:1:1\nb:*:2:2:b:/work:/bin/sh\n");
        assert_eq!(with_group("", &kept("alice", 5)).unwrap(), "alice:x:5:\n");
    }

    #[test]
    fn taken_and_impossible_names_become_numbers() {
        for name in ["www", "", "a:b", "a\nroot::0:0::/:", "../x"] {
            let text = with_user(TEXT, &kept(name, 7)).unwrap();
            assert_eq!(text.lines().last(), Some("7:*:7:7:7:/work:/bin/sh"), "{name}");
            assert_eq!(text.lines().count(), TEXT.lines().count() + 1);
        }
        assert_eq!(with_group(TEXT, &kept("www", 7)).unwrap().lines().last(), Some("7:x:7:"));
        let home = Kept { home: "/a:/b\n", ..kept("alice", 7) };
        assert!(with_user(TEXT, &home).unwrap().ends_with("alice:*:7:7:alice:/:/bin/sh\n"));
    }

    #[test]
    fn ids_are_counted_without_nobody() {
        assert_eq!((ids(TEXT), ids(""), ids("a:x:65533:0")), (34, 1, 65534));
    }
}
