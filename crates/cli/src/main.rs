//! flags in, text out: the cata command.

fn main() {}
