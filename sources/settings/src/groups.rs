//! The groups of settings, one file each, and the document they make up.

pub mod autoscaling;
pub mod aws;
pub mod boot;
pub mod bootstrap_commands;
pub mod bootstrap_containers;
pub mod cloudformation;
pub mod container_registry;
pub mod container_runtime;
pub mod dns;
pub mod host_containers;
pub mod image_verifier_plugins;
pub mod kernel;
pub mod kubernetes;
pub mod measurement;
pub mod metrics;
pub mod motd;
pub mod network;
pub mod ntp;
pub mod oci_defaults;
pub mod oci_hooks;
pub mod pki;
pub mod updates;
pub mod upstream;
pub mod user_data;

use crate::model::group;
use crate::{Model, Schema, Variant};

group! {
    /// Settings of a Bulkhead host.
    pub struct Settings {
        /// Message of the day, shown to whoever opens a terminal in a host container.
        "motd" => motd: motd::Motd, default "Welcome to Bulkhead!";
        /// What a fault in user data costs: `lenient` leaves a faulty setting at its
        /// default unless it decides the host's identity, its cluster or its
        /// security; with `strict` any fault stops the boot.
        "user-data-policy" => user_data_policy: user_data::UserDataPolicy, default "lenient";
        /// Names and proxies of the network.
        "network" => network: network::Network;
        /// Time synchronisation.
        "ntp" => ntp: ntp::Ntp;
        /// Name resolution.
        "dns" => dns: dns::Dns;
        /// The Linux kernel at run time.
        "kernel" => kernel: kernel::Kernel;
        /// The next boot.
        "boot" => boot: boot::Boot;
        /// Certificates that the host trusts, by name of a bundle.
        "pki" => pki: pki::Pki;
        /// Updates of the host.
        "updates" => updates: updates::Updates;
        /// Containers that serve the host, by name.
        "host-containers" => host_containers: host_containers::HostContainers;
        /// Containers that run at boot, by name.
        "bootstrap-containers" => bootstrap_containers: bootstrap_containers::BootstrapContainers;
        /// Calls of `apiclient` at boot, by name, which is also their order.
        "bootstrap-commands" => bootstrap_commands: bootstrap_commands::BootstrapCommands;
        /// Registries that images come from.
        "container-registry" => container_registry: container_registry::ContainerRegistry;
        /// containerd, as it runs pods.
        "container-runtime" => container_runtime: container_runtime::ContainerRuntime,
            only Kubernetes;
        /// Plugins of containerd.
        "container-runtime-plugins" => container_runtime_plugins:
            container_runtime::ContainerRuntimePlugins, only AwsKubernetes;
        /// Checks of an image's signature before a pod runs it.
        "image-verifier-plugins" => image_verifier_plugins:
            image_verifier_plugins::ImageVerifierPlugins, only Kubernetes;
        /// What containers get that do not ask for something else.
        "oci-defaults" => oci_defaults: oci_defaults::OciDefaults, only Kubernetes;
        /// Hooks of containers. There are none any more.
        "oci-hooks" => oci_hooks: oci_hooks::OciHooks;
        /// Kubernetes.
        "kubernetes" => kubernetes: kubernetes::Kubernetes, only Kubernetes;
        /// Fields of kubelet's configuration that have no setting in
        /// `settings.kubernetes`, as its `KubeletConfiguration` names them.
        "kubelet-configuration" => kubelet_configuration: upstream::KubeletConfiguration,
            only Kubernetes,
            example "{ nodeStatusMaxImages = 100, featureGates = { \"ExampleGate\" = true } }";
        /// Fields of containerd's configuration that have no setting in
        /// `settings.container-runtime`, as its `config.toml` names them.
        "containerd-configuration" => containerd_configuration: upstream::ContainerdConfiguration,
            only Kubernetes,
            example "{ plugins = { \"io.containerd.gc.v1.scheduler\" = { deletion_threshold = 10 } } }";
        /// Measurement of the settings into the TPM.
        "measurement" => measurement: measurement::Measurement;
        /// The ping by which a host says that it is well.
        "metrics" => metrics: metrics::Metrics;
        /// Access to AWS.
        "aws" => aws: aws::Aws, only AwsOrKubernetes;
        /// The signal to AWS CloudFormation that a resource has come up.
        "cloudformation" => cloudformation: cloudformation::Cloudformation, only Aws;
        /// EC2 Auto Scaling.
        "autoscaling" => autoscaling: autoscaling::Autoscaling, only AwsKubernetes;
    }
}

impl Settings {
    /// The settings that `variant` has. [`Model::schema`] has those of all.
    pub fn schema_for(variant: &Variant) -> Schema {
        Self::schema().for_variant(variant)
    }
}
