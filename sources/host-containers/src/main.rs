//! Containers that serve the host, apart from Kubernetes.
//!
//!     host-containers reconcile        units of those that are enabled run, no others
//!     host-containers run NAME         one container, as its unit runs it
//!     host-containers bootstrap        all bootstrap containers, to their ends
//!     host-containers bootstrap NAME   one of these, as its unit runs it
//!
//! What they are is rendered from the settings, a file for each that is to run
//! ([`config`]). [`run`] brings one up and stays with it; [`spec`] is what the runtime
//! is told of it: what it sees of the host and what it may do there; [`users`] finds whom its
//! image wants it to be run as.

mod bootstrap;
mod config;
mod credentials;
mod ecr;
mod host_files;
mod reconcile;
mod run;
mod spec;
mod users;

use anyhow::{Context, bail};
use std::process::ExitCode;

fn main() -> ExitCode {
    sysutil::main_with("host-containers", || {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            ["reconcile"] => reconcile::reconcile(),
            ["run", name] => {
                let kind = config::Kind::Host;
                run::run(kind, name, &config::Config::read(kind, name)?)
                    .with_context(|| format!("host container {name}"))
                    .map(drop)
            }
            ["bootstrap"] => bootstrap::run_all(),
            ["bootstrap", name] => bootstrap::run_one(name),
            _ => bail!("usage: host-containers reconcile | run NAME | bootstrap [NAME]"),
        }
    })
}
