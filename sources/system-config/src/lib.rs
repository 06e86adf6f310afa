//! Configures the system around the services: storage before anything else
//! can be written, ephemeral storage and bootstrap commands, host name, trust store, kernel parameters, huge pages and
//! lockdown once settings are known, and the judgement at the end whether this boot was a good one.
//!
//! One program with a subcommand per unit (`packages/host/units`), so that a
//! boot brings one file into memory. Each subcommand is a module with a `run`;
//! [`storage`] and [`health`] are the ones with something to decide. Settings
//! reach them as files below `/etc` that the API server renders. The updater uses
//! [`open_partition`], [`esp`] and [`image`], too.

mod bootstrap_commands;
mod ca_bundle;
mod disks;
mod emergency;
mod ephemeral;
pub mod esp;
mod health;
mod hostname;
mod hugepages;
pub mod image;
mod kernel_parameters;
mod kubelet_managers;
mod lockdown;
mod power_button;
mod storage;

pub use storage::open_partition;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "system-config", about = "Configures the system at boot")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Grow, make, repair and mount the state and data partitions
    Storage,
    /// Make and mount ephemeral storage, as the API server asks
    EphemeralStorage,
    /// Run the bootstrap commands of the settings
    BootstrapCommands,
    /// Set the host name from /etc/hostname
    Hostname,
    /// Build the trust store from the system's certificates and settings
    CaBundle,
    /// Raise the kernel's lockdown level to the one in the settings
    Lockdown,
    /// Reserve huge pages
    Hugepages,
    /// Store the kernel parameters of the settings for the next boot
    KernelParameters,
    /// Restart, so that the kernel gets the parameters of the settings
    RebootToReconcile,
    /// Remove what kubelet's managers have kept and it would not start with
    KubeletManagers,
    /// Wait until the system is healthy, and keep its image
    BlessBoot,
    /// Give up on a boot that did not complete in time
    BootDeadline,
    /// Say why the system cannot start, and restart it
    Emergency,
    /// Power off when the power button is pressed
    PowerButton {
        /// Its event device
        device: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sysutil::main_with("system-config", || match arguments.command {
        Command::Storage => storage::run(),
        Command::EphemeralStorage => ephemeral::run(),
        Command::BootstrapCommands => bootstrap_commands::run(),
        Command::Hostname => hostname::run(),
        Command::CaBundle => ca_bundle::run(),
        Command::Lockdown => lockdown::run(),
        Command::Hugepages => hugepages::run(),
        Command::KernelParameters => kernel_parameters::run(),
        Command::RebootToReconcile => kernel_parameters::reboot_to_reconcile(),
        Command::KubeletManagers => kubelet_managers::run(),
        Command::BlessBoot => health::bless_boot(),
        Command::BootDeadline => health::boot_deadline(),
        Command::Emergency => emergency::run(),
        Command::PowerButton { device } => power_button::run(&device),
    })
}
