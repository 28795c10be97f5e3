//! Groups of flags that several commands share.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod list;
