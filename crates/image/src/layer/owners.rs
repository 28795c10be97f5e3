//! Whose files are, where the ids on disk are not those of streams.

use crate::store::Hasher;

/// Whose the ids of a tree are: those in streams are "inside", those on disk "outside". Without ranges they are the
/// same.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// User ids.
    pub uids: Vec<OwnerRange>,
    /// Group ids.
    pub gids: Vec<OwnerRange>,
}

/// Ids that follow each other on both sides.
#[derive(Debug, Clone, Copy)]
pub struct OwnerRange {
    /// The first one in streams.
    pub inside: u32,
    /// The first one on disk.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Who owns what belongs to nobody that can be named: the kernel's `overflowuid`.
const NOBODY: u32 = 65534;

impl Owners {
    /// The same for the same ranges, and short: a part of a file's name.
    pub(crate) fn key(&self) -> String {
        let mut hasher = Hasher::new();
        for ranges in [&self.uids, &self.gids] {
            for range in ranges {
                hasher.update(format!("{}:{}:{} ", range.inside, range.outside, range.count).as_bytes());
            }
            hasher.update(b"/");
        }
        hasher.finish().hex()[..16].to_owned()
    }

    /// As a stream says it; what cannot be said belongs to nobody.
    pub(crate) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |ranges: &[OwnerRange], id: u32| {
            let found =
                |r: &OwnerRange| id.checked_sub(r.outside).filter(|at| *at < r.count).map(|at| r.inside + at);
            if ranges.is_empty() { id } else { ranges.iter().find_map(found).unwrap_or(NOBODY) }
        };
        (find(&self.uids, uid), find(&self.gids, gid))
    }

    /// As it is on disk; `None` for ids that are not there.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let find = |ranges: &[OwnerRange], id: u32| {
            let found =
                |r: &OwnerRange| id.checked_sub(r.inside).filter(|at| *at < r.count).map(|at| r.outside + at);
            if ranges.is_empty() { Some(id) } else { ranges.iter().find_map(found) }
        };
        Some((find(&self.uids, uid)?, find(&self.gids, gid)?))
    }
}
