//! Programs of the host's network.
//!
//! `network configure` runs once, before networkd, on hosts whose network somebody
//! has configured.
//!
//! `network resolver` stays and keeps `/run/resolv.conf` in step with leases
//! and settings. It is a process of its own, not a unit that is started for each
//! event: addresses arrive in several steps, each of which would cost the start
//! of a process in the busiest part of a boot, and a change between two of them
//! could be missed.
//!
//! `network wait-online` ends when the network can be used, for what has to use it at
//! boot and tries but once.

mod online;
mod resolver;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "network", about = "Network services of the host")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write networkd's units from the network configuration
    Configure,
    /// Keep /run/resolv.conf in step with leases and settings
    Resolver,
    /// Wait until the network can be used, for a minute at most
    WaitOnline,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sysutil::main_with("network", || match arguments.command {
        Command::Configure => configure(),
        Command::Resolver => resolver::run(),
        Command::WaitOnline => online::wait(),
    })
}

/// A host with a broken configuration is still to be reached by the default
/// network, so the boot goes on.
fn configure() -> anyhow::Result<()> {
    match network::sources::apply(Path::new("/")) {
        Ok(Some(source)) => tracing::info!("network configured by /{source}"),
        Ok(None) => tracing::info!("default network"),
        Err(error) => sysutil::console::alarm(&format!(
            "network configuration not used, default network instead: {error:#}"
        )),
    }
    Ok(())
}
