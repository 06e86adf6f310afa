//! Kubernetes' own end-to-end tests, run beside a cluster.
//!
//! The tests take their images from a registry of the real world. Those that can be
//! made here are in the cluster's registry under the same names and tags, and the tests
//! are told to look there; a test that needs another one fails.

use super::certificates::{Authority, Certified, Purpose};
use super::images::{APPLETS, applets};
use super::{BIN, Cluster, HOME, Programs, write};
use crate::emulator::Start;
use anyhow::{Context, Result, ensure};
use oci_image::{Config, Layer};
use sandbox::SandboxChild;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The program with the tests.
const TESTS: &str = "e2e.test";
/// The program that most pods of the tests run.
const AGNHOST: &str = "agnhost";
/// The program by which they see whether privileges can be gained, and its image.
const PRIVILEGES: &str = "nonewprivs";
/// What takes the place of curl: the tests give it a URL and nothing else.
const CURL: &[u8] = b"#!/bin/sh\nexec wget -q -O - \"$@\"\n";
/// What the tests' images lie under, there and here.
const IMAGES: &str = "e2e-test-images";
/// The loader of the C library, where programs look for it.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Programs that the tests call by name in their pods.
const MORE_APPLETS: [&str; 34] = [
    "awk",
    "basename",
    "chmod",
    "chown",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "env",
    "expr",
    "false",
    "find",
    "hostname",
    "kill",
    "ln",
    "md5sum",
    "mv",
    "nslookup",
    "od",
    "ping",
    "printf",
    "ps",
    "rm",
    "seq",
    "sha256sum",
    "sort",
    "stat",
    "sysctl",
    "tee",
    "test",
    "timeout",
    "tr",
    "wc",
];
const PASSWD: &[u8] = b"root:x:0:0:root:/:/bin/sh\n\
    user-defined-in-image:x:1000:1000::/:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nuser-defined-in-image:x:1000:\n\
    group-defined-in-image:x:50000:user-defined-in-image\n";
/// Where the tests find the names of registries, and where they write what they found.
const REPOSITORIES: &str = "repositories.yaml";
const REPORT: &str = "report.json";
/// Where the cluster's administrator's configuration is seen inside the sandbox.
const KUBECONFIG: &str = "/kubeconfig";

/// Tests that run. Dropped, they are ended.
#[derive(Debug)]
pub struct Conformance {
    child: SandboxChild,
    folder: PathBuf,
}

impl Conformance {
    /// The file that the tests write while they run.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{TESTS}.log"))
    }

    /// The tests' report, in Ginkgo's JSON, once they have ended.
    pub fn report(&mut self) -> Result<Option<String>> {
        let Some(status) = self
            .child
            .try_wait()
            .context("cannot ask for the tests' state")?
        else {
            return Ok(None);
        };
        let path = self.folder.join(REPORT);
        ensure!(
            path.is_file(),
            "the tests ended without a report ({status}): see {}",
            self.log().display()
        );
        let report = fs::read_to_string(&path);
        report
            .with_context(|| format!("cannot read {}", path.display()))
            .map(Some)
    }
}

impl Drop for Conformance {
    fn drop(&mut self) {
        self.child.kill();
    }
}

/// Which tests are run: regular expressions over their names.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Tests must match it.
    pub focus: &'a str,
    /// Tests must not match it.
    pub skip: &'a str,
    /// Names are only listed.
    pub dry_run: bool,
}

impl Cluster {
    /// Puts the images of the tests into the registry, as far as they can be made here.
    pub fn push_conformance_images(&self) -> Result<()> {
        let programs = self.plane.programs();
        let authority = Authority::new("conformance")?;
        let server = authority.issue("localhost", &Purpose::Server(&["localhost", "127.0.0.1"]))?;
        for tag in ["2.63.0", "2.55"] {
            let layer = agnhost(programs, &server)?;
            let config = Config {
                entrypoint: vec![format!("/{AGNHOST}")],
                arguments: vec!["pause".to_string()],
                ..with_path()
            };
            self.push_conformance(&format!("{IMAGES}/{AGNHOST}:{tag}"), &config, layer)?;
        }
        let shell = Config {
            arguments: vec!["sh".to_string()],
            ..with_path()
        };
        let bash = tools_with_bash(programs)?;
        let name = format!("{IMAGES}/busybox:1.37.0-1");
        self.push_conformance(&name, &shell, bash.clone())?;
        let mut resolving = bash;
        resolving.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
        let name = format!("{IMAGES}/glibc-dns-testing:2.0.0");
        self.push_conformance(&name, &shell, resolving)?;
        let named = Config {
            user: "1234".to_string(),
            ..shell
        };
        self.push_conformance(&format!("{IMAGES}/nonroot:1.5"), &named, tools(programs)?)?;
        let privileges = Config {
            entrypoint: vec![format!("/bin/{PRIVILEGES}")],
            ..with_path()
        };
        let name = format!("{IMAGES}/{PRIVILEGES}:1.4");
        self.push_conformance(&name, &privileges, with_set_user(programs)?)?;
        let wait = "trap exit TERM INT; sleep 1000000 & wait";
        let pause = Config {
            entrypoint: ["/bin/sh", "-c", wait].map(str::to_string).to_vec(),
            ..with_path()
        };
        self.push_conformance("pause:3.10.2", &pause, tools(programs)?)
    }

    fn push_conformance(&self, name: &str, config: &Config, layer: Layer) -> Result<()> {
        let image = self.plane.programs().image(config, layer);
        self.registry.push(name, &image)
    }

    /// Starts the tests. `folder` takes their log and their report.
    pub fn start_conformance(
        &self,
        folder: &Path,
        selection: Selection<'_>,
    ) -> Result<Conformance> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let registry = self.registry.image("");
        let registry = registry.trim_end_matches('/');
        let repositories = format!(
            "promoterE2eRegistry: {registry}/{IMAGES}\n\
             gcRegistry: {registry}\n"
        );
        write(folder, REPOSITORIES, &repositories)?;
        let kubeconfig = self.plane.kubeconfig();
        let mut readable = self.plane.programs().binds(&[TESTS, "kubectl"])?;
        readable.push((&kubeconfig, KUBECONFIG.to_string()));
        let arguments = [
            format!("--kubeconfig={KUBECONFIG}"),
            format!("--kubectl-path={}/kubectl", BIN),
            "--provider=skeleton".to_string(),
            "--num-nodes=1".to_string(),
            format!("--ginkgo.focus={}", selection.focus),
            format!("--ginkgo.skip={}", selection.skip),
            format!("--ginkgo.dry-run={}", selection.dry_run),
            format!("--ginkgo.json-report={REPORT}"),
            "--ginkgo.no-color".to_string(),
            "--ginkgo.v".to_string(),
            "--ginkgo.timeout=24h".to_string(),
        ];
        let child = self.plane.emulator().spawn(Start {
            folder,
            readable: &readable,
            devices: &[],
            network: self.plane.network(),
            environment: &[("HOME", HOME), ("KUBE_TEST_REPO_LIST", REPOSITORIES)],
            program: &format!("{}/{TESTS}", BIN),
            log: TESTS,
            arguments: arguments.iter().map(OsString::from).collect(),
        })?;
        Ok(Conformance {
            child,
            folder: folder.to_path_buf(),
        })
    }
}

/// A configuration in which programs are found by their names.
fn with_path() -> Config {
    Config {
        environment: vec!["PATH=/usr/bin:/bin".to_string()],
        ..Config::default()
    }
}

/// Small programs under all names that the tests call.
fn tools(programs: &Programs) -> Result<Layer> {
    applets(programs, &tool_names())
}

/// The same with bash where a shell is called without its path: unlike busybox's it hands
/// on variables whose names are none in a shell, such as `data-1`. With its path it is
/// busybox's, whose messages a test compares.
fn tools_with_bash(programs: &Programs) -> Result<Layer> {
    let mut layer = tools(programs)?;
    add_loader(&mut layer, programs)?;
    add_bash(&mut layer, programs)?;
    layer.link("usr/bin/sh", "/bin/bash")?;
    Ok(layer)
}

/// The program that most pods of the tests run, and what they expect beside it. `server`
/// is what it serves TLS with.
fn agnhost(programs: &Programs, server: &Certified) -> Result<Layer> {
    let mut layer = tools(programs)?;
    add_loader(&mut layer, programs)?;
    add_bash(&mut layer, programs)?;
    layer.file("bin/curl", 0o755, CURL)?;
    layer.copy(AGNHOST, programs.contained(AGNHOST)?)?;
    layer.link("agnhost-2", AGNHOST)?;
    layer.file("localhost.crt", 0o644, server.certificate.as_bytes())?;
    layer.file("localhost.key", 0o644, server.key.as_bytes())?;
    layer.folder("uploads", 0o755)?;
    // Users of whom some tests want to see their groups.
    layer.file("etc/passwd", 0o644, PASSWD)?;
    layer.file("etc/group", 0o644, GROUP)?;
    Ok(layer)
}

/// A program that becomes root wherever that is allowed, and says who it is.
fn with_set_user(programs: &Programs) -> Result<Layer> {
    let mut layer = Layer::new();
    add_loader(&mut layer, programs)?;
    let path = programs.contained(PRIVILEGES)?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    layer.file(&format!("bin/{PRIVILEGES}"), 0o6755, &bytes)?;
    Ok(layer)
}

/// Adds what programs of Go are loaded by.
fn add_loader(layer: &mut Layer, programs: &Programs) -> Result<()> {
    let tree = programs.contained_tree(AGNHOST)?;
    layer.copy(LOADER, &tree.join("usr").join(LOADER))?;
    Ok(())
}

/// Adds bash and the libraries that it needs, besides the loader.
fn add_bash(layer: &mut Layer, programs: &Programs) -> Result<()> {
    layer.copy("bin/bash", programs.contained("bash")?)?;
    let tree = programs.contained_tree("bash")?;
    layer.tree("usr/lib", &tree.join("usr/lib"))?;
    Ok(())
}

fn tool_names() -> Vec<&'static str> {
    [&APPLETS[..], &MORE_APPLETS[..]].concat()
}
