//! The `taskhook` program.

fn main() {}
