//! Users and groups as images name them, looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! Pure: the texts are read by whoever holds the container's root.

use serde::{Deserialize, Serialize};

/// Who a process runs as, before it was looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserSpec {
    /// Numbers, taken as they are.
    Ids {
        /// User.
        uid: u32,
        /// Primary group.
        gid: u32,
        /// Further groups.
        groups: Vec<u32>,
    },
    /// Docker's form, looked up in the container.
    Named {
        /// `user`, `uid`, `user:group`, `uid:gid`, …; empty: root.
        user: String,
        /// `--group-add`: names or numbers.
        groups: Vec<String>,
    },
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups; the primary is among them, as Docker does it, so that a negative entry of an
    /// access list cannot be escaped by dropping it.
    pub groups: Vec<u32>,
    /// From `/etc/passwd`.
    pub home: Option<String>,
}

/// Why a user is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number that is no id.
    #[error("{0} is out of range: ids go from 0 to 2147483647")]
    Range(String),
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _gecos = fields.next();
        Some(Account { name, uid, gid, home: fields.next().unwrap_or_default() })
    })
}

fn group_entries(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Finds out who `spec` means, given the texts of the container's `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// [`UserError`] naming the user or group that does not exist.
pub fn resolve(spec: &UserSpec, passwd: &str, group: &str) -> Result<Identity, UserError> {
    match spec {
        UserSpec::Ids { uid, gid, groups } => {
            let home = accounts(passwd).find(|a| a.uid == *uid).map(|a| a.home.to_owned());
            Ok(Identity { uid: *uid, gid: *gid, groups: groups.clone(), home })
        }
        UserSpec::Named { user, groups } => named(user, groups, passwd, group),
    }
}

fn named(text: &str, extra: &[String], passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user)?;
    // A number that happens to be a name is a number: Docker's order.
    let account = accounts(passwd).find(|a| number.map_or(a.name == user, |uid| a.uid == uid));
    let uid = match (&account, number) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let mut groups = Vec::new();
    let gid = if wanted_group.is_empty() {
        if let Some(account) = &account {
            let member = |g: &Group<'_>| g.members.split(',').any(|m| m.trim() == account.name);
            groups.extend(group_entries(group).filter(member).map(|g| g.gid));
        }
        account.as_ref().map_or(0, |a| a.gid)
    } else {
        group_id(wanted_group, group)?
    };
    for name in extra {
        groups.push(group_id(name, group)?);
    }
    groups.insert(0, gid);
    let mut seen = Vec::with_capacity(groups.len());
    groups.retain(|g| {
        !seen.contains(g) && {
            seen.push(*g);
            true
        }
    });
    Ok(Identity { uid, gid, groups, home: account.map(|a| a.home.to_owned()) })
}

fn group_id(text: &str, group: &str) -> Result<u32, UserError> {
    if let Some(gid) = id(text)? {
        return Ok(gid);
    }
    let found = group_entries(group).find(|g| g.name == text).map(|g| g.gid);
    found.ok_or_else(|| UserError::NoGroup(text.to_owned()))
}

/// `Ok(None)`: not a number, so it must be a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if i32::try_from(number).is_ok() => Ok(Some(number)),
        _ => Err(UserError::Range(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment:x:1:1::/:/x\nbroken\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n42:x:7:8::/seven:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\naudio:x:29: app ,x\n";

    fn who(user: &str, groups: &[&str]) -> Result<Identity, UserError> {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        resolve(&UserSpec::Named { user: user.to_owned(), groups }, PASSWD, GROUP)
    }

    fn ids(user: &str, groups: &[&str]) -> (u32, u32, Vec<u32>) {
        let identity = who(user, groups).unwrap();
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn user_forms_follow_docker() {
        assert_eq!(ids("", &[]), (0, 0, vec![0, 10]));
        assert_eq!(ids("app", &[]), (1000, 1001, vec![1001, 10, 29]));
        assert_eq!(ids("1000", &[]), (1000, 1001, vec![1001, 10, 29]));
        assert_eq!(ids("app:wheel", &[]), (1000, 10, vec![10]));
        assert_eq!(ids("app:5", &[]), (1000, 5, vec![5]));
        assert_eq!(ids("5000", &[]), (5000, 0, vec![0]));
        assert_eq!(ids("5000:6000", &["audio", "77", "6000"]), (5000, 6000, vec![6000, 29, 77]));
    }

    #[test]
    fn a_number_is_an_id_even_if_it_is_somebodys_name() {
        assert_eq!(ids("42", &[]).0, 42);
    }

    #[test]
    fn unknown_names_are_told() {
        assert_eq!(who("ghost", &[]), Err(UserError::NoUser("ghost".into())));
        assert_eq!(who("app:ghosts", &[]), Err(UserError::NoGroup("ghosts".into())));
        assert_eq!(who("app", &["ghosts"]), Err(UserError::NoGroup("ghosts".into())));
        assert_eq!(who("4294967295", &[]), Err(UserError::Range("4294967295".into())));
    }

    #[test]
    fn home_comes_from_passwd() {
        assert_eq!(who("app", &[]).unwrap().home.as_deref(), Some("/home/app"));
        assert_eq!(who("5000", &[]).unwrap().home, None);
        let spec = UserSpec::Ids { uid: 1000, gid: 1, groups: vec![] };
        assert_eq!(resolve(&spec, PASSWD, "").unwrap().home.as_deref(), Some("/home/app"));
    }
}
