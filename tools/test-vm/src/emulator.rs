//! Programs of the emulator toolchain, run in its sandbox.

use crate::platform::Platform;
use crate::process;
use anyhow::{Context, Result, bail};
use boot_slots::layout::Architecture;
use sandbox::{Network, Sandbox, SandboxChild, SandboxCommand, Stdio};
use std::ffi::{OsStr, OsString};
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
    architecture: Architecture,
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
    /// The toolchain for machines of `architecture` unpacked at `root`; `key` tells its
    /// content from any other's, `sandbox` makes a fresh sandbox on it.
    pub fn new(
        root: &Path,
        key: &str,
        architecture: Architecture,
        sandbox: impl Fn() -> Sandbox + Send + Sync + 'static,
    ) -> Self {
        Self {
            root: root.to_path_buf(),
            key: key.to_string(),
            architecture,
            sandbox: Arc::new(sandbox),
            spent: Arc::default(),
        }
    }

    /// What identifies the toolchain's content.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The kind of machine that it emulates.
    pub(crate) fn platform(&self) -> &'static Platform {
        Platform::of(self.architecture)
    }

    /// The architecture of those machines.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
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
        self.output(
            Start {
                folder,
                readable: &readable
                    .iter()
                    .map(|(outside, inside)| (*outside, inside.to_string()))
                    .collect::<Vec<_>>(),
                devices: &[],
                network: Network::None,
                environment: &[],
                program,
                log: program,
                arguments: arguments.iter().map(OsString::from).collect(),
            },
            b"",
        )
    }

    /// Runs a program to its end with `input` as its standard input, and returns what
    /// it printed.
    pub(crate) fn output(&self, start: Start<'_>, input: &[u8]) -> Result<String> {
        let program = start.program;
        let arguments = start.arguments.join(OsStr::new(" "));
        let run = || format!("cannot run {program} of the emulator toolchain");
        let before = process::ended_children();
        let mut child = self
            .command(&start)
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Piped)
            .spawn()
            .with_context(run)?;
        let output = child.communicate(input).with_context(run)?;
        self.spend(process::ended_children() - before);
        if !output.status.success() {
            bail!(
                "{program} {} failed ({}): {}",
                arguments.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, start: &Start<'_>) -> SandboxCommand {
        let mut sandbox = (self.sandbox)()
            .writable(start.folder, RUN)
            .working_dir(RUN)
            .network(start.network);
        for (outside, inside) in start.readable {
            sandbox = sandbox.read_only(*outside, inside);
        }
        for device in start.devices {
            sandbox = sandbox.device(device);
        }
        for (name, value) in start.environment {
            sandbox = sandbox.env(name, value);
        }
        sandbox.command(start.program, &start.arguments)
    }

    /// Starts a program that goes on running, with its messages in
    /// `<folder>/<log>.log`.
    pub(crate) fn spawn(&self, start: Start<'_>) -> Result<SandboxChild> {
        let log = start.folder.join(format!("{}.log", start.log));
        let open = || format!("cannot write {}", log.display());
        let file = File::create(&log).with_context(open)?;
        let copy = file.try_clone().with_context(open)?;
        self.command(&start)
            .stdout(Stdio::File(file))
            .stderr(Stdio::File(copy))
            .spawn()
    }
}

/// How a program of the toolchain is started.
pub(crate) struct Start<'a> {
    pub(crate) folder: &'a Path,
    /// Files and folders to show: (outside, inside).
    pub(crate) readable: &'a [(&'a Path, String)],
    pub(crate) devices: &'a [&'a str],
    pub(crate) network: Network,
    /// Variables of its environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) program: &'a str,
    /// Name of the file that its messages go to, without the ending.
    pub(crate) log: &'a str,
    pub(crate) arguments: Vec<OsString>,
}
