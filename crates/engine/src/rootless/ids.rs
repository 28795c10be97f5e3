//! Which ids a user without privileges has in his namespace: his own as root's, and those that the administrator
//! gave him, which `newuidmap` and `newgidmap` write for him.

use std::fs;

use cata_runtime::plan::IdMapping;
use cata_runtime::userns;
use rustix::process::{getegid, geteuid};

use crate::plan::users::{Subordinate, subordinate};

/// First ids and sizes that a user may map besides his own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges {
    /// From `/etc/subuid`.
    uids: Vec<(u32, u32)>,
    /// From `/etc/subgid`.
    gids: Vec<(u32, u32)>,
}

/// What the administrator gave this user. `None`: nothing.
fn ranges(uid: u32) -> Option<Ranges> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = account(&passwd, uid).map(|(name, _)| name);
    let of = |file: &str| given(&fs::read_to_string(file).unwrap_or_default(), name.as_deref(), uid);
    let ranges = Ranges { uids: of("/etc/subuid"), gids: of("/etc/subgid") };
    (!ranges.uids.is_empty() && !ranges.gids.is_empty()).then_some(ranges)
}

/// Name and home of an id, from the text of `/etc/passwd` or `/etc/group`.
pub(super) fn account(text: &str, uid: u32) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let known = fields.get(2)?.parse() == Ok(uid);
        known.then(|| (fields[0].to_owned(), fields.get(5).copied().unwrap_or_default().to_owned()))
    })
}

/// Those of a user, by name or by number.
fn given(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let whose = |range: &Subordinate<'_>| Some(range.whose) == name || range.whose == number;
    subordinate(text).filter(whose).map(|range| (range.first, range.count)).collect()
}

/// The user's own id is root's, the others follow.
fn mapped(own: u32, ranges: &[(u32, u32)]) -> Vec<IdMapping> {
    let mut next = 1;
    let mut list = vec![IdMapping { container: 0, host: own, size: 1 }];
    for (first, count) in ranges {
        list.push(IdMapping { container: next, host: *first, size: *count });
        next += count;
    }
    list
}

/// A map as the kernel shows it to who lives with it: whose id is 0, and how many follow.
pub(super) fn own(map: &str) -> Option<(u32, u32)> {
    let mut own = None;
    let mut next = 0;
    for line in map.lines() {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (inside, outside, count) = (fields.next()??, fields.next()??, fields.next()??);
        // As `mapped` puts them: without a gap.
        if inside != next {
            break;
        }
        own = own.or(Some(outside));
        next = inside.checked_add(count)?;
    }
    Some((own?, next - 1))
}

/// From outside: gives a process's new user namespace its ids; where it cannot have all, the user's own, and `Some`
/// says why.
pub(super) fn write(pid: i32) -> Result<Option<String>, String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let why = match ranges(uid) {
        None => "there is no range for you in /etc/subuid and /etc/subgid".to_owned(),
        Some(ranges) => {
            match userns::map_by_helpers(pid, &mapped(uid, &ranges.uids), &mapped(gid, &ranges.gids)) {
                Ok(()) => return Ok(None),
                Err(why) => why,
            }
        }
    };
    let proc = format!("/proc/{pid}");
    // What has been written by then stays.
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1\n")),
        ("gid_map", format!("0 {gid} 1\n")),
    ];
    for (file, text) in maps {
        let path = format!("{proc}/{file}");
        if file == "uid_map" && fs::read_to_string(&path).is_ok_and(|map| !map.is_empty()) {
            continue;
        }
        fs::write(&path, text).map_err(|error| format!("map user {uid}: write {path}: {error}"))?;
    }
    Ok(Some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_name_and_number_follow_the_own_id() {
        let text = "alice:700000:65536\nbob:1:2\n4242:900000:10\n# x\nalice:bad\n";
        let list = given(text, Some("alice"), 4242);
        assert_eq!(list, [(700_000, 65536), (900_000, 10)]);
        let range = |container, host, size| IdMapping { container, host, size };
        assert_eq!(
            mapped(4242, &list),
            [range(0, 4242, 1), range(1, 700_000, 65536), range(65537, 900_000, 10)]
        );
        assert!(given(text, None, 5).is_empty());
    }

    #[test]
    fn own_id_and_those_behind_it_are_read() {
        let map = "         0       1000          1\n         1     100000      65536\n     65537 9 3\n";
        assert_eq!(own(map), Some((1000, 65539)));
        assert_eq!(own("0 1000 1\n5 100000 10\n"), Some((1000, 0)));
        assert_eq!((own(""), own("1 2 3\n"), own("0 x 1\n")), (None, None, None));
    }
}
