//! Resolver, hostname and network state.

fn main() {}
