//! `bulkhead run`: boots an image's dev twin.

use crate::vm::{self, ClusterPrograms};
use anyhow::{Context, Result, bail};
use buildsys::image::content::{DATA_VOLUME, lay_over};
use buildsys::lock::FetchOptions;
use buildsys::manifest::Name;
use buildsys::package::{self, PackageTree};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::{sdk, signals, store};
use settings::{Platform, Variant};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};
use test_vm::api::Api;
use test_vm::cluster::{Cluster, Place};
use test_vm::disk::sparse_copy;
use test_vm::{Builder, Ec2, Emulator, Machine, Reach};
use toml::Table;

/// Boot an image in QEMU, with its API at build/run/api.sock.
///
/// What is booted is the variant's dev twin: the same image with a door to its API.
/// An image for EC2 finds the metadata service, with the user data that is given, in a
/// network of its own. The machine is a new one each time; its disk and console are kept in build/run
/// until the next.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant to boot; the project's default if not given
    #[arg(long)]
    variant: Option<String>,
    /// Architecture
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Give the machine this file as its user data
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Run CMD here once the machine is up, with apiclient on the PATH and
    /// BULKHEAD_API_SOCKET set; then power off and exit with its status
    #[arg(long, value_name = "CMD")]
    exec: Option<OsString>,
    /// Boot the latest image as it is
    #[arg(long)]
    no_build: bool,
    /// Start a Kubernetes control plane beside the machine, which becomes its only node;
    /// CMD gets kubectl on the PATH and KUBECONFIG set. There is no metadata service then
    #[arg(long)]
    cluster: bool,
}

/// Processor seconds that a machine may take until it is up: generous, since what
/// takes so long is a matter for whoever looks at the console.
const UP: f64 = 300.0;
/// Time to power off when asked to.
const POWER_OFF: Duration = Duration::from_secs(90);
/// How often console and signals are looked at.
const PERIOD: Duration = Duration::from_millis(50);
const BOOT_COMPLETE: &str = "bulkhead: boot complete";
/// The longest path that a Unix socket's address holds.
const SOCKET_PATH_MAX: usize = 107;

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let user_data = match &args.user_data {
        Some(path) => Some(
            fs::read(path)
                .with_context(|| format!("cannot read the user data {}", path.display()))?,
        ),
        None => None,
    };
    let (variant, twin) = vm::pair(&project, args.variant.as_deref());
    let image = vm::image(&project, &twin, args.arch, !args.no_build, &progress)?;
    let programs = match args.cluster {
        true => Some(vm::cluster_programs(
            &project,
            &variant,
            args.arch,
            &vm::More::default(),
            &progress,
        )?),
        false => None,
    };
    // Built before the machine takes the processors, and kept as long as it runs.
    let command = match &args.exec {
        Some(command) => {
            let apiclient = Apiclient::for_workstation(&project, &image, args.arch, &progress)?;
            Some((command, apiclient))
        }
        None => None,
    };
    let folder = project.build_dir().join("run");
    let _lock = claim(&folder)?;
    let emulation = vm::prepare(&project, args.arch, &folder, &progress)?;

    let mut builder = Builder::new(
        &image,
        &folder,
        &emulation.variables,
        emulation.acceleration,
    );
    builder.memory = args.memory;
    builder.cpus = args.cpus;
    builder.user_data = user_data;
    builder.reach = Reach::Workstation;
    let data_volume = image.join(DATA_VOLUME);
    if data_volume.exists() {
        sparse_copy(&data_volume, &folder.join(DATA_VOLUME))?;
        builder.extra_disks.push(DATA_VOLUME.into());
    }
    let mut node = None;
    if programs.is_none() && is_for_ec2(&variant) {
        let mut instance = Ec2::new()?;
        instance.user_data = builder.user_data.take();
        // The workstation's own network has no room for the service's address.
        builder.reach = Reach::Isolated;
        builder.services.metadata = Some(instance);
    }
    if let Some(programs) = programs {
        let started = Node::start(&emulation.emulator, programs, &folder)?;
        started.cluster.add_service_network()?;
        started.join(&mut builder)?;
        node = Some(started);
    }
    eprintln!("Booting {twin}, the dev twin of {variant}: the same image with a door to its API.");
    eprintln!("  image         {}", image.display());
    eprintln!(
        "  acceleration  {} ({})",
        emulation.acceleration, emulation.reason
    );
    eprintln!("  network       {}", builder.reach.describe());
    if let Some(instance) = &builder.services.metadata {
        eprintln!(
            "  EC2           {} in {}, {}; metadata at 169.254.169.254",
            instance.instance_id, instance.zone, instance.instance_type
        );
    }
    eprintln!("  API           {}", folder.join("api.sock").display());
    eprintln!("  console       {}", folder.join("console.log").display());
    if let Some(node) = &node {
        eprintln!("  kubeconfig    {}", node.kubeconfig().display());
    }
    signals::end_gently();
    let machine = builder.start(&emulation.emulator)?;
    match &command {
        None => {
            eprintln!("Ctrl-C powers it off.");
            watch(machine, node)
        }
        Some((command, apiclient)) => {
            let status = execute(machine, node, &folder, apiclient.folder(), command)?;
            // The status is what was asked for; what it means is the caller's.
            std::process::exit(exit_code(status))
        }
    }
}

/// Whether images of `variant` expect EC2.
fn is_for_ec2(variant: &str) -> bool {
    Variant::parse(variant).is_ok_and(|variant| variant.platform() == Platform::Aws)
}

/// Makes the folder empty, and ours until the lock is dropped.
pub fn claim(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.with_extension("lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            bail!(
                "another `bulkhead` of this project has a machine running in {}",
                folder.display()
            )
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    store::remove_tree(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(lock)
}

/// Shows the console until the machine is off.
fn watch(mut machine: Machine, mut node: Option<Node>) -> Result<()> {
    let mut console = Console::default();
    while !machine.has_ended() {
        console.copy(&machine, &mut io::stdout().lock())?;
        if let Some(node) = &mut node {
            node.look();
        }
        if let Some(interrupted) = signals::interrupted() {
            eprintln!("Powering off; Ctrl-C again cuts the power.");
            power_off(&mut machine, &mut console, &mut io::stdout().lock())?;
            return Err(interrupted.into());
        }
        thread::sleep(PERIOD);
    }
    console.copy(&machine, &mut io::stdout().lock())?;
    eprintln!(
        "The machine is off after {:.0} CPU seconds.",
        machine.cpu_seconds()
    );
    Ok(())
}

/// An apiclient that runs on the workstation.
enum Apiclient {
    /// The one that lies beside the image, in this folder.
    OfImage(PathBuf),
    /// One that was built for it, since the image is for another architecture.
    Built(PackageTree),
}

impl Apiclient {
    fn for_workstation(
        project: &Project,
        image: &Path,
        arch: Arch,
        progress: &Progress,
    ) -> Result<Self> {
        let workstation = sdk::workstation()?;
        if arch == workstation {
            let file = image.join("apiclient");
            if !file.is_file() {
                bail!("the image has no {}", file.display());
            }
            return Ok(Self::OfImage(image.to_path_buf()));
        }
        let name = Name::try_from("apiclient".to_string()).map_err(anyhow::Error::msg)?;
        let options = FetchOptions::default();
        package::build(project, &[name], workstation, options, progress)?
            .pop()
            .map(Self::Built)
            .context("the package apiclient was not built")
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::OfImage(folder) => folder.clone(),
            Self::Built(tree) => tree.path().join("usr/bin"),
        }
    }
}

/// Runs the user's command on a machine that is up. The console goes to standard
/// error, since standard output is the command's.
fn execute(
    mut machine: Machine,
    mut node: Option<Node>,
    folder: &Path,
    apiclient: PathBuf,
    command: &OsString,
) -> Result<ExitStatus> {
    let mut console = Console::default();
    wait_until_up(&mut machine, node.as_mut(), &mut console)?;
    let socket = ShortPath::to(&folder.join("api.sock"))?;
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| "/bin/sh".into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![apiclient];
    let mut shell_command = Command::new(&shell);
    if let Some(node) = &node {
        folders.push(node.kubectl_folder()?);
        shell_command.env("KUBECONFIG", node.kubeconfig());
    }
    folders.extend(std::env::split_paths(&path));
    let path = std::env::join_paths(folders)
        .context("the folders of apiclient and kubectl cannot be on the PATH")?;
    let mut child = shell_command
        .arg("-c")
        .arg(command)
        .env("PATH", path)
        .env("BULKHEAD_API_SOCKET", socket.path())
        .spawn()
        .with_context(|| format!("cannot start {}", shell.display()))?;
    let status = loop {
        console.copy(&machine, &mut io::stderr().lock())?;
        match child.try_wait().context("cannot wait for the command")? {
            Some(status) => break status,
            // Ctrl-C reached the command, too; a machine that went away it will
            // notice when it next asks for something.
            None => thread::sleep(PERIOD),
        }
    };
    power_off(&mut machine, &mut console, &mut io::stderr().lock())?;
    Ok(status)
}

fn wait_until_up(
    machine: &mut Machine,
    mut node: Option<&mut Node>,
    console: &mut Console,
) -> Result<()> {
    let api = Api::at(&machine.api_socket());
    let mut complete = false;
    loop {
        complete |= console.copy(machine, &mut io::stderr().lock())?;
        let joined = node.as_mut().is_none_or(|node| node.look());
        if complete && joined && api.answers() {
            return Ok(());
        }
        if let Some(interrupted) = signals::interrupted() {
            return Err(interrupted.into());
        }
        if machine.has_ended() {
            bail!("the machine went off before it was up");
        }
        if machine.cpu_seconds() > UP {
            bail!(
                "the machine is not up after {UP:.0} CPU seconds: {}",
                match (complete, joined) {
                    (false, _) => "its boot is not complete",
                    (true, false) =>
                        "it is no node that is ready; `kubectl describe nodes` says why",
                    (true, true) => "its API does not answer",
                }
            );
        }
        thread::sleep(PERIOD);
    }
}

/// Asks the machine to power off, and cuts the power when it does not.
fn power_off(machine: &mut Machine, console: &mut Console, to: &mut impl Write) -> Result<()> {
    if machine.has_ended() {
        return Ok(());
    }
    machine.request_power_off()?;
    let started = Instant::now();
    while !machine.has_ended() {
        console.copy(machine, to)?;
        if started.elapsed() > POWER_OFF {
            eprintln!("The machine did not power off; its power is cut.");
            break;
        }
        thread::sleep(PERIOD);
    }
    console.copy(machine, to)?;
    Ok(())
}

/// The machine as the only node of a cluster.
struct Node {
    cluster: Cluster,
    programs: ClusterPrograms,
    looked: Instant,
    is_ready: bool,
}

/// The name that the node has unless the user data gives it another.
const NODE: &str = "node-1";
/// How often the node is looked at, which starts a program.
const NODE_PERIOD: Duration = Duration::from_secs(2);

impl Node {
    /// Starts everything but the machine.
    fn start(emulator: &Emulator, programs: ClusterPrograms, folder: &Path) -> Result<Self> {
        eprintln!("Starting a Kubernetes control plane.");
        let folder = folder.join("cluster");
        let cluster = Cluster::start(emulator, &programs, &folder, Place::Workstation, 1)?;
        Ok(Self {
            cluster,
            programs,
            looked: Instant::now(),
            is_ready: false,
        })
    }

    /// Has a machine come up as the node; the user data that it has comes on top.
    fn join(&self, builder: &mut Builder) -> Result<()> {
        builder.reach = Reach::Workstation;
        builder.forwards = vec![self.cluster.plane.kubelet_forward(0)];
        builder.user_data = Some(self.user_data(builder.user_data.as_deref())?);
        Ok(())
    }

    /// The user data that makes the machine a node; what the user gave comes on top.
    fn user_data(&self, given: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut document: Table = (self.cluster.node_user_data(NODE))
            .parse()
            .context("the cluster's own settings are no TOML")?;
        if let Some(given) = given {
            let given = std::str::from_utf8(given)
                .ok()
                .context("with --cluster the user data has to be TOML, and not compressed")?;
            let given = given
                .parse()
                .context("the user data is no TOML, which --cluster has to add to")?;
            lay_over(&mut document, given);
        }
        Ok(document.to_string().into_bytes())
    }

    fn kubeconfig(&self) -> PathBuf {
        self.cluster.plane.kubeconfig()
    }

    fn kubectl_folder(&self) -> Result<PathBuf> {
        let kubectl = self.programs.path("kubectl")?;
        Ok(kubectl.parent().unwrap_or(kubectl).to_path_buf())
    }

    /// Whether the node is ready. Now and then does what whoever runs a cluster does:
    /// approves the certificate that the node asks for, and looks at its state.
    fn look(&mut self) -> bool {
        if self.is_ready || self.looked.elapsed() < NODE_PERIOD {
            return self.is_ready;
        }
        // What fails now is tried again, and its reason is in the machine's console or
        // in the control plane's logs.
        let _ = self.cluster.plane.approve_serving_certificates();
        self.is_ready = self.cluster.plane.has_ready_node().unwrap_or(false);
        if self.is_ready {
            eprintln!("The node is ready.");
        }
        self.looked = Instant::now();
        self.is_ready
    }
}

/// Copies the machine's console as it grows.
#[derive(Default)]
struct Console {
    shown: usize,
}

impl Console {
    /// True when the new lines say that the boot is complete.
    fn copy(&mut self, machine: &Machine, to: &mut impl Write) -> Result<bool> {
        let (lines, _) = machine.lines_from(self.shown);
        self.shown += lines.len();
        for line in &lines {
            writeln!(to, "{}", line.text).context("cannot write the console")?;
        }
        Ok(lines.iter().any(|line| line.text.contains(BOOT_COMPLETE)))
    }
}

/// A path to a socket that fits an address: the socket's own, or that of a link to
/// it in the folder for temporary files.
struct ShortPath {
    path: PathBuf,
    is_link: bool,
}

impl ShortPath {
    fn to(socket: &Path) -> Result<Self> {
        if socket.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self {
                path: socket.to_path_buf(),
                is_link: false,
            });
        }
        let path = std::env::temp_dir().join(format!("bulkhead-{}.sock", std::process::id()));
        symlink(socket, &path)
            .with_context(|| format!("cannot make the link {}", path.display()))?;
        Ok(Self {
            path,
            is_link: true,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ShortPath {
    fn drop(&mut self) {
        if self.is_link {
            // A link that stays leads nowhere.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a shell would report for a command that ended this way.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn long_socket_paths_get_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("s");
        assert_eq!(ShortPath::to(&short).unwrap().path(), short);
        let long = folder.path().join("x".repeat(120));
        fs::write(&long, b"here").unwrap();
        let link = ShortPath::to(&long).unwrap();
        assert!(link.path().as_os_str().len() <= SOCKET_PATH_MAX);
        assert_eq!(fs::read(link.path()).unwrap(), b"here");
        let path = link.path().to_path_buf();
        drop(link);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_is_claimed_once_and_emptied() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        let lock = claim(&folder).unwrap();
        fs::write(folder.join("old"), b"").unwrap();
        assert!(claim(&folder).unwrap_err().to_string().contains("another"));
        assert!(folder.join("old").exists());
        // Closed, it would still be held by what another test is just starting.
        lock.unlock().unwrap();
        let _lock = claim(&folder).unwrap();
        assert!(!folder.join("old").exists());
    }
}
