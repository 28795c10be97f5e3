//! Which ids a user without privileges has in his namespace: his own as root's, and those that the administrator
//! gave him, which `newuidmap` and `newgidmap` write for him.

use std::fs;
use std::process::Command;

use rustix::process::{getegid, geteuid};

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
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let of = |file: &str| given(&fs::read_to_string(file).unwrap_or_default(), name.as_deref(), uid);
    let ranges = Ranges { uids: of("/etc/subuid"), gids: of("/etc/subgid") };
    (!ranges.uids.is_empty() && !ranges.gids.is_empty()).then_some(ranges)
}

/// `name:first:count`, or the same with the user's number.
fn given(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let whose = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(whose) == name || whose == number).then_some(range)
        })
        .collect()
}

/// As `newuidmap` takes them: the user's own id is root's, the others follow.
fn words(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut next = 1;
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    for (first, count) in ranges {
        words.extend([next, *first, *count].map(|n| n.to_string()));
        next += count;
    }
    words
}

/// A map as the kernel shows it to who lives with it: whose id is 0, and how many follow.
pub(super) fn own(map: &str) -> Option<(u32, u32)> {
    let mut own = None;
    let mut next = 0;
    for line in map.lines() {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (inside, outside, count) = (fields.next()??, fields.next()??, fields.next()??);
        // As `words` puts them: without a gap.
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
        Some(ranges) => match [("newuidmap", uid, ranges.uids), ("newgidmap", gid, ranges.gids)]
            .into_iter()
            .try_for_each(|(program, own, list)| ask(program, pid, &words(own, &list)))
        {
            Ok(()) => return Ok(None),
            Err(why) => why,
        },
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

fn ask(program: &str, pid: i32, words: &[String]) -> Result<(), String> {
    match Command::new(program).arg(pid.to_string()).args(words).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error} (Debian package uidmap)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_name_and_number_follow_the_own_id() {
        let text = "alice:700000:65536\nbob:1:2\n4242:900000:10\n# x\nalice:bad\n";
        let list = given(text, Some("alice"), 4242);
        assert_eq!(list, [(700_000, 65536), (900_000, 10)]);
        let expected = ["0", "4242", "1", "1", "700000", "65536", "65537", "900000", "10"];
        assert_eq!(words(4242, &list), expected);
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
