//! the project's own commands: demo, test, bench, build.

fn main() {}
