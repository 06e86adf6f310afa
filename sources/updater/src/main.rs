//! `updater`; its library says what it does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use api_types::{UPDATE_ANSWER, UpdateAnswer, UpdateCommand};
use boot_slots::layout::Role;
use clap::{Parser, Subcommand};
use system_config::esp::Esp;
use system_config::image::Image;
use updater::commands::{Ended, Host};
use updater::connect::Connector;
use updater::slot::Disk;

#[derive(Parser)]
#[command(name = "updater", about = "Updates the host")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look for updates
    Refresh,
    /// Put the chosen update into the other slot
    Prepare,
    /// Make the prepared update boot next
    Activate,
    /// Do not boot the prepared update next
    Deactivate,
    /// Bring what is told about updates up to date after a boot
    Settle,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sysutil::main_with("updater", || run(&arguments.command))
}

fn run(command: &Command) -> Result<()> {
    let image = Image::running()?;
    let host = Host {
        root: PathBuf::from("/"),
        disk: RunningDisk,
        connector: Connector::of_host(Path::new("/")),
        version: image.version,
        root_hash: image.root,
        has_right_clock: sysutil::sys::clock_is_synchronised(),
    };
    let command = match command {
        Command::Refresh => UpdateCommand::Refresh,
        Command::Prepare => UpdateCommand::Prepare,
        Command::Activate => UpdateCommand::Activate,
        Command::Deactivate => UpdateCommand::Deactivate,
        Command::Settle => return host.settle(),
    };
    let begun = |admitted: Result<(), &updater::state::Refusal>| {
        let answer = match admitted {
            Ok(()) => UpdateAnswer::Begun,
            Err(refusal) => UpdateAnswer::Refused {
                status: refusal.http_status(),
                why: refusal.to_string(),
            },
        };
        let json = serde_json::to_vec(&answer).context("writing down the answer")?;
        sysutil::fs::write_atomic(&host.root.join(UPDATE_ANSWER), &json, 0o600)?;
        // Whoever started the unit waits for this.
        sysutil::notify::ready()
    };
    match host.run(command, begun)? {
        Ok(Ended::Done) => Ok(()),
        Ok(Ended::Failed(error)) => Err(error),
        // The answer has it.
        Err(_) => Ok(()),
    }
}

/// The disk that the root lies on.
struct RunningDisk;

impl Disk for RunningDisk {
    fn partition(&self, role: Role) -> Result<File> {
        let (file, _) = system_config::open_partition(role)?;
        Ok(file)
    }

    fn with_esp<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let esp = Esp::mount()?;
        let done = work(esp.path())?;
        esp.unmount()?;
        Ok(done)
    }
}
