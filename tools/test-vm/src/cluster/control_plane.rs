//! The control plane: etcd, API server, controller manager and scheduler.
//!
//! One of each, nothing kept, no fsync.

use super::certificates::{self, Authority, Certified, Purpose};
use super::egress::Forward;
use super::roles::{self, Roles};
use super::{BIN, GATEWAY, HOME, Place, Programs, free_ports, node_address, write};
use crate::ec2::Ec2;
use crate::emulator::{Emulator, Start};
use crate::services;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Network, SandboxChild};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The programs that a control plane is made of, and the client that goes with it.
const CONTROL_PLANE: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
];

const API_SERVER: &str = "kube-apiserver";
/// The token by which nodes join.
const BOOTSTRAP_TOKEN: &str = "abcdef.0123456789abcdef";
/// The addresses of services.
const SERVICES: &str = "10.96.0.0/16";
/// The API server's own address among them: the first one.
const API_SERVICE: &str = "10.96.0.1";
/// The address that a cluster DNS would have, by convention the tenth.
const CLUSTER_DNS: &str = "10.96.0.10";
/// The addresses of pods, of which each node gets a part.
const PODS: &str = "10.244.0.0/16";
/// The port that kubelet listens at.
const KUBELET_PORT: u16 = 10250;

const KUBECONFIG: &str = "admin.kubeconfig";
/// What judged the tokens of roles, a line each.
const JUDGED: &str = "judged-tokens.log";
const WEBHOOK: &str = "webhook.json";
/// The cluster's name.
const NAME: &str = "test";
const EGRESS: &str = "egress.sock";

/// How long the API server may take until it is ready, and a program until it ends.
const START_TIME: Duration = Duration::from_secs(180);
const PERIOD: Duration = Duration::from_millis(500);

/// What lets nodes join.
const BOOTSTRAP: &str = include_str!("bootstrap.yaml");

/// Ports of loopback.
#[derive(Clone, Copy, Debug)]
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peers: u16,
    controller_manager: u16,
    scheduler: u16,
    kubelet: u16,
}

impl Ports {
    fn of(place: Place<'_>) -> Result<Self> {
        match place {
            Place::Network(_) => Ok(Self {
                api: 6443,
                etcd: 2379,
                etcd_peers: 2380,
                controller_manager: 10257,
                scheduler: 10259,
                kubelet: KUBELET_PORT,
            }),
            Place::Workstation => {
                let [
                    api,
                    etcd,
                    etcd_peers,
                    controller_manager,
                    scheduler,
                    kubelet,
                ] = free_ports()?;
                Ok(Self {
                    api,
                    etcd,
                    etcd_peers,
                    controller_manager,
                    scheduler,
                    kubelet,
                })
            }
        }
    }
}

/// A control plane that runs. Dropped, it is gone.
#[derive(Debug)]
pub struct ControlPlane {
    emulator: Emulator,
    programs: Programs,
    folder: PathBuf,
    network: Network,
    ports: Ports,
    authority: String,
    /// In the order in which they are ended.
    running: Vec<(&'static str, SandboxChild)>,
    api_arguments: Vec<String>,
    _egress: services::Running,
}

impl ControlPlane {
    /// Starts one and waits until its API server is ready. `folder` takes keys, data
    /// and logs; `nodes` is the greatest number of nodes that the API server can reach.
    /// Where there is an `instance`, its role in AWS is a node.
    pub(super) fn start(
        emulator: &Emulator,
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
        nodes: u8,
        instance: Option<&Ec2>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // Said before anything runs, rather than when the last of them is started.
        programs.binds(&CONTROL_PLANE)?;
        let ports = Ports::of(place)?;
        let authority = write_keys(folder, ports)?;
        let forwards: Vec<Forward> = (0..nodes)
            .map(|index| Forward {
                node: SocketAddrV4::new(node_address(index), KUBELET_PORT),
                port: ports.kubelet + u16::from(index),
            })
            .collect();
        let roles = match instance {
            Some(instance) => {
                let path = folder.join("roles.json");
                Roles::new(NAME, instance, folder.join(JUDGED)).write(&path)?;
                write(folder, WEBHOOK, &roles::webhook_config().to_string())?;
                Some(path)
            }
            None => None,
        };
        let egress = services::start_egress(
            match place {
                Place::Network(network) => Some(network.pid()),
                Place::Workstation => None,
            },
            &folder.join(EGRESS),
            &forwards,
            roles.as_deref(),
        )?;
        let mut plane = Self {
            emulator: emulator.clone(),
            programs: programs.clone(),
            folder: folder.to_path_buf(),
            network: place.network(),
            ports,
            authority,
            running: Vec::new(),
            api_arguments: api_server(ports),
            _egress: egress,
        };
        plane.spawn("etcd", &etcd(ports))?;
        if roles.is_some() {
            plane.api_arguments.extend(tokens_by_webhook());
        }
        plane.start_api_server()?;
        plane.let_nodes_join()?;
        plane.spawn("kube-controller-manager", &controller_manager(ports))?;
        plane.spawn("kube-scheduler", &scheduler(ports))?;
        plane.running.reverse();
        Ok(plane)
    }

    /// Has a token by which nodes join, and what they may do with it.
    pub fn let_nodes_join(&self) -> Result<()> {
        self.apply(BOOTSTRAP)
    }

    /// Says that the token has been at its end for years, which removes it.
    pub fn expire_token(&self) -> Result<()> {
        const TOKEN: &str = "secret/bootstrap-token-abcdef";
        let patch = json!({ "stringData": { "expiration": "2020-01-01T00:00:00Z" } });
        let patch = patch.to_string();
        self.kubectl(&["--namespace=kube-system", "patch", TOKEN, "--patch", &patch])?;
        Ok(())
    }

    /// Starts the API server and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        self.spawn(API_SERVER, &self.api_arguments.clone())?;
        self.wait_until_ready()
    }

    /// Ends the API server, and nothing else.
    pub fn stop_api_server(&mut self) {
        for (_, mut child) in self.running.extract_if(.., |(name, _)| *name == API_SERVER) {
            child.kill();
        }
    }

    /// The programs that it was started with.
    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The port of loopback that has to lead to the kubelet of a node.
    pub fn kubelet_forward(&self, index: u8) -> (u16, u16) {
        (self.ports.kubelet + u16::from(index), KUBELET_PORT)
    }

    /// The settings by which a machine becomes a node of this cluster, as TOML.
    pub(super) fn node_settings(&self) -> String {
        format!(
            "[settings.kubernetes]\n\
             api-server = \"{}\"\n\
             cluster-certificate = \"{}\"\n\
             authentication-mode = \"tls\"\n\
             bootstrap-token = \"{BOOTSTRAP_TOKEN}\"\n\
             cluster-name = \"{NAME}\"\n\
             cluster-domain = \"cluster.local\"\n\
             cluster-dns-ip = \"{CLUSTER_DNS}\"\n\
             server-tls-bootstrap = true\n",
            self.address(),
            self.certificate()
        )
    }

    /// The cluster's name.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// Where nodes find the API server.
    pub fn address(&self) -> String {
        format!("https://{GATEWAY}:{}", self.ports.api)
    }

    /// The certificate of the cluster's authority, as settings have it.
    pub fn certificate(&self) -> String {
        STANDARD.encode(&self.authority)
    }

    /// What became of the tokens that nodes have sent, a line of JSON each.
    pub fn judged_tokens(&self) -> Result<String> {
        let path = self.folder.join(JUDGED);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The administrator's configuration of `kubectl`, complete in itself.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join(KUBECONFIG)
    }

    /// What runs its programs.
    pub(super) fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The network that it is in.
    pub(super) fn network(&self) -> Network {
        self.network
    }

    /// Runs `kubectl` and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, b"")
    }

    /// What a pod serves at `path` of its `port`, asked for as a user does it whose
    /// workstation does not reach pods: `kubectl port-forward`.
    pub fn fetch_forwarded(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let [outside] = free_ports()?;
        let config = format!("--kubeconfig={HOME}/{KUBECONFIG}");
        let ports = format!("{outside}:{port}");
        let forward = [&config, "port-forward", pod, &ports];
        let mut forward = self.beside("kubectl", "port-forward", &forward, |start| {
            self.emulator.spawn(start)
        })?;
        let url = format!("http://127.0.0.1:{outside}{path}");
        let wget = ["wget", "-q", "-T", "30", "-O-", &url];
        let started = Instant::now();
        let fetched = loop {
            let fetched = self.beside("busybox", "busybox", &wget, |start| {
                self.emulator.output(start, b"")
            });
            // It says that it listens, which is a line of a log that nobody reads.
            if fetched.is_ok() || started.elapsed() > START_TIME {
                break fetched;
            }
            thread::sleep(PERIOD);
        };
        forward.kill();
        fetched
    }

    /// Creates or changes the objects of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["apply", "--filename=-"], manifest.as_bytes())
            .map(drop)
    }

    /// Applies the manifest of the network of services, which has to know the API
    /// server's address and that of pods.
    pub(super) fn apply_service_network(&self, manifest: &str) -> Result<()> {
        let manifest = manifest
            .replace("API_HOST", GATEWAY)
            .replace("API_PORT", &self.ports.api.to_string())
            .replace("PODS", PODS);
        self.apply(&manifest)
    }

    /// Objects as `kubectl get --output=json` shows them.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["get", "--output=json"], arguments].concat();
        let text = self.kubectl(&arguments)?;
        serde_json::from_str(&text)
            .with_context(|| format!("kubectl {} printed no JSON", arguments.join(" ")))
    }

    /// Approves the certificates that nodes ask for to serve with, as whoever runs a
    /// cluster does; returns how many there were.
    pub fn approve_serving_certificates(&self) -> Result<usize> {
        let requests = self.get(&["certificatesigningrequests"])?;
        let pending = pending_serving_requests(&requests);
        for name in &pending {
            self.kubectl(&["certificate", "approve", name])?;
        }
        Ok(pending.len())
    }

    /// Whether some node of the cluster is ready.
    pub fn has_ready_node(&self) -> Result<bool> {
        let nodes = self.get(&["nodes"])?;
        let nodes = nodes["items"].as_array();
        Ok(nodes.is_some_and(|nodes| nodes.iter().any(|node| has_condition(node, "Ready"))))
    }

    fn kubectl_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let config = format!("--kubeconfig={HOME}/{KUBECONFIG}");
        let arguments = [&[config.as_str()], arguments].concat();
        self.beside("kubectl", "kubectl", &arguments, |start| {
            self.emulator.output(start, input)
        })
    }

    fn spawn(&mut self, program: &'static str, arguments: &[String]) -> Result<()> {
        let child = self.beside(program, program, arguments, |start| {
            self.emulator.spawn(start)
        })?;
        self.running.push((program, child));
        Ok(())
    }

    /// Has `run` start a program in the cluster's network and folder, with messages in
    /// `<log>.log`.
    fn beside<T>(
        &self,
        program: &str,
        log: &str,
        arguments: &[impl AsRef<str>],
        run: impl FnOnce(Start<'_>) -> Result<T>,
    ) -> Result<T> {
        run(Start {
            folder: &self.folder,
            readable: &self.programs.binds(&[program])?,
            devices: &[],
            network: self.network,
            environment: &[("HOME", HOME)],
            program: &format!("{BIN}/{program}"),
            log,
            arguments: arguments
                .iter()
                .map(|argument| OsString::from(argument.as_ref()))
                .collect(),
        })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(error) = self.kubectl(&["get", "--raw=/readyz"]) else {
                return Ok(());
            };
            for (_, child) in &mut self.running {
                if let Some(status) = child.try_wait().context("cannot ask for its state")? {
                    bail!(
                        "a program of the control plane has ended ({status}): see the logs in {}",
                        self.folder.display()
                    );
                }
            }
            if started.elapsed() > START_TIME {
                return Err(error).context(format!(
                    "the API server is not ready after {} s: see the logs in {}",
                    START_TIME.as_secs(),
                    self.folder.display()
                ));
            }
            thread::sleep(PERIOD);
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            child.kill();
        }
    }
}

/// Whether the condition called `name` of an object is true.
pub fn has_condition(object: &Value, name: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == name && condition["status"] == "True")
}

/// Names of the requests of nodes for serving certificates that nobody has decided on.
fn pending_serving_requests(requests: &Value) -> Vec<String> {
    let items = requests["items"].as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter(|item| {
            item["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
                && item["status"]["conditions"].is_null()
        })
        .filter_map(|item| item["metadata"]["name"].as_str())
        .map(str::to_string)
        .collect()
}

/// Makes and writes all keys, certificates and configurations; returns the cluster's
/// authority.
fn write_keys(folder: &Path, ports: Ports) -> Result<String> {
    let cluster = Authority::new("cluster")?;
    cluster.write(folder, "cluster")?;
    let serving = Purpose::Server(&[
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        GATEWAY,
        API_SERVICE,
    ]);
    cluster
        .issue("kube-apiserver", &serving)?
        .write(folder, "api")?;
    let administrator = Purpose::Client {
        group: Some("system:masters"),
    };
    cluster
        .issue("kube-apiserver-kubelet-client", &administrator)?
        .write(folder, "kubelet-client")?;
    let user = Purpose::Client { group: None };
    for (name, purpose, file) in [
        ("admin", &administrator, KUBECONFIG),
        (
            "system:kube-controller-manager",
            &user,
            "controller-manager.kubeconfig",
        ),
        ("system:kube-scheduler", &user, "scheduler.kubeconfig"),
    ] {
        let config = kubeconfig(&cluster, &cluster.issue(name, purpose)?, ports.api);
        write(folder, file, &config.to_string())?;
    }
    // Whoever may use etcd rules the cluster, and a workstation has other users.
    let etcd = Authority::new("etcd")?;
    etcd.write(folder, "etcd")?;
    etcd.issue("etcd", &Purpose::Server(&["127.0.0.1"]))?
        .write(folder, "etcd-server")?;
    etcd.issue("kube-apiserver", &user)?
        .write(folder, "etcd-client")?;
    certificates::write_signing_key(folder, "service-accounts")?;
    let egress = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{
            "name": "cluster",
            "connection": {
                "proxyProtocol": "HTTPConnect",
                "transport": { "uds": { "udsName": format!("{HOME}/{EGRESS}") } },
            },
        }],
    });
    write(folder, "egress.json", &egress.to_string())?;
    Ok(cluster.certificate().to_string())
}

fn kubeconfig(authority: &Authority, client: &Certified, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bulkhead",
        "clusters": [{
            "name": "bulkhead",
            "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority-data": STANDARD.encode(authority.certificate()),
            },
        }],
        "users": [{
            "name": "bulkhead",
            "user": {
                "client-certificate-data": STANDARD.encode(&client.certificate),
                "client-key-data": STANDARD.encode(&client.key),
            },
        }],
        "contexts": [{
            "name": "bulkhead",
            "context": { "cluster": "bulkhead", "user": "bulkhead" },
        }],
    })
}

fn etcd(ports: Ports) -> Vec<String> {
    let clients = format!("https://127.0.0.1:{}", ports.etcd);
    let peers = format!("http://127.0.0.1:{}", ports.etcd_peers);
    vec![
        "--name=only".to_string(),
        format!("--data-dir={HOME}/etcd"),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=only={peers}"),
        format!("--cert-file={HOME}/etcd-server.crt"),
        format!("--key-file={HOME}/etcd-server.key"),
        format!("--trusted-ca-file={HOME}/etcd.crt"),
        "--client-cert-auth".to_string(),
        // It calls itself, too.
        format!("--client-cert-file={HOME}/etcd-client.crt"),
        format!("--client-key-file={HOME}/etcd-client.key"),
        "--unsafe-no-fsync".to_string(),
        "--log-level=warn".to_string(),
    ]
}

fn api_server(ports: Ports) -> Vec<String> {
    vec![
        "--bind-address=127.0.0.1".to_string(),
        format!("--secure-port={}", ports.api),
        // Where pods find it, behind its service.
        format!("--advertise-address={GATEWAY}"),
        format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd),
        format!("--etcd-cafile={HOME}/etcd.crt"),
        format!("--etcd-certfile={HOME}/etcd-client.crt"),
        format!("--etcd-keyfile={HOME}/etcd-client.key"),
        format!("--tls-cert-file={HOME}/api.crt"),
        format!("--tls-private-key-file={HOME}/api.key"),
        format!("--client-ca-file={HOME}/cluster.crt"),
        "--enable-bootstrap-token-auth".to_string(),
        "--authorization-mode=Node,RBAC".to_string(),
        "--enable-admission-plugins=NodeRestriction".to_string(),
        "--allow-privileged".to_string(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_string(),
        format!("--service-account-key-file={HOME}/service-accounts.pub"),
        format!("--service-account-signing-key-file={HOME}/service-accounts.key"),
        format!("--kubelet-certificate-authority={HOME}/cluster.crt"),
        format!("--kubelet-client-certificate={HOME}/kubelet-client.crt"),
        format!("--kubelet-client-key={HOME}/kubelet-client.key"),
        "--kubelet-preferred-address-types=InternalIP".to_string(),
        format!("--egress-selector-config-file={HOME}/egress.json"),
    ]
}

/// Has tokens that the API server does not know itself judged by a webhook.
fn tokens_by_webhook() -> [String; 2] {
    [
        format!("--authentication-token-webhook-config-file={HOME}/{WEBHOOK}"),
        "--authentication-token-webhook-version=v1".to_string(),
    ]
}

fn controller_manager(ports: Ports) -> Vec<String> {
    let own = [
        "--controllers=*,bootstrapsigner,tokencleaner".to_string(),
        "--use-service-account-credentials".to_string(),
        format!("--cluster-signing-cert-file={HOME}/cluster.crt"),
        format!("--cluster-signing-key-file={HOME}/cluster.key"),
        format!("--root-ca-file={HOME}/cluster.crt"),
        format!("--service-account-private-key-file={HOME}/service-accounts.key"),
        "--allocate-node-cidrs".to_string(),
        format!("--cluster-cidr={PODS}"),
    ];
    let shared = client_of_the_api("controller-manager", ports.controller_manager);
    shared.into_iter().chain(own).collect()
}

fn scheduler(ports: Ports) -> Vec<String> {
    client_of_the_api("scheduler", ports.scheduler).to_vec()
}

/// What programs are told that work on the API server and serve their own state at
/// `port`: the only one of its kind, and whom it believes, is the API server's word.
fn client_of_the_api(name: &str, port: u16) -> [String; 6] {
    let config = format!("{HOME}/{name}.kubeconfig");
    [
        "--bind-address=127.0.0.1".to_string(),
        format!("--secure-port={port}"),
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--leader-elect=false".to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_undecided_serving_certificates_are_pending() {
        let request = |name: &str, signer: &str, conditions: Value| {
            json!({
                "metadata": { "name": name },
                "spec": { "signerName": signer },
                "status": if conditions.is_null() { json!({}) } else { json!({ "conditions": conditions }) },
            })
        };
        let requests = json!({ "items": [
            request("a", "kubernetes.io/kubelet-serving", Value::Null),
            request("b", "kubernetes.io/kubelet-serving", json!([{ "type": "Approved" }])),
            request("c", "kubernetes.io/kube-apiserver-client-kubelet", Value::Null),
        ]});
        assert_eq!(pending_serving_requests(&requests), ["a"]);
        assert!(pending_serving_requests(&json!({})).is_empty());
    }

    #[test]
    fn keys_and_configurations_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports::of(Place::Workstation).unwrap();
        let authority = write_keys(folder.path(), ports).unwrap();
        let config = fs::read_to_string(folder.path().join(KUBECONFIG)).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let known = config["clusters"][0]["cluster"]["certificate-authority-data"]
            .as_str()
            .unwrap();
        assert_eq!(STANDARD.decode(known).unwrap(), authority.as_bytes());
        assert_eq!(config["users"].as_array().unwrap().len(), 1);
        for file in ["api.crt", "etcd-client.key", "service-accounts.pub"] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(text.starts_with("-----BEGIN "), "{file}: {text}");
        }
    }
}
