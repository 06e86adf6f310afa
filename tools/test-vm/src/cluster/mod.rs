//! A real Kubernetes cluster beside the machines, which are its nodes: a control plane,
//! a registry, and a network of pods, all in the network that the machines are in.
//!
//! It is for tests and for trying things out.

mod certificates;
mod control_plane;
pub(crate) mod egress;
mod registry;

pub use control_plane::{ControlPlane, has_condition};
pub use registry::Registry;

use crate::emulator::Emulator;
use crate::network::TestNetwork;
use anyhow::{Context, Result};
use oci_image::{Architecture, Config, Image, Layer};
use sandbox::Network;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

/// Where each machine's network has the workstation's loopback.
pub(crate) const GATEWAY: &str = "10.0.2.2";
/// Where programs are seen inside the sandbox.
const BIN: &str = "/programs";
/// Where the folder of who runs them is seen there.
const HOME: &str = crate::emulator::RUN;

/// The network of pods, as a cluster brings it: an agent on each node that writes its
/// configuration where container runtimes look for it. Its image goes in for `IMAGE`.
const POD_NETWORK: &str = include_str!("pod_network.yaml");
/// The image with the programs of busybox, in the registry.
const TOOLS: &str = "tools:1";
/// Those that containers call by name.
const APPLETS: [&str; 12] = [
    "cat", "cp", "echo", "httpd", "id", "ls", "nc", "sh", "sleep", "sync", "touch", "wget",
];

/// A cluster that runs. Dropped, it is gone.
#[derive(Debug)]
pub struct Cluster {
    /// Its control plane.
    pub plane: ControlPlane,
    /// The registry that its nodes know.
    pub registry: Registry,
}

impl Cluster {
    /// Starts one for as many as `nodes` nodes; `folder` takes its keys, data and logs.
    pub fn start(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
        nodes: u8,
    ) -> Result<Self> {
        let plane = ControlPlane::start(
            emulator,
            programs,
            &folder.join("control-plane"),
            place,
            nodes,
        )?;
        let registry = Registry::start(emulator, programs, &folder.join("registry"), place)?;
        registry.push(TOOLS, &tools(programs.path("busybox")?)?)?;
        let cluster = Self { plane, registry };
        cluster
            .plane
            .apply(&POD_NETWORK.replace("IMAGE", &cluster.tools()))?;
        Ok(cluster)
    }

    /// The settings by which a machine becomes a node of this cluster, as TOML.
    pub fn node_settings(&self) -> String {
        self.plane.node_settings() + &self.registry.node_settings()
    }

    /// The name of an image with busybox, as nodes know it.
    pub fn tools(&self) -> String {
        self.registry.image(TOOLS)
    }
}

fn tools(busybox: &Path) -> Result<Image> {
    let mut layer = Layer::new();
    layer.copy("bin/busybox", busybox)?;
    for name in APPLETS {
        layer.link(&format!("bin/{name}"), "busybox")?;
    }
    layer.folder("tmp", 0o1777)?;
    let config = Config {
        entrypoint: vec!["/bin/sh".to_string()],
        environment: vec!["PATH=/bin".to_string()],
        ..Config::default()
    };
    Ok(Image::new(Architecture::Amd64, &config, vec![layer]))
}

/// The network that a cluster is in.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A test's own.
    Network(&'a TestNetwork),
    /// The workstation's, at ports that are free.
    Workstation,
}

impl Place<'_> {
    fn network(self) -> Network {
        match self {
            Self::Network(network) => network.network(),
            Self::Workstation => Network::Host,
        }
    }
}

/// Programs that run beside machines, wherever they lie.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Those in `usr/bin` of each of `trees`.
    pub fn find<'a>(trees: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for tree in trees {
            let folder = tree.join("usr/bin");
            let list = || format!("cannot list {}", folder.display());
            for entry in fs::read_dir(&folder).with_context(list)? {
                let entry = entry.with_context(list)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                programs.insert(name, entry.path());
            }
        }
        Ok(Self(programs))
    }

    /// The path of a program.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let path = self.0.get(name);
        let path = path.with_context(|| format!("the program {name} was not built"))?;
        Ok(path)
    }

    /// Where each program is, and where it is to be seen.
    fn binds(&self, names: &[&str]) -> Result<Vec<(&Path, String)>> {
        names
            .iter()
            .map(|name| Ok((self.path(name)?, format!("{BIN}/{name}"))))
            .collect()
    }
}

/// The address that a node has in its emulator's network.
pub(crate) fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2 + index, 15)
}

/// Ports of the workstation's loopback that nobody uses.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let find = || "cannot find free ports";
    // All are held until the last is known, so that no two are equal.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).with_context(find)?;
        *port = listener.local_addr().with_context(find)?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
