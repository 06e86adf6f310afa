//! A network of a test's own that outlives the machines in it.

use crate::emulator::{Emulator, Start};
use anyhow::{Context, Result};
use sandbox::{Network, SandboxChild};
use std::path::Path;

/// A network namespace with nothing in it but loopback, which machines and the
/// servers of a test share. It goes when this is dropped.
#[derive(Debug)]
pub struct TestNetwork {
    holder: SandboxChild,
}

impl TestNetwork {
    /// Makes it; `folder` takes the messages of the program that holds it.
    pub fn new(emulator: &Emulator, folder: &Path) -> Result<Self> {
        let holder = emulator
            .spawn(Start {
                folder,
                readable: &[],
                devices: &[],
                network: Network::Own,
                program: "sleep",
                environment: &[],
                log: "network",
                arguments: vec!["infinity".into()],
            })
            .context("cannot make a network for the test")?;
        Ok(Self { holder })
    }

    /// The network, for programs that are to be in it.
    pub(crate) fn network(&self) -> Network {
        Network::Of(self.holder.pid())
    }

    /// A process whose namespaces are those of the network.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.pid().unsigned_abs()
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        self.holder.kill();
    }
}
