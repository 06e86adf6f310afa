//! What a node is compared with: a host of Debian's own packages that starts the same
//! kubelet, with the same container runtime, when cloud-init has given it the same
//! settings.
//!
//! It is as light as such a host gets: the kernel for clouds, no SSH server, no GRUB, no
//! package manager, one source of user data, everything compiled that maintainer scripts
//! compile.

use super::node::NODE;
use crate::vm;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use buildsys::fetch::Fetcher;
use buildsys::lock::{FetchOptions, Lock};
use buildsys::manifest::Name;
use buildsys::package;
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::sdk::Toolchain;
use buildsys::store::{self, Store};
use sandbox::{Sandbox, SandboxCommand};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use test_vm::cluster::Cluster;
use test_vm::{Builder, Machine};
use toml::Table;

const INSTALL: &str = include_str!("install.sh");
/// What the host has besides its packages and the node's programs.
const FILES: [(&str, &str); 8] = [
    (
        "etc/systemd/system/containerd.service",
        include_str!("containerd.service"),
    ),
    (
        "etc/systemd/system/import-images.service",
        include_str!("import-images.service"),
    ),
    (
        "etc/systemd/system/kubelet.service",
        include_str!("kubelet.service"),
    ),
    (
        "etc/systemd/system/tell-memory.service",
        include_str!("tell-memory.service"),
    ),
    (
        "etc/containerd/config.toml",
        include_str!("containerd.toml"),
    ),
    (
        "etc/cloud/cloud.cfg.d/90-stock-node.cfg",
        "datasource_list: [NoCloud, None]\nssh_genkeytypes: []\n",
    ),
    ("etc/hostname", "stock-node\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
];
/// The disk's partitions, as systemd-repart describes them.
const PARTITIONS: [(&str, &str); 2] = [
    (
        "10-esp.conf",
        "[Partition]\nType=esp\nFormat=vfat\nSizeMinBytes=512M\nSizeMaxBytes=512M\nCopyFiles=/esp:/\n",
    ),
    (
        "20-root.conf",
        "[Partition]\nType=root\nLabel=root\nFormat=ext4\nCopyFiles=/tree:/\n",
    ),
];
/// Where the toolchain's tree has what makes a host, beside `/usr`.
const FOLDERS: [&str; 7] = ["bin", "boot", "etc", "lib", "lib64", "sbin", "var"];
/// Where the host mounts something, or keeps what users have.
const EMPTY_FOLDERS: [&str; 8] = ["dev", "home", "opt", "proc", "root", "run", "sys", "tmp"];
/// The disk, named as that of an image is.
const DISK: &str = "disk.img";
const SEED: &str = "seed.img";

/// An image of such a host.
pub struct StockNode {
    toolchain: Toolchain,
    /// The folder that its disk is in.
    pub image: PathBuf,
}

impl StockNode {
    /// Makes one with the programs that nodes of `variant` have.
    pub fn make(
        project: &Project,
        variant: &str,
        folder: &Path,
        progress: &Progress,
    ) -> Result<Self> {
        let kubelet = format!("kubelet-{}", vm::kubernetes_of(variant)?);
        let names = ["cni-plugins", "containerd", &kubelet, "pause", "runc"];
        let names: Vec<Name> = names
            .into_iter()
            .map(|name| Name::try_from(name.to_string()).map_err(anyhow::Error::msg))
            .collect::<Result<_>>()?;
        let arch = Arch::X86_64;
        let programs = package::build(project, &names, arch, FetchOptions::default(), progress)?;
        let store = Store::open(&project.store_dir(), project.config.store.size_limit.0)?;
        let fetcher = Fetcher::new(project, progress)?;
        let lock = Lock::load(project)?;
        let name = "stock-node";
        let toolchain = Toolchain::prepare(project, &lock, name, arch, &store, &fetcher, progress)?;

        let task = progress.start("assemble the stock node");
        let [tree, esp, partitions] = ["tree", "esp", "partitions"].map(|name| folder.join(name));
        let empty = EMPTY_FOLDERS.map(|folder| tree.join(folder));
        for made in [&tree, &esp, &partitions].into_iter().chain(&empty) {
            fs::create_dir_all(made)
                .with_context(|| format!("cannot create {}", made.display()))?;
        }
        let mut copied = vec!["--archive", "--target-directory=/tree", "/usr"];
        let folders = FOLDERS.map(|folder| format!("/{folder}"));
        copied.extend(folders.iter().map(String::as_str));
        let copy = toolchain.sandbox().writable(&tree, "/tree");
        run(copy.command("cp", copied), folder)?;

        for (path, text) in FILES {
            write(&tree.join(path), text)?;
        }
        for (path, text) in PARTITIONS {
            write(&partitions.join(path), text)?;
        }
        write(&folder.join("install.sh"), INSTALL)?;
        let mut install = in_tree(&tree)
            .read_only(folder.join("install.sh"), "/install.sh")
            .writable(&esp, "/esp");
        for program in &programs {
            install = install.read_only(program.path(), format!("/programs/{}", program.name));
        }
        run(install.command("sh", ["/install.sh"]), folder)?;

        let partition = toolchain
            .sandbox()
            .read_only(&tree, "/tree")
            .read_only(&esp, "/esp")
            .read_only(&partitions, "/partitions")
            .writable(folder, "/out")
            .env("TMPDIR", "/out");
        let partition = partition.command(
            "systemd-repart",
            [
                "--definitions=/partitions",
                "--empty=create",
                "--offline=yes",
                "--size=12G",
                &format!("/out/{DISK}"),
            ],
        );
        run(partition, folder)?;
        store::remove_tree(&tree)?;
        task.finish("assembled the stock node");
        Ok(Self {
            toolchain,
            image: folder.to_path_buf(),
        })
    }

    /// Has a machine of it come up as the node of a cluster.
    pub fn join(&self, cluster: &Cluster, builder: &mut Builder) -> Result<()> {
        let folder = &builder.run;
        write(&folder.join("user-data"), &user_data(cluster)?)?;
        write(
            &folder.join("meta-data"),
            &format!("instance-id: {NODE}\nlocal-hostname: {NODE}\n"),
        )?;
        const MAKE: &str = "truncate -s 4M seed.img && mformat -v cidata -i seed.img :: \
                            && mcopy -i seed.img user-data meta-data ::";
        let make = self.toolchain.sandbox().writable(folder, "/seed");
        run(
            make.working_dir("/seed").command("sh", ["-c", MAKE]),
            folder,
        )?;
        builder.extra_disks.push(SEED.into());
        Ok(())
    }

    /// The bytes of memory in use, as the host has last told them.
    pub fn memory_in_use(machine: &mut Machine) -> Result<u64> {
        let (lines, _) = machine.lines_from(0);
        let last = |name: &str| -> Result<u64> {
            let mut values = lines.iter().rev().filter_map(|line| {
                let (_, value) = line.text.split_once(name)?;
                value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            });
            let kib = values.next();
            Ok(kib.with_context(|| format!("the stock node has not told its {name}"))? * 1024)
        };
        Ok(last("MemTotal:")? - last("MemAvailable:")?)
    }
}

/// A sandbox in which the tree can be changed.
fn in_tree(tree: &Path) -> Sandbox {
    let sandbox = Sandbox::new(tree)
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("LC_ALL", "C.UTF-8");
    ["etc", "usr", "var"]
        .into_iter()
        .fold(sandbox, |sandbox, folder| {
            sandbox.writable(tree.join(folder), format!("/{folder}"))
        })
}

/// Runs a command to its end, with its messages in `stock-node.log`.
fn run(command: SandboxCommand, folder: &Path) -> Result<()> {
    let log = folder.join("stock-node.log");
    let status = command.status_to_log(&log)?;
    ensure!(
        status.success(),
        "the stock node cannot be made ({status}): see {}",
        log.display()
    );
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let work = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(work)?;
    }
    fs::write(path, text).with_context(work)
}

/// What the settings of a Bulkhead node in this cluster are for cloud-init.
fn user_data(cluster: &Cluster) -> Result<String> {
    let settings: Table = cluster
        .node_settings()
        .parse()
        .context("the cluster's own settings are no TOML")?;
    let settings = serde_json::to_value(&settings["settings"])?;
    let text = |path: &str| {
        let value = settings.pointer(path).and_then(Value::as_str);
        value.with_context(|| format!("the cluster's settings have no {path}"))
    };
    let registry = text("/container-registry/credentials/0/registry")?;
    let password = format!(
        "{}:{}",
        text("/container-registry/credentials/0/username")?,
        text("/container-registry/credentials/0/password")?
    );
    let hosts = format!(
        "[host.\"https://{registry}\"]\nca = \"/etc/kubernetes/registry.crt\"\n\
         [host.\"https://{registry}\".header]\nauthorization = \"Basic {}\"\n",
        STANDARD.encode(password)
    );
    let bootstrap = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bootstrap",
        "clusters": [{ "name": "kubernetes", "cluster": {
            "server": text("/kubernetes/api-server")?,
            "certificate-authority": "/etc/kubernetes/ca.crt",
        } }],
        "contexts": [{ "name": "bootstrap", "context": { "cluster": "kubernetes", "user": "bootstrap" } }],
        "users": [{ "name": "bootstrap", "user": { "token": text("/kubernetes/bootstrap-token")? } }],
    });
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/ca.crt" } },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "systemd",
        "clusterDNS": [text("/kubernetes/cluster-dns-ip")?],
        "clusterDomain": text("/kubernetes/cluster-domain")?,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": "/run/systemd/resolve/resolv.conf",
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
    });
    let file = |path: &str, text: &str| json!({ "path": path, "content": text });
    let encoded =
        |path: &str, text: &str| json!({ "path": path, "encoding": "b64", "content": text });
    let document = json!({
        "write_files": [
            encoded("/etc/kubernetes/ca.crt", text("/kubernetes/cluster-certificate")?),
            encoded("/etc/kubernetes/registry.crt", text("/pki/registry/data")?),
            file("/etc/kubernetes/bootstrap-kubeconfig", &bootstrap.to_string()),
            file("/etc/kubernetes/kubelet.json", &kubelet.to_string()),
            file(&format!("/etc/containerd/certs.d/{registry}/hosts.toml"), &hosts),
        ],
        "runcmd": [["systemctl", "start", "--no-block", "kubelet.service"]],
    });
    // JSON is YAML, too.
    Ok(format!("#cloud-config\n{document}\n"))
}
