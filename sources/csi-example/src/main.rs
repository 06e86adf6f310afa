//! A driver of volumes for tests, as real ones are to kubelet and to the host: it answers
//! the container storage interface at a socket, makes a file system for each volume, and
//! mounts it where kubelet says. No image has it.
//!
//! A volume is a file, which is a disk by a loop device; [`driver`] has what is done with
//! it. Beside it, in a container that may less, runs the [`registrar`], which tells kubelet
//! of the driver. Volumes are there as soon as somebody asks for them: nothing provisions
//! them.

mod driver;
mod grpc;
mod messages;
mod registrar;

use anyhow::{Context, Result};
use clap::Parser;
use driver::Driver;
use registrar::Registrar;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// A driver of volumes for tests.
#[derive(Debug, Parser)]
enum Arguments {
    /// Answer the container storage interface
    Driver {
        /// Socket to answer at
        #[arg(long, default_value = "/csi/csi.sock")]
        endpoint: PathBuf,
        /// Folder of the volumes
        #[arg(long, default_value = "/csi-data-dir")]
        data: PathBuf,
        /// Name of the node
        #[arg(long)]
        node: String,
    },
    /// Tell kubelet of a driver
    Registrar {
        /// The driver's socket
        #[arg(long, default_value = "/csi/csi.sock")]
        csi_address: PathBuf,
        /// The same for kubelet
        #[arg(long)]
        kubelet_registration_path: String,
        /// Folder in which kubelet looks for plugins
        #[arg(long, default_value = "/registration")]
        registration: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).context("cannot wait for a signal")?;
    let socket = match arguments {
        Arguments::Driver {
            endpoint,
            data,
            node,
        } => {
            let driver = Driver::new(&data, &node)?;
            let listener = grpc::listen(&endpoint)?;
            tokio::spawn(grpc::serve(listener, move |method, request| {
                driver.answer(method, request)
            }));
            endpoint
        }
        Arguments::Registrar {
            csi_address,
            kubelet_registration_path,
            registration,
        } => {
            let registrar = Registrar::of(&csi_address, &kubelet_registration_path).await?;
            let socket = registration.join(registrar.socket());
            let listener = grpc::listen(&socket)?;
            tokio::spawn(grpc::serve(listener, move |method, request| {
                registrar.answer(method, request)
            }));
            socket
        }
    };
    end.recv().await;
    fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display()))
}
