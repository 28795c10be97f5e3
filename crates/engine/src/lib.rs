//! what exists: records, names, plans, volumes.
