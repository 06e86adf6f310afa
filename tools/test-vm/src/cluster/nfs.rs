//! A server of NFS beside the machines.

use super::{BIN, GATEWAY, HOME, Place, Programs};
use crate::emulator::{Emulator, Start};
use anyhow::{Context, Result};
use sandbox::SandboxChild;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const PROGRAM: &str = "nfs-server";
const PORT: u16 = 2049;
/// What it serves, in its folder.
const FILES: &str = "files";

/// A server that runs. Dropped, it is gone.
#[derive(Debug)]
pub struct NfsServer {
    folder: PathBuf,
    running: SandboxChild,
}

impl NfsServer {
    /// Starts one with nothing in it, in a network of a test's own; `folder` takes its files
    /// and its log.
    pub fn start(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
    ) -> Result<Self> {
        let files = folder.join(FILES);
        fs::create_dir_all(&files).with_context(|| format!("cannot create {}", files.display()))?;
        let running = emulator.spawn(Start {
            folder,
            readable: &programs.binds(&[PROGRAM])?,
            devices: &[],
            network: place.network(),
            environment: &[],
            program: &format!("{BIN}/{PROGRAM}"),
            log: PROGRAM,
            arguments: vec![format!("{HOME}/{FILES}").into(), PORT.to_string().into()],
        })?;
        Ok(Self {
            folder: folder.to_path_buf(),
            running,
        })
    }

    /// Where it is for nodes, as volumes name it.
    pub fn source(&self) -> Value {
        json!({ "server": GATEWAY, "path": "/" })
    }

    /// How it is mounted: it knows version 3, no locks, and one port for everything.
    pub fn mount_options(&self) -> Vec<String> {
        let port = format!("port={PORT}");
        let mount_port = format!("mountport={PORT}");
        [
            "nfsvers=3",
            "tcp",
            "mountproto=tcp",
            "nolock",
            &port,
            &mount_port,
        ]
        .map(str::to_string)
        .to_vec()
    }

    /// What a file that it serves has.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(FILES).join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        self.running.kill();
    }
}
