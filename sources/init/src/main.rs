//! The first program of a boot: opens the verified root and switches to it.

fn main() {}
