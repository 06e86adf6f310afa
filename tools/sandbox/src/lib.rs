//! Runs build steps and emulators in unprivileged namespaces.
//!
//! A [`Sandbox`] says what a program may see: a toolchain, read-only at `/`;
//! inputs and outputs bound where the program expects them; its own `/dev`,
//! `/proc` and `/tmp`; no network unless asked for; nothing of the caller's
//! environment. It works for root and for an ordinary user alike, since all
//! power comes from a user namespace with one mapped user, and it needs no
//! helper program and no setuid bit.
//!
//! Whatever runs inside ends with the process that started it, however that one
//! ends: the first process of the PID namespace watches a pipe whose other end
//! only the starter holds, and when that process ends the kernel kills the rest.
//!
//! Start reading at [`SandboxCommand::spawn`]; `plan` describes the mounts as
//! data, `child` is all that runs between clone and exec and the only place with
//! much unsafe code. What lies in the toolchain is the caller's
//! business, and so is what to do about a step that fails.

// The namespaces are made by a clone whose child must do all its set-up by bare
// system calls; there is no safe interface for that.
#![allow(unsafe_code)]

mod child;
mod command;
mod living;
mod plan;
mod why;

pub use command::{Output, SandboxChild, SandboxCommand, Stdio};
pub use living::{Group, GroupGuard, shut_down};

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What a sandbox may reach over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing: an own network namespace whose loopback is down.
    #[default]
    None,
    /// What the caller reaches, with its resolver configuration, proxies and
    /// certificate authorities. For downloads that another program verifies.
    Host,
    /// An own network namespace with loopback up, in which the program has every
    /// capability: all of 127.0.0.0/8 and every port are its own, and it may make
    /// bridges, veth pairs and taps (with [`Sandbox::device`]`("/dev/net/tun")`)
    /// and mount file systems.
    Own,
    /// That of another sandbox with [`Network::Own`], by its
    /// [`pid`](SandboxChild::pid): the two reach each other as programs of one
    /// machine do.
    Of(i32),
}

/// What a program run inside may see and do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
    binds: Vec<Bind>,
    devices: Vec<PathBuf>,
    network: Network,
    sys: bool,
    hostname: String,
    environment: Vec<(OsString, OsString)>,
    working_dir: PathBuf,
}

#[derive(Clone, Debug)]
struct Bind {
    host: PathBuf,
    guest: PathBuf,
    writable: bool,
}

impl Sandbox {
    /// A sandbox with the tree at `root` as its read-only `/`.
    ///
    /// `/dev`, `/proc`, `/sys`, `/run` and `/tmp` of that tree are not used.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            binds: Vec::new(),
            devices: Vec::new(),
            network: Network::None,
            sys: false,
            hostname: "sandbox".to_string(),
            environment: Vec::new(),
            working_dir: PathBuf::from("/"),
        }
    }

    /// Shows the file or folder `host` at `guest`, read-only.
    ///
    /// `guest` need not exist in the root, unless it lies in another bound folder.
    #[must_use]
    pub fn read_only(self, host: impl AsRef<Path>, guest: impl AsRef<Path>) -> Self {
        self.bind(host.as_ref(), guest.as_ref(), false)
    }

    /// Shows the file or folder `host` at `guest`, and lets it be written to.
    #[must_use]
    pub fn writable(self, host: impl AsRef<Path>, guest: impl AsRef<Path>) -> Self {
        self.bind(host.as_ref(), guest.as_ref(), true)
    }

    fn bind(mut self, host: &Path, guest: &Path, writable: bool) -> Self {
        self.binds.push(Bind {
            host: host.to_path_buf(),
            guest: guest.to_path_buf(),
            writable,
        });
        self
    }

    /// Shows a device of the caller's `/dev`, such as `/dev/kvm`. One that the
    /// machine lacks is left out.
    #[must_use]
    pub fn device(mut self, path: impl AsRef<Path>) -> Self {
        self.devices.push(path.as_ref().to_path_buf());
        self
    }

    /// Shows the caller's `/sys`, read-only.
    #[must_use]
    pub fn sys(mut self) -> Self {
        self.sys = true;
        self
    }

    /// Sets what may be reached over the network; [`Network::None`] if not called.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets the host name that programs see.
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = name.to_string();
        self
    }

    /// Sets a variable of the environment, which is empty to begin with.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        set_variable(&mut self.environment, key.as_ref(), value.as_ref());
        self
    }

    /// Sets the folder, as seen inside, that commands start in; `/` if not called.
    #[must_use]
    pub fn working_dir(mut self, guest: impl AsRef<Path>) -> Self {
        self.working_dir = guest.as_ref().to_path_buf();
        self
    }

    /// A command to run inside: `program` is a path as seen inside, or a name
    /// looked up in the sandbox's `PATH`.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> SandboxCommand {
        SandboxCommand::new(self.clone(), program.as_ref()).args(args)
    }
}

fn set_variable(environment: &mut Vec<(OsString, OsString)>, key: &OsStr, value: &OsStr) {
    environment.retain(|(existing, _)| existing != key);
    environment.push((key.to_os_string(), value.to_os_string()));
}
