//! KVM's own objects. The fenced place for calls that the compiler cannot check: lending memory to a guest,
//! a processor's signal mask, descriptors of crates that know no borrowing, a tap's settings.

pub(crate) mod fd;
pub(crate) mod prefault;
pub(crate) mod signal;
pub(crate) mod tap;
pub(crate) mod vm;
