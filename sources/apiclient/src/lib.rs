//! Client of the API: a library and the command line `apiclient`.
//!
//! [`client::Client`] sends a request over the Unix socket and gives back the
//! answer. [`cli`] turns a command line into a command, by Bottlerocket's
//! rules, and makes help, completion scripts and the reference page from one
//! table. Each command is a module of [`commands`]: its entry in the table, its
//! flags and what it does; to add one, write its module and name it there.
//!
//! The program is bind mounted into foreign containers and runs in an empty
//! root: nothing here may need a file, a locale, a user database or a name
//! service. It knows no settings, so it works with any release's server.

pub mod cli;
pub mod client;
pub mod commands;
pub mod context;
mod documents;
pub mod exec;
mod http;
mod output;
mod remote;
mod terminal;

pub use client::{Client, Error};
pub use context::Context;

use cli::Invocation;
use std::io::Write;

/// Carries a command out; gives back the exit status. Results go to `out`,
/// everything else to `err`.
pub fn run(
    invocation: &Invocation,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let client = Client::new(&invocation.socket);
    let mut context = Context::new(client, invocation.verbose, out, err);
    let status = invocation.command.run(&mut context)?;
    context.out.flush()?;
    Ok(status)
}
