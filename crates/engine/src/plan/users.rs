//! PURE: whose ids a container's are on the host.

use cata_runtime::plan::IdMapping;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::request::{CreateRequest, Isolation, NamespaceMode, NetworkMode, UserNamespace};

/// Ids of a container that gets a range of its own: those that images use, `nobody` among them.
pub const SIZE: u32 = 65536;

/// Where ranges for containers are: what systemd sets aside for them on a host
/// (<https://systemd.io/UIDS-GIDS/>), so that no user and no dynamic service has one of these ids.
const FIRST: u32 = 524_288;
const END: u32 = 1_879_048_192;

/// What users without privileges take of their ids for a container is a multiple of it, and begins at one.
pub const BLOCK: u32 = 1024;

/// First ids of the blocks that `size` ids behind the first `begin` of a user's take; `None`: he has not so many.
pub fn blocks(begin: u32, size: u32, own: Own) -> Option<impl Iterator<Item = u32> + Clone> {
    let end = begin.checked_add(size).filter(|end| *end <= own.uids.min(own.gids))?;
    Some((begin..end).step_by(BLOCK as usize).map(|at| at + 1))
}

/// How a container's ids map to the host's. For as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
    /// Files belong to the host's ids on disk, too: no mount maps them.
    #[serde(default)]
    pub on_disk: bool,
}

/// What a user without privileges has in the namespace of his commands: himself as 0, and behind him the ids that the
/// administrator gave him.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Who he is on the host.
    pub uid: u32,
    /// As which group.
    pub gid: u32,
    /// How many users come behind him.
    pub uids: u32,
    /// How many groups.
    pub gids: u32,
}

impl Users {
    /// `keep-id`: the caller is himself inside, or `kept`; all others follow in their order.
    #[must_use]
    pub fn keeping(own: Own, kept: (Option<u32>, Option<u32>)) -> Self {
        let around = |id: u32, count: u32| {
            let before = id.min(count);
            let ranges = [
                IdMapping { container: 0, host: 1, size: before },
                IdMapping { container: id, host: 0, size: 1 },
                IdMapping { container: id.saturating_add(1), host: before + 1, size: count - before },
            ];
            ranges.into_iter().filter(|range| range.size > 0).collect()
        };
        Self {
            uids: around(kept.0.unwrap_or(own.uid), own.uids),
            gids: around(kept.1.unwrap_or(own.gid), own.gids),
            on_disk: true,
        }
    }

    /// `nomap`: the caller is nobody inside.
    #[must_use]
    pub fn without(own: Own) -> Self {
        let behind = |size| vec![IdMapping { container: 0, host: 1, size }];
        Self { uids: behind(own.uids), gids: behind(own.gids), on_disk: true }
    }

    /// Everybody is himself, in a user namespace of its own.
    #[must_use]
    pub fn same() -> Self {
        Self { on_disk: true, ..Self::range(0, u32::MAX) }
    }

    /// Whether files of images must belong to other ids on disk than the image says.
    #[must_use]
    pub fn differ_on_disk(&self) -> bool {
        let differs = |ranges: &[IdMapping]| ranges.iter().any(|range| range.container != range.host);
        self.on_disk && (differs(&self.uids) || differs(&self.gids))
    }

    /// All ids up to `size` in one range.
    #[must_use]
    pub fn range(first: u32, size: u32) -> Self {
        let range = vec![IdMapping { container: 0, host: first, size }];
        Self { uids: range.clone(), gids: range, on_disk: false }
    }

    /// The largest group id that exists inside.
    #[must_use]
    pub fn last_group(&self) -> u32 {
        self.gids.iter().map(|m| m.container.saturating_add(m.size - 1)).max().unwrap_or(0)
    }

    /// An id of the host as the container sees it.
    #[must_use]
    pub fn uid_inside(&self, host: u32) -> Option<u32> {
        inside(&self.uids, host)
    }

    /// As [`Users::uid_inside`], of a group.
    #[must_use]
    pub fn gid_inside(&self, host: u32) -> Option<u32> {
        inside(&self.gids, host)
    }

    /// Root and its group, as the host sees them.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((outside(&self.uids, 0)?, outside(&self.gids, 0)?))
    }

    /// A user and a group of the container as the host sees them.
    #[must_use]
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((outside(&self.uids, uid)?, outside(&self.gids, gid)?))
    }
}

fn inside(map: &[IdMapping], host: u32) -> Option<u32> {
    map.iter().find_map(|m| host.checked_sub(m.host).filter(|at| *at < m.size).map(|at| m.container + at))
}

fn outside(map: &[IdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|m| id.checked_sub(m.container).filter(|at| *at < m.size).map(|at| m.host + at))
}

/// First ids of ranges, in the order in which a container tries them: every container begins somewhere else, so
/// that engines that know nothing of each other hardly ever meet. `reserved`: (first, count) of what others have.
pub fn candidates<'a>(seed: u64, reserved: &'a [(u32, u32)]) -> impl Iterator<Item = u32> + 'a {
    let blocks = u64::from((END - FIRST) / SIZE);
    let free = |first: &u32| {
        reserved.iter().all(|(start, count)| {
            u64::from(*start) >= u64::from(*first) + u64::from(SIZE)
                || u64::from(*start) + u64::from(*count) <= u64::from(*first)
        })
    };
    (0..blocks)
        .filter_map(move |at| u32::try_from(seed.wrapping_add(at) % blocks).ok())
        .map(|block| FIRST + block * SIZE)
        .filter(free)
}

/// A line of `/etc/subuid` or `/etc/subgid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subordinate<'t> {
    /// A user's name or number.
    pub whose: &'t str,
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What `/etc/subuid` or `/etc/subgid` says; lines that make no sense are left out, as its other readers do.
pub fn subordinate(text: &str) -> impl Iterator<Item = Subordinate<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (whose, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Subordinate { whose, first: first.trim().parse().ok()?, count: count.trim().parse().ok()? })
    })
}

/// What they give to anybody.
#[must_use]
pub fn reserved(text: &str) -> Vec<(u32, u32)> {
    subordinate(text).map(|range| (range.first, range.count)).collect()
}

/// Combinations that cannot work, and maps that make no sense, at creation.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Unsupported`].
pub fn check(request: &CreateRequest, rootless: bool) -> Result<(), Error> {
    match &request.userns {
        UserNamespace::Host => return Ok(()),
        UserNamespace::KeepId { uid: None, gid: None } => {}
        UserNamespace::KeepId { .. } | UserNamespace::NoMap if !rootless => {
            let what = if request.userns == UserNamespace::NoMap { "nomap" } else { "keep-id:uid=,gid=" };
            return Err(Error::Unsupported {
                what: format!("--userns {what} is for users without privileges"),
                hint: "as root, `--userns auto` gives the container ids of its own, and --uidmap says which"
                    .to_owned(),
            });
        }
        UserNamespace::KeepId { .. } | UserNamespace::NoMap => {}
        UserNamespace::Auto { size } => {
            if size.is_some_and(|size| size == 0 || size > SIZE) {
                return Err(Error::Invalid(format!("--userns auto: size must be between 1 and {SIZE}")));
            }
        }
        UserNamespace::Map(users) => {
            map("--uidmap", &users.uids)?;
            map("--gidmap", &users.gids)?;
        }
    }
    let conflict = |what: &str| {
        Err(Error::Unsupported {
            what: format!("{what} is not possible with a user namespace: it belongs to the host's users"),
            hint: format!("leave out {what}, or use --userns host"),
        })
    };
    if request.isolation == Isolation::Vm {
        return Err(Error::Unsupported {
            what: "--userns is not possible with --isolation vm: a virtual machine has a kernel of its own"
                .to_owned(),
            hint: "leave out --userns, or leave out --isolation vm".to_owned(),
        });
    }
    for (flag, mode) in [
        ("--pid", &request.pid),
        ("--ipc", &request.ipc),
        ("--uts", &request.uts),
        ("--cgroupns", &request.cgroupns),
    ] {
        match mode {
            NamespaceMode::Host => return conflict(&format!("{flag} host")),
            NamespaceMode::Container(name) => return conflict(&format!("{flag} container:{name}")),
            NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => {}
        }
    }
    match &request.network {
        // A user's programs have no rights over the host's network anyway.
        NetworkMode::Host if rootless => {}
        NetworkMode::Host => return conflict("--network host"),
        NetworkMode::Container(name) => return conflict(&format!("--network container:{name}")),
        NetworkMode::None | NetworkMode::Networks(_) => {}
    }
    // All that a user may do is his.
    if request.privileged && !rootless {
        return conflict("--privileged");
    }
    Ok(())
}

/// Ranges of one map do not overlap, on either side, and there is a root.
pub(crate) fn map(flag: &str, ranges: &[IdMapping]) -> Result<(), Error> {
    let invalid = |why: String| Err(Error::Invalid(format!("{flag}: {why}")));
    if ranges.len() > 340 {
        return invalid("the kernel takes 340 ranges at most".to_owned());
    }
    for range in ranges {
        let text = format!("{}:{}:{}", range.container, range.host, range.size);
        if range.size == 0 {
            return invalid(format!("range {text} is empty"));
        }
        if range.container.checked_add(range.size).is_none() || range.host.checked_add(range.size).is_none() {
            return invalid(format!("range {text} goes beyond the last id"));
        }
    }
    for (at, one) in ranges.iter().enumerate() {
        for other in &ranges[..at] {
            let meet = |a: u32, b: u32| a < b + other.size && b < a + one.size;
            if meet(one.container, other.container) || meet(one.host, other.host) {
                return invalid(format!(
                    "ranges {}:{}:{} and {}:{}:{} overlap",
                    other.container, other.host, other.size, one.container, one.host, one.size
                ));
            }
        }
    }
    if outside(ranges, 0).is_none() {
        return invalid("id 0 of the container is not mapped, and nothing could be set up in it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request::tests::request;

    fn range(container: u32, host: u32, size: u32) -> IdMapping {
        IdMapping { container, host, size }
    }

    #[test]
    fn ids_go_in_and_out() {
        let users = Users {
            uids: vec![range(0, 100_000, 1000), range(1000, 5, 1)],
            gids: vec![range(0, 200_000, 10)],
            on_disk: false,
        };
        assert_eq!(users.root(), Some((100_000, 200_000)));
        assert_eq!(users.uid_inside(5), Some(1000));
        assert_eq!(users.uid_inside(100_999), Some(999));
        assert_eq!((users.uid_inside(0), users.gid_inside(200_010)), (None, None));
        assert_eq!(users.outside(1000, 9), Some((5, 200_009)));
        assert_eq!((users.outside(0, 10), users.last_group()), (None, 9));
    }

    #[test]
    fn callers_are_kept_or_left_out() {
        let own = Own { uid: 1000, gid: 5, uids: 65536, gids: 3 };
        let kept = Users::keeping(own, (None, None));
        assert_eq!(kept.uids, [range(0, 1, 1000), range(1000, 0, 1), range(1001, 1001, 64536)]);
        // One whose number is beyond what he was given.
        assert_eq!(kept.gids, [range(0, 1, 3), range(5, 0, 1)]);
        assert_eq!((kept.uid_inside(0), kept.outside(0, 0)), (Some(1000), Some((1, 1))));
        let root = Users::keeping(own, (Some(0), Some(0)));
        assert_eq!(root.uids, [range(0, 0, 1), range(1, 1, 65536)]);
        assert!(kept.differ_on_disk() && !root.differ_on_disk() && !Users::same().differ_on_disk());
        let without = Users::without(own);
        assert_eq!((without.uids, without.gids), (vec![range(0, 1, 65536)], vec![range(0, 1, 3)]));
        for users in [kept, root, Users::without(own), Users::same()] {
            assert!(map("--uidmap", &users.uids).is_ok() && map("--gidmap", &users.gids).is_ok());
        }
        let alone = Users::keeping(Own { uids: 0, gids: 0, ..own }, (None, None));
        assert!(map("--uidmap", &alone.uids).unwrap_err().to_string().contains("id 0"));
    }

    #[test]
    fn blocks_are_as_many_as_there_are() {
        let own = Own { uid: 1000, gid: 5, uids: 5000, gids: 4096 };
        let of = |begin, size| blocks(begin, size, own).map(Iterator::collect::<Vec<_>>);
        assert_eq!(of(0, 1024), Some(vec![1]));
        assert_eq!(of(1024, 1025), Some(vec![1025, 2049]));
        assert_eq!(of(3072, 1024), Some(vec![3073]));
        assert_eq!((of(3072, 1025), of(4096, 1), of(u32::MAX, 2)), (None, None, None));
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        let refused = |ranges: &[IdMapping]| map("--uidmap", ranges).unwrap_err().to_string();
        assert!(refused(&[range(1, 100, 5)]).contains("id 0"));
        assert!(refused(&[range(0, 100, 5), range(4, 500, 1)]).contains("overlap"));
        assert!(refused(&[range(0, 100, 5), range(5, 104, 1)]).contains("overlap"));
        assert!(refused(&[range(0, 100, 0)]).contains("empty"));
        assert!(refused(&[range(0, u32::MAX - 3, 5)]).contains("last id"));
        assert!(map("--uidmap", &[range(0, 100, 5), range(5, 105, 1)]).is_ok());
    }

    #[test]
    fn what_belongs_to_the_host_is_refused_beside_it() {
        let mut asked = request();
        asked.userns = UserNamespace::Auto { size: None };
        assert!(check(&asked, false).is_ok());
        asked.network = NetworkMode::Host;
        assert!(check(&asked, false).unwrap_err().to_string().contains("--network host"));
        asked.network = NetworkMode::None;
        asked.privileged = true;
        assert!(check(&asked, false).unwrap_err().to_string().contains("--privileged"));
        asked.network = NetworkMode::Host;
        assert!(check(&asked, true).is_ok());
        asked.network = NetworkMode::None;
        asked.privileged = false;
        asked.userns = UserNamespace::NoMap;
        assert!(check(&asked, false).unwrap_err().to_string().contains("nomap"));
        assert!(check(&asked, true).is_ok());
    }

    proptest! {
        #[test]
        fn candidates_avoid_what_others_have(seed: u64, start in 0_u32..2_000_000_000, count in 0_u32..500_000_000) {
            let reserved = reserved(&format!("# no\nroot:0:1\nnobody\nuser:{start}:{count}\n"));
            prop_assert_eq!(&reserved, &[(0, 1), (start, count)]);
            for first in candidates(seed, &reserved).take(50) {
                prop_assert!((FIRST..=END - SIZE).contains(&first) && (first - FIRST).is_multiple_of(SIZE));
                let apart = u64::from(first) >= u64::from(start) + u64::from(count) || u64::from(first) + u64::from(SIZE) <= u64::from(start);
                prop_assert!(apart || count == 0);
            }
        }
    }
}
