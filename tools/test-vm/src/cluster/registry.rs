//! A container registry beside the machines: over TLS with an authority of its own, and
//! for those alone who know its password.

use super::certificates::{Authority, Purpose};
use super::{BIN, GATEWAY, HOME, Place, Programs, TOOLS, free_ports, images, write};
use crate::ec2::Ec2;
use crate::ecr::{self, Ecr};
use crate::emulator::{Emulator, Start};
use crate::services;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_image::Image;
use sandbox::{Network, SandboxChild};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The server, and a client that pushes to it.
const PROGRAMS: [&str; 2] = ["registry", "crane"];

const USER: &str = "test";
const PASSWORD: &str = "swordfish";
/// The password's hash by bcrypt, as the server wants it.
const HASH: &str = "$2a$05$/Auj6Y/A701Tw2knRrf1a.nOeGJZ0y15eA2o7exuj.2kz..AXzAeG";
const START_TIME: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(200);

/// A registry that runs. Dropped, it is gone.
#[derive(Debug)]
pub struct Registry {
    emulator: Emulator,
    programs: Programs,
    folder: PathBuf,
    network: Network,
    port: u16,
    authority: String,
    running: SandboxChild,
    /// What takes its place meanwhile.
    dropping: Option<services::Running>,
    /// A mirror of it.
    stalling: Option<services::Running>,
}

impl Registry {
    /// Starts one, with nothing in it, and waits until it answers. `folder` takes its
    /// keys, images and log.
    pub fn start(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let port = match place {
            Place::Network(_) => 5000,
            Place::Workstation => {
                let [port] = free_ports()?;
                port
            }
        };
        let authority = Authority::new("registry")?;
        write(folder, "authority.crt", authority.certificate())?;
        authority
            .issue(
                "registry",
                &Purpose::Server(&["127.0.0.1", GATEWAY, ecr::REGISTRY]),
            )?
            .write(folder, "registry")?;
        authority
            .issue("ecr", &Purpose::Server(&[ecr::SERVICE]))?
            .write(folder, "ecr")?;
        let passwords = [USER, ecr::USER].map(|user| format!("{user}:{HASH}\n"));
        write(folder, "passwords", &passwords.concat())?;
        // Every value is JSON, which is YAML, too.
        let config = json!({
            "version": 0.1,
            "log": { "level": "warn", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": format!("{HOME}/images") } },
            "auth": { "htpasswd": { "realm": "test", "path": format!("{HOME}/passwords") } },
            "http": {
                "addr": host(port),
                "tls": {
                    "certificate": format!("{HOME}/registry.crt"),
                    "key": format!("{HOME}/registry.key"),
                },
            },
        });
        write(folder, "config.yaml", &config.to_string())?;
        let login = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let login = json!({ "auths": { host(port): { "auth": login } } });
        write(folder, "config.json", &login.to_string())?;
        let network = place.network();
        let running = serve(emulator, programs, folder, network)?;
        let mut registry = Self {
            emulator: emulator.clone(),
            programs: programs.clone(),
            folder: folder.to_path_buf(),
            network,
            port,
            authority: authority.certificate().to_string(),
            running,
            dropping: None,
            stalling: None,
        };
        registry.wait_until_ready()?;
        Ok(registry)
    }

    /// Ends it, as a registry that is down. Its images stay.
    pub fn stop(&mut self) {
        self.running.kill();
    }

    /// The name by which nodes know the image called `name` here, such as `app:1`.
    pub fn image(&self, name: &str) -> String {
        format!("{GATEWAY}:{}/{name}", self.port)
    }

    /// Puts an image with small programs into the registry; returns its name.
    pub fn add_tools(&self) -> Result<String> {
        self.add_tools_as(TOOLS)
    }

    /// The same under a name of its own, such as `tools:2`, and of a layer of its own.
    pub fn add_tools_as(&self, name: &str) -> Result<String> {
        self.push(name, &images::tools(&self.programs, name)?)?;
        Ok(self.image(name))
    }

    /// The same, run as the user `agent` (1000) of the groups `users` (100) and `api` (274), by
    /// that name.
    pub fn add_tools_of_a_user(&self) -> Result<String> {
        const NAME: &str = "of-a-user:1";
        self.push(NAME, &images::tools_of_a_user(&self.programs)?)?;
        Ok(self.image(NAME))
    }

    /// Gives the name of what [`Self::add_tools`] has put there to another image, as who moves
    /// a tag does. It has a folder `/srv/moved`.
    pub fn move_tools(&self) -> Result<()> {
        self.push(TOOLS, &images::tools(&self.programs, "moved")?)
    }

    /// Puts `image` into the registry as `name`, such as `app:1`.
    pub fn push(&self, name: &str, image: &Image) -> Result<()> {
        const LAYOUT: &str = "layout";
        let layout = self.folder.join(LAYOUT);
        image.write_layout(name, &layout)?;
        let pushed = self.crane(&["push", LAYOUT, &self.reference(name)]);
        fs::remove_dir_all(&layout)
            .with_context(|| format!("cannot remove {}", layout.display()))?;
        pushed.map(drop)
    }

    /// The name by which programs beside it know the image called `name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", host(self.port))
    }

    /// The variables by which a client beside it trusts it and is let in.
    pub fn client_environment(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| self.folder.join(name).display().to_string();
        [
            ("DOCKER_CONFIG", path("")),
            ("SSL_CERT_FILE", path("authority.crt")),
        ]
    }

    /// The digest of the image called `name`, as it is there.
    pub fn digest(&self, name: &str) -> Result<String> {
        let digest = self.crane(&["digest", &self.reference(name)])?;
        Ok(digest.trim().to_string())
    }

    /// Drops all connections from now on.
    pub fn drop_connections(&mut self) -> Result<()> {
        self.running.kill();
        self.dropping = Some(services::start_dropping(self.join(), self.port)?);
        Ok(())
    }

    /// Starts a mirror of it that begins to answer and gets no further; returns the settings by
    /// which a node takes it, as JSON.
    pub fn start_stalling_mirror(&mut self) -> Result<Value> {
        let port = self.port + 1;
        self.stalling = Some(services::start_stalling(self.join(), port)?);
        Ok(json!({
            "container-registry": {
                "mirrors": [{
                    "registry": format!("{GATEWAY}:{}", self.port),
                    "endpoint": [format!("http://{GATEWAY}:{port}")],
                }],
            },
        }))
    }

    /// The process whose network it is in.
    fn join(&self) -> Option<u32> {
        match self.network {
            Network::Of(pid) => Some(pid.unsigned_abs()),
            _ => None,
        }
    }

    /// Serves again what it has served before it was stopped or dropped connections.
    pub fn serve_again(&mut self) -> Result<()> {
        self.dropping = None;
        self.running = serve(&self.emulator, &self.programs, &self.folder, self.network)?;
        self.wait_until_ready()
    }

    /// Turns round a bit of the first layer of the image called `name` where it is
    /// stored, or turns it back.
    pub fn flip_bit_of(&self, name: &str) -> Result<()> {
        let manifest = self.crane(&["manifest", &self.reference(name)])?;
        let manifest: Value = serde_json::from_str(&manifest)
            .with_context(|| format!("the manifest of {name} is no JSON"))?;
        let digest = manifest["layers"][0]["digest"].as_str();
        let hash = digest
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .filter(|hash| hash.len() == 64)
            .with_context(|| format!("the image {name} has no layer: {manifest}"))?;
        let path = self.folder.join(format!(
            "images/docker/registry/v2/blobs/sha256/{}/{hash}/data",
            &hash[..2]
        ));
        let flip = || -> Result<()> {
            let mut bytes = fs::read(&path)?;
            *bytes.last_mut().context("it is empty")? ^= 1;
            Ok(fs::write(&path, bytes)?)
        };
        flip().with_context(|| format!("cannot alter {}", path.display()))
    }

    /// The certificate of its authority, as settings have it.
    pub fn certificate(&self) -> String {
        STANDARD.encode(&self.authority)
    }

    /// The settings by which a node trusts the registry and logs in there, as TOML.
    pub fn node_settings(&self) -> String {
        format!(
            "[settings.pki.registry]\n\
             trusted = true\n\
             data = \"{}\"\n\
             [[settings.container-registry.credentials]]\n\
             registry = \"{GATEWAY}:{}\"\n\
             username = \"{USER}\"\n\
             password = \"{PASSWORD}\"\n",
            self.certificate(),
            self.port
        )
    }

    /// The service by which the role of `instance` is let in here as it is by ECR.
    pub fn ecr(&self, instance: &Ec2) -> Result<Ecr> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Ecr {
            instance: instance.clone(),
            password: PASSWORD.to_string(),
            certificate: read("ecr.crt")?,
            key: read("ecr.key")?,
        })
    }

    /// The name that the image called `name` has as one of ECR.
    pub fn ecr_image(&self, name: &str) -> String {
        format!("{}:{}/{name}", ecr::REGISTRY, self.port)
    }

    /// The name that it has for pods. kubelet knows ECR's registries by names without a port.
    pub fn ecr_image_of_pods(&self, name: &str) -> String {
        format!("{}/{name}", ecr::REGISTRY)
    }

    /// The settings by which a machine finds the registry and its service under the names
    /// that ECR has for them, as TOML.
    pub fn ecr_settings(&self) -> String {
        let (registry, service, port) = (ecr::REGISTRY, ecr::SERVICE, self.port);
        format!(
            "[settings.network]\n\
             hosts = [[\"{GATEWAY}\", [\"{registry}\", \"{service}\"]]]\n\
             [[settings.container-registry.mirrors]]\n\
             registry = \"{registry}\"\n\
             endpoint = [\"https://{registry}:{port}\"]\n",
        )
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(error) = self.crane(&["catalog", &host(self.port)]) else {
                return Ok(());
            };
            let ended = self
                .running
                .try_wait()
                .context("cannot ask for its state")?;
            if ended.is_some() || started.elapsed() > START_TIME {
                return Err(error).context(format!(
                    "the registry does not answer: see {}",
                    self.folder.join("registry.log").display()
                ));
            }
            thread::sleep(PERIOD);
        }
    }

    fn crane(&self, arguments: &[&str]) -> Result<String> {
        self.emulator.output(
            Start {
                folder: &self.folder,
                readable: &self.programs.binds(&PROGRAMS)?,
                devices: &[],
                network: self.network,
                environment: &[
                    ("DOCKER_CONFIG", HOME),
                    ("SSL_CERT_FILE", &format!("{HOME}/authority.crt")),
                ],
                program: &format!("{BIN}/crane"),
                log: "crane",
                arguments: arguments.iter().map(OsString::from).collect(),
            },
            b"",
        )
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.running.kill();
    }
}

/// Starts the server whose configuration lies in `folder`.
fn serve(
    emulator: &Emulator,
    programs: &Programs,
    folder: &Path,
    network: Network,
) -> Result<SandboxChild> {
    emulator.spawn(Start {
        folder,
        readable: &programs.binds(&PROGRAMS)?,
        devices: &[],
        network,
        environment: &[],
        program: &format!("{BIN}/registry"),
        log: "registry",
        arguments: ["serve".to_string(), format!("{HOME}/config.yaml")]
            .map(OsString::from)
            .to_vec(),
    })
}

/// Where the registry is for programs beside it.
fn host(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
