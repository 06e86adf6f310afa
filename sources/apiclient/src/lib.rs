//! Client of the API: a library and the command line `apiclient`.
//!
//! [`client::Client`] sends a request over the Unix socket and gives back the
//! answer. [`command`] turns a command line into one of a few commands, by
//! Bottlerocket's rules: global flags anywhere, help with status 2. [`run`]
//! carries a command out.
//!
//! The program is bind mounted into foreign containers and runs in an empty
//! root: nothing here may need a file, a locale, a user database or a name
//! service. It knows no settings, so it works with any release's server.

pub mod client;
pub mod command;
mod document;
mod run;

pub use client::{Client, Error};
pub use run::run;
