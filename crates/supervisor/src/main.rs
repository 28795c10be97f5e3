//! the process that owns one container.

fn main() {}
