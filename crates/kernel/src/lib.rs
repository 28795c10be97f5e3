//! Kernels to boot: what a kernel file is, which modules it needs, its initramfs, the distribution's package.
//!
//! | module | owns |
//! |---|---|
//! | [`image`] | a kernel file of any usual form → what a monitor can enter: ELF, or arm64's `Image` |
//! | [`compression`] | the compressions that kernels and modules come in |
//! | [`modules`] | a tree of modules: which are needed, in which order, without `depmod` |
//! | [`elf`] | the little of ELF that the two need |
//! | [`cpio`] | initramfs archives |
//! | [`drivers`] | the drivers that a guest cannot do without, and those it may use |
//! | [`package`] | the distribution's package, downloaded and never installed |
//!
//! All but [`package`] and the reading of [`modules`] is pure: bytes in, bytes out.

pub mod compression;
pub mod cpio;
pub mod drivers;
pub mod elf;
mod error;
pub mod image;
pub mod modules;
pub mod package;

pub use error::{Error, Result};
