//! Values to text: tables, templates, times, sizes, progress and errors.

pub(crate) mod error;
pub(crate) mod inspect;
pub(crate) mod listing;
pub(crate) mod progress;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;
