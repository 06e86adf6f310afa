//! Storage, kernel and trust store configuration at boot.

fn main() {}
