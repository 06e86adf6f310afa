//! Program of what a host tells about itself when it is asked to: the support
//! bundle, the health ping and the node report. One unit each runs it.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "diagnostics", about = "Tells how the host is")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put together what is needed to understand a problem of this host
    SupportBundle,
    /// Tell the collector in the settings that the host is up
    HealthPing {
        /// What is the occasion
        event: String,
    },
    /// Find out what keeps the node from its work
    NodeReport,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sysutil::main_with("diagnostics", || match arguments.command {
        Command::SupportBundle => diagnostics::bundle::make(),
        Command::HealthPing { event } => diagnostics::health_ping::run(&event),
        Command::NodeReport => diagnostics::node::check(),
    })
}
