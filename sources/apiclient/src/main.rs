//! The API's command line and client library.

fn main() {}
