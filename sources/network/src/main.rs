//! What the host needs between its network manager (networkd, which gets its
//! units from `packages/host/network`) and the programs that use the network.
//!
//! `network resolver` stays and keeps `/run/resolv.conf` in step with leases
//! and settings. It is a process of its own, not a unit that is started for each
//! event: addresses arrive in several steps, each of which would cost the start
//! of a process in the busiest part of a boot, and a change between two of them
//! could be missed.

mod resolver;

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
    /// Keep /run/resolv.conf in step with leases and settings
    Resolver,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sysutil::main_with("network", || match arguments.command {
        Command::Resolver => resolver::run(),
    })
}
