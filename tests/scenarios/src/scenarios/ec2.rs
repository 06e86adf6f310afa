//! What the machine does as an instance of EC2.

use super::boot::check_clean;
use super::host_containers::{CONTROL, Host};
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use test_vm::api::Api;
use test_vm::cluster::{Cluster, has_condition, sleeper};
use test_vm::disk::RawDisk;
use test_vm::{Ec2, Reach, Services, TestNetwork};

/// Processor seconds from power-on within which the node must have registered, and
/// then within which it must be ready: with an image to pull.
const REGISTERED: f64 = 150.0;
const READY: f64 = 60.0;

/// What Karpenter writes for a node of this cluster: its own labels and its taint, the
/// cluster's three keys, and what the user's class of nodes has besides, which here
/// is how it gets at the test's registry, and a control container of ECR's.
fn karpenter(cluster: &Cluster) -> String {
    format!(
        "[settings]\n\
         [settings.kubernetes]\n\
         api-server = '{}'\n\
         cluster-certificate = '{}'\n\
         cluster-name = '{}'\n\
         \n\
         [settings.kubernetes.node-labels]\n\
         'karpenter.k8s.aws/ec2nodeclass' = 'bulkhead'\n\
         'karpenter.sh/capacity-type' = 'spot'\n\
         'karpenter.sh/do-not-sync-taints' = 'true'\n\
         'karpenter.sh/nodepool' = 'batch'\n\
         \n\
         [settings.kubernetes.node-taints]\n\
         'karpenter.sh/unregistered' = [':NoExecute']\n\
         \n{}{}\
         [settings.host-containers.control]\n\
         source = '{}'\n\
         command = ['/bin/sh', '-c', 'echo {FROM_ECR}; trap exit TERM; sleep 1000000 & wait']\n",
        cluster.plane.address(),
        cluster.plane.certificate(),
        cluster.plane.name(),
        cluster.registry.node_settings(),
        cluster.registry.ecr_settings(),
        cluster.registry.ecr_image("control:1"),
    )
}

/// What the control container says.
const FROM_ECR: &str = "the role has let this come from ECR";

/// An instance joins a cluster by its role, with nothing but what Karpenter gives it. By the
/// same role a host container and a pod come from ECR.
pub(crate) fn node_joins(stage: &mut Stage<'_>) -> Result<()> {
    let parts = stage.cluster()?;
    let image = (parts.ec2_node)()?;
    let emulator = &stage.setup().emulator;
    let network = Arc::new(TestNetwork::new(emulator, &stage.fresh_folder("network")?)?);
    let mut instance = Ec2::new()?;
    let folder = stage.fresh_folder("cluster")?;
    let cluster = Cluster::start_for_role(emulator, &parts.programs, &folder, &network, &instance)?;
    let plane = &cluster.plane;
    for image in ["control:1", "pod:1"] {
        cluster.registry.add_tools_as(image)?;
    }
    instance.user_data = Some(karpenter(&cluster).into_bytes());

    let (mut builder, disk) = stage.roomy_machine_of(&image, "node")?;
    builder.reach = Reach::Shared { network, index: 0 };
    builder.forwards = vec![plane.kubelet_forward(0)];
    builder.services = Services {
        metadata: Some(instance.clone()),
        ecr: Some(cluster.registry.ecr(&instance)?),
        ..Services::default()
    };
    let mut machine = stage.start(&builder)?;
    machine.wait_for(marks::API_READY, BOOT)?;
    check_settings(&Api::at(&machine.api_socket()), &instance)?;

    let name = instance.private_dns_name();
    let object = || plane.get(&["node", &name]);
    let joined = machine.wait_until("the node has registered", REGISTERED, || object().is_ok());
    joined.with_context(|| match plane.judged_tokens() {
        Ok(judged) => format!("of tokens was said:\n{judged}"),
        Err(error) => format!("{error:#}"),
    })?;
    stage.note(format!(
        "registered after {:.1} CPU s",
        machine.cpu_seconds()
    ));
    let mut approved = 0;
    machine.wait_until("the node is ready", READY, || {
        // Whoever runs a cluster approves these.
        approved += plane.approve_serving_certificates().unwrap_or(0);
        approved > 0 && object().is_ok_and(|node| has_condition(&node, "Ready"))
    })?;
    stage.note(format!("ready after {:.1} CPU s", machine.cpu_seconds()));
    check_node(&object()?, &instance)?;
    // A cluster of EKS approves no certificates that nodes would prove themselves by.
    let requests = plane.get(&["certificatesigningrequests"])?;
    let requests = requests["items"].as_array().cloned().unwrap_or_default();
    for request in requests {
        let signer = &request["spec"]["signerName"];
        ensure!(signer == "kubernetes.io/kubelet-serving", "{request:#}");
    }
    // By the certificate that was approved, and as nobody but the API server may.
    let health = format!("/api/v1/nodes/{name}/proxy/healthz");
    let health = plane.kubectl(&["get", "--raw", &health])?;
    ensure!(health == "ok", "kubelet says {health:?}");

    Host(&machine).wait_for(CONTROL, FROM_ECR)?;
    // This one by kubelet's plugin. Nobody takes the taints of a new node off here.
    let pod = sleeper("from-ecr", &cluster.registry.ecr_image_of_pods("pod:1"));
    plane.apply(&format!("{pod}  tolerations: [{{ operator: Exists }}]\n"))?;
    let runs = machine.wait_until("a pod of ECR runs", READY, || {
        let pod = plane.get(&["pod/from-ecr"]);
        pod.is_ok_and(|pod| has_condition(&pod, "Ready"))
    });
    if runs.is_err() {
        // The plugin's own words are in kubelet's journal alone.
        machine.power_off(BOOT)?;
        drop(machine);
        let journal = stage.journal(&RawDisk::open(disk.path())?)?;
        let mut said = journal.containing("credential provider plugin");
        bail!("no pod of ECR runs: {:?}", said.next());
    }
    stage.note("a host container and a pod came from ECR by the role");

    let judged = plane.judged_tokens()?;
    let refused = judged.lines().filter(|line| line.contains("\"error\""));
    let refused: Vec<&str> = refused.collect();
    ensure!(refused.is_empty(), "tokens were refused: {refused:?}");
    stage.note(format!("{} tokens were judged", judged.lines().count()));

    machine.power_off(BOOT)?;
    drop(machine);
    check_clean(&stage.journal(&RawDisk::open(disk.path())?)?)
}

/// What the host has found out about itself.
fn check_settings(api: &Api, instance: &Ec2) -> Result<()> {
    let settings = api.get("/settings?prefix=settings.")?;
    let kubernetes = &settings["kubernetes"];
    for (name, found, expected) in [
        (
            "aws.region",
            &settings["aws"]["region"],
            instance.region.clone(),
        ),
        (
            "network.hostname",
            &settings["network"]["hostname"],
            instance.private_dns_name(),
        ),
        (
            "kubernetes.hostname-override",
            &kubernetes["hostname-override"],
            instance.private_dns_name(),
        ),
        (
            "kubernetes.node-ip",
            &kubernetes["node-ip"],
            instance.address.to_string(),
        ),
        (
            "kubernetes.provider-id",
            &kubernetes["provider-id"],
            instance.provider_id(),
        ),
        (
            "kubernetes.cluster-dns-ip",
            &kubernetes["cluster-dns-ip"],
            "172.20.0.10".to_string(),
        ),
    ] {
        ensure!(
            found == &Value::from(expected),
            "settings.{name} is {found}"
        );
    }
    ensure!(
        kubernetes["max-pods"] == 29,
        "settings.kubernetes.max-pods is {}",
        kubernetes["max-pods"]
    );
    // Who has launched the instance gets in where admin is enabled.
    let admin = settings["host-containers"]["admin"]["user-data"].as_str();
    let admin = STANDARD.decode(admin.context("admin has no user data")?)?;
    let admin: Value = serde_json::from_slice(&admin)?;
    let expected = json!({ "ssh": { "authorized-keys": [instance.ssh_key()] } });
    ensure!(admin == expected, "the user data of admin is {admin}");
    Ok(())
}

/// What the cluster sees of it.
fn check_node(node: &Value, instance: &Ec2) -> Result<()> {
    ensure!(
        node["spec"]["providerID"] == instance.provider_id(),
        "{node:#}"
    );
    let labels = &node["metadata"]["labels"];
    for (name, value) in [
        ("karpenter.k8s.aws/ec2nodeclass", "bulkhead"),
        ("karpenter.sh/capacity-type", "spot"),
        ("karpenter.sh/do-not-sync-taints", "true"),
        ("karpenter.sh/nodepool", "batch"),
    ] {
        ensure!(labels[name] == value, "{name} is {}", labels[name]);
    }
    let taints = node["spec"]["taints"].as_array();
    let karpenter = taints
        .into_iter()
        .flatten()
        .any(|taint| taint["key"] == "karpenter.sh/unregistered" && taint["effect"] == "NoExecute");
    ensure!(karpenter, "the taints are {taints:?}");
    ensure!(node["status"]["capacity"]["pods"] == "29", "{node:#}");
    Ok(())
}
