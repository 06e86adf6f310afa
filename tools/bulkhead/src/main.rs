//! The bulkhead command line.

fn main() {}
