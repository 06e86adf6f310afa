//! A real Kubernetes cluster beside the machines, which are its nodes: a control plane,
//! a registry, and a network of pods, all in the network that the machines are in.
//!
//! It is for tests and for trying things out.

mod certificates;
mod conformance;
mod control_plane;
pub(crate) mod egress;
mod images;
mod nfs;
mod registry;
pub(crate) mod roles;

pub use conformance::{Conformance, Selection};
pub use control_plane::{ControlPlane, has_condition};
pub use nfs::NfsServer;
pub use oci_image::Architecture;
pub use registry::Registry;

use crate::ec2::Ec2;
use crate::emulator::Emulator;
use crate::network::TestNetwork;
use anyhow::{Context, Result};
use oci_image::{Config, Image, Layer};
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

/// What a cluster brings to its nodes, each a manifest in which the image called
/// `IMAGE` has to be named: the network of pods, an agent that writes its configuration
/// where container runtimes look for it; and the network of services, kube-proxy.
const POD_NETWORK: &str = include_str!("pod_network.yaml");
const SERVICE_NETWORK: &str = include_str!("service_network.yaml");
/// The image with the programs of busybox, in the registry.
const TOOLS: &str = "tools:1";
/// The images of agents, of kube-proxy, and of a driver of volumes.
const AGENTS: &str = "agents:1";
const SERVICE_PROXY: &str = "kube-proxy:1";
const VOLUME_DRIVER: &str = "csi-example:1";

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
        Self::start_with(emulator, programs, folder, place, nodes, None)
    }

    /// Starts one as EKS has them: its only node proves itself by the role of `instance`.
    pub fn start_for_role(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        network: &TestNetwork,
        instance: &Ec2,
    ) -> Result<Self> {
        let place = Place::Network(network);
        Self::start_with(emulator, programs, folder, place, 1, Some(instance))
    }

    fn start_with(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
        nodes: u8,
        instance: Option<&Ec2>,
    ) -> Result<Self> {
        let plane = ControlPlane::start(
            emulator,
            programs,
            &folder.join("control-plane"),
            place,
            nodes,
            instance,
        )?;
        let registry = Registry::start(emulator, programs, &folder.join("registry"), place)?;
        registry.add_tools()?;
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

    /// The user data that makes a machine the node called `name`, as TOML.
    pub fn node_user_data(&self, name: &str) -> String {
        format!("[settings.network]\nhostname = \"{name}\"\n") + &self.node_settings()
    }

    /// Makes services reachable on all nodes. Not part of every cluster, since its image
    /// is large, and a node takes a while to get it.
    pub fn add_service_network(&self) -> Result<()> {
        let image = images::service_proxy(self.plane.programs())?;
        self.registry.push(SERVICE_PROXY, &image)?;
        let image = self.registry.image(SERVICE_PROXY);
        self.plane
            .apply_service_network(&SERVICE_NETWORK.replace("IMAGE", &image))
    }

    /// Puts the image that agents have into the registry; returns its name.
    pub fn add_agents(&self) -> Result<String> {
        let image = images::agents(self.plane.programs())?;
        self.registry.push(AGENTS, &image)?;
        Ok(self.registry.image(AGENTS))
    }

    /// Puts the image of a driver of volumes into the registry; returns its name.
    pub fn add_volume_driver(&self) -> Result<String> {
        let image = images::volume_driver(self.plane.programs())?;
        self.registry.push(VOLUME_DRIVER, &image)?;
        Ok(self.registry.image(VOLUME_DRIVER))
    }

    /// The name of an image with busybox, as nodes know it.
    pub fn tools(&self) -> String {
        self.registry.image(TOOLS)
    }
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

/// A pod called `name` that waits, of an image whose entry is a shell. It asks for the little
/// room that it takes, so that others are evicted first when a disk is full.
pub fn sleeper(name: &str, image: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: sleeper
    image: {image}
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
    resources: {{ requests: {{ ephemeral-storage: 1Mi }} }}
"#
    )
}

/// Programs that run beside machines, and those that run in containers of nodes, whose
/// architecture may be another one.
#[derive(Clone, Debug)]
pub struct Programs {
    beside: BTreeMap<String, Program>,
    contained: BTreeMap<String, Program>,
    nodes: Architecture,
}

#[derive(Clone, Debug)]
struct Program {
    path: PathBuf,
    tree: PathBuf,
}

impl Programs {
    /// Where a tree may have programs.
    const FOLDERS: [&'static str; 2] = ["usr/bin", "usr/sbin"];

    /// Those of the trees `beside` and `contained`, of which the latter are for `nodes`.
    pub fn find<'a>(
        beside: impl IntoIterator<Item = &'a Path>,
        contained: impl IntoIterator<Item = &'a Path>,
        nodes: Architecture,
    ) -> Result<Self> {
        Ok(Self {
            beside: Self::of_trees(beside)?,
            contained: Self::of_trees(contained)?,
            nodes,
        })
    }

    fn of_trees<'a>(
        trees: impl IntoIterator<Item = &'a Path>,
    ) -> Result<BTreeMap<String, Program>> {
        let mut programs = BTreeMap::new();
        for tree in trees {
            let folders = Self::FOLDERS.map(|folder| tree.join(folder));
            for folder in folders.iter().filter(|folder| folder.exists()) {
                let list = || format!("cannot list {}", folder.display());
                for entry in fs::read_dir(folder).with_context(list)? {
                    let path = entry.with_context(list)?.path();
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let tree = tree.to_path_buf();
                    programs.insert(name.into_owned(), Program { path, tree });
                }
            }
        }
        Ok(programs)
    }

    /// An image for nodes.
    fn image(&self, config: &Config, layer: Layer) -> Image {
        Image::new(self.nodes, config, vec![layer])
    }

    /// The path of a program that runs beside machines.
    pub fn path(&self, name: &str) -> Result<&Path> {
        Ok(&Self::get(&self.beside, name)?.path)
    }

    /// The path of a program for containers.
    fn contained(&self, name: &str) -> Result<&Path> {
        Ok(&Self::get(&self.contained, name)?.path)
    }

    /// The tree that a program for containers came with, which has the libraries that
    /// it needs.
    fn contained_tree(&self, name: &str) -> Result<&Path> {
        Ok(&Self::get(&self.contained, name)?.tree)
    }

    fn get<'p>(programs: &'p BTreeMap<String, Program>, name: &str) -> Result<&'p Program> {
        let program = programs.get(name);
        program.with_context(|| format!("the program {name} was not built"))
    }

    /// Where each program that runs beside machines is, and where it is to be seen.
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

/// The hardware address of the card by which a node reaches the others, as the agent of
/// the network of pods knows it.
pub(crate) fn neighbour_address(index: u8) -> String {
    format!("52:54:00:00:01:{:02x}", index + 1)
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
