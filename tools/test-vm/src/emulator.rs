//! Programs of the emulator toolchain, run in its sandbox.

use crate::process;
use anyhow::{Context, Result, bail};
use sandbox::{Network, Sandbox, SandboxChild, Stdio};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the run's folder is seen inside the sandbox. Short, because the paths of
/// Unix sockets are limited to 107 bytes.
pub(crate) const RUN: &str = "/vm";
/// Where the image's folder is seen inside the sandbox.
pub(crate) const IMAGE: &str = "/image";

/// The emulator toolchain: its tree, and how to make a sandbox on it.
#[derive(Clone)]
pub struct Emulator {
    root: PathBuf,
    key: String,
    sandbox: Arc<dyn Fn() -> Sandbox + Send + Sync>,
    spent: Arc<Mutex<f64>>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// The toolchain unpacked at `root`; `key` tells its content from any other's,
    /// `sandbox` makes a fresh sandbox on it.
    pub fn new(
        root: &Path,
        key: &str,
        sandbox: impl Fn() -> Sandbox + Send + Sync + 'static,
    ) -> Self {
        Self {
            root: root.to_path_buf(),
            key: key.to_string(),
            sandbox: Arc::new(sandbox),
            spent: Arc::default(),
        }
    }

    /// What identifies the toolchain's content.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Processor seconds of all programs and machines that were run with this and
    /// have ended.
    pub fn spent(&self) -> f64 {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what was spent.
    pub(crate) fn spend(&self, seconds: f64) {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// A file of the toolchain, by its path from `/` on.
    pub(crate) fn file(&self, path: &str) -> Result<PathBuf> {
        let file = self.root.join(path.trim_start_matches('/'));
        if !file.is_file() {
            bail!(
                "the emulator toolchain has no {path}; see [toolchains.emulator] in Bulkhead.toml"
            );
        }
        Ok(file)
    }

    /// Runs a program to its end with `folder` writable as its working folder,
    /// and returns what it printed.
    pub fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
        self.run_with(folder, &[], program, arguments)
    }

    /// Like [`run`](Self::run), with further folders readable: (outside, inside).
    pub fn run_with(
        &self,
        folder: &Path,
        readable: &[(&Path, &str)],
        program: &str,
        arguments: &[&str],
    ) -> Result<String> {
        let mut sandbox = (self.sandbox)().writable(folder, RUN).working_dir(RUN);
        for (outside, inside) in readable {
            sandbox = sandbox.read_only(*outside, *inside);
        }
        let before = process::ended_children();
        let output = sandbox
            .command(program, arguments)
            .output()
            .with_context(|| format!("cannot run {program} of the emulator toolchain"))?;
        self.spend(process::ended_children() - before);
        if !output.status.success() {
            bail!(
                "{program} {} failed ({}): {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program that goes on running, with its messages in
    /// `<folder>/<program>.log`.
    pub(crate) fn spawn(&self, start: Start<'_>) -> Result<SandboxChild> {
        let mut sandbox = (self.sandbox)()
            .writable(start.folder, RUN)
            .working_dir(RUN)
            .network(start.network);
        for (outside, inside) in start.readable {
            sandbox = sandbox.read_only(*outside, *inside);
        }
        for device in start.devices {
            sandbox = sandbox.device(device);
        }
        let log = start.folder.join(format!("{}.log", start.program));
        let open = || format!("cannot write {}", log.display());
        let file = File::create(&log).with_context(open)?;
        let copy = file.try_clone().with_context(open)?;
        sandbox
            .command(start.program, &start.arguments)
            .stdout(Stdio::File(file))
            .stderr(Stdio::File(copy))
            .spawn()
    }
}

/// How [`Emulator::spawn`] starts a program.
pub(crate) struct Start<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) readable: &'a [(&'a Path, &'a str)],
    pub(crate) devices: &'a [&'a str],
    pub(crate) network: Network,
    pub(crate) program: &'a str,
    pub(crate) arguments: Vec<OsString>,
}
