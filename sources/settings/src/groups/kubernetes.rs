//! `settings.kubernetes`.

mod types;

pub use types::*;

use crate::model::group;
use crate::types::{Base64, Base64Pem, Hostname, Identifier, SingleLine, Url};
use std::collections::BTreeMap;
use std::net::IpAddr;

group! {
    /// Kubernetes: the cluster, and kubelet. What is unset here is kubelet's default.
    pub struct Kubernetes {
        /// Name of the cluster.
        "cluster-name" => cluster_name: ClusterName;
        /// Certificates of the cluster's authority.
        "cluster-certificate" => cluster_certificate: Base64Pem;
        /// Address of the cluster's API server.
        "api-server" => api_server: Url, example "\"https://cluster.example.com:6443\"";
        /// Addresses of the cluster's DNS: one, or a list, and returned as it was given.
        "cluster-dns-ip" => cluster_dns_ip: OneOrMany<IpAddr>,
            generated "cluster-dns-ip", example "\"10.96.0.10\"";
        /// Domain of the cluster's services.
        "cluster-domain" => cluster_domain: Domain, default "cluster.local";
        /// Address of the node. The host finds it out on EC2; elsewhere kubelet takes the one
        /// that its name resolves to, or that of the default route.
        "node-ip" => node_ip: IpAddr, generated "node-ip";
        /// Labels of the node. A key with a dot in it is quoted.
        "node-labels" => node_labels: BTreeMap<LabelKey, LabelValue>,
            example "{ \"example.com/rack\" = \"r7\" }";
        /// Taints of the node by key, each a list of `value:Effect`, of which the value
        /// can be empty. One text stands for a list of one.
        "node-taints" => node_taints: BTreeMap<LabelKey, Taints>,
            example "{ \"example.com/dedicated\" = [\"db:NoSchedule\"] }";
        /// Pods that kubelet runs from a manifest of the host, by name.
        "static-pods" => static_pods: BTreeMap<Identifier, StaticPod>;
        /// Whether kubelet looks for static pods.
        "static-pods-enabled" => static_pods_enabled: bool;
        /// How the node proves to the cluster who it is: by its role in AWS, which only
        /// variants for EC2 can, or by a bootstrap token and certificates.
        "authentication-mode" => authentication_mode: AuthenticationMode;
        /// Token by which a node asks for its first certificate.
        "bootstrap-token" => bootstrap_token: BootstrapToken, secret true;
        /// Whether kubelet runs static pods only and joins no cluster.
        "standalone-mode" => standalone_mode: bool, default false;
        /// How little may be left of something before pods are evicted at once.
        "eviction-hard" => eviction_hard: EvictionThresholds;
        /// How little may be left before pods are evicted after a grace period.
        "eviction-soft" => eviction_soft: EvictionThresholds;
        /// The grace periods of `eviction-soft`.
        "eviction-soft-grace-period" => eviction_soft_grace_period: EvictionGracePeriods;
        /// Longest grace period of a pod that is evicted softly, in seconds.
        "eviction-max-pod-grace-period" => eviction_max_pod_grace_period: GraceSeconds;
        /// What is kept for the container runtime and kubelet.
        "kube-reserved" => kube_reserved: Reserved;
        /// What is kept for the rest of the host.
        "system-reserved" => system_reserved: Reserved;
        /// Kernel parameters outside the safe ones that pods may set.
        "allowed-unsafe-sysctls" => allowed_unsafe_sysctls: Vec<SingleLine>,
            example "[\"net.core.somaxconn\", \"net.ipv4.tcp_*\"]";
        /// Whether kubelet asks the cluster for its server certificate.
        "server-tls-bootstrap" => server_tls_bootstrap: bool;
        /// Where the node's cloud provider runs: `aws` within kubelet, `external`, or none
        /// at all. Nothing is returned as a text of two quotes.
        "cloud-provider" => cloud_provider: CloudProvider;
        /// Image pulls per second.
        "registry-qps" => registry_qps: i32;
        /// Image pulls at once beyond that.
        "registry-burst" => registry_burst: i32;
        /// Events per second.
        "event-qps" => event_qps: i32;
        /// Events at once beyond that.
        "event-burst" => event_burst: i32;
        /// Calls of the cluster's API per second.
        "kube-api-qps" => kube_api_qps: i32;
        /// Calls at once beyond that.
        "kube-api-burst" => kube_api_burst: i32;
        /// Size at which a container's log is rotated.
        "container-log-max-size" => container_log_max_size: Quantity, example "\"25Mi\"";
        /// Files of a container's log.
        "container-log-max-files" => container_log_max_files: i32, example "5";
        /// Logs that are rotated at a time.
        "container-log-max-workers" => container_log_max_workers: i32, example "1";
        /// How often logs are looked at.
        "container-log-monitor-interval" => container_log_monitor_interval: Duration;
        /// Whether limits of CPU time are enforced.
        "cpu-cfs-quota-enforced" => cpu_cfs_quota_enforced: bool;
        /// How containers get CPUs: `static` gives those that ask for it some of their own.
        "cpu-manager-policy" => cpu_manager_policy: CpuManagerPolicy;
        /// How often the CPU manager looks after its containers.
        "cpu-manager-reconcile-period" => cpu_manager_reconcile_period: Duration;
        /// Options of the policy `static`.
        "cpu-manager-policy-options" => cpu_manager_policy_options: Vec<CpuManagerOption>;
        /// What has to fit together on NUMA nodes.
        "topology-manager-scope" => topology_manager_scope: TopologyScope;
        /// What happens to what does not fit together.
        "topology-manager-policy" => topology_manager_policy: TopologyPolicy;
        /// Options of that policy.
        "topology-manager-policy-options" => topology_manager_policy_options: TopologyOptions;
        /// Processes that a pod may have.
        "pod-pids-limit" => pod_pids_limit: i64, example "1048576";
        /// Percentage of a full disk at which images are removed. A number or a text,
        /// and returned as it was given.
        "image-gc-high-threshold-percent" => image_gc_high_threshold_percent: Percent,
            example "85";
        /// Percentage of a full disk at which no more images are removed.
        "image-gc-low-threshold-percent" => image_gc_low_threshold_percent: Percent,
            example "80";
        /// Age from which an unused image may be removed.
        "image-minimum-gc-age" => image_minimum_gc_age: Duration;
        /// Age at which an unused image is removed.
        "image-maximum-gc-age" => image_maximum_gc_age: Duration, example "\"720h\"";
        /// User and group ids that a pod with a user namespace gets: a multiple of 65536.
        "ids-per-pod" => ids_per_pod: IdsPerPod;
        /// Images that are pulled at a time.
        "max-parallel-image-pulls" => max_parallel_image_pulls: i32, example "3";
        /// Whether pods may swap.
        "memory-swap-behavior" => memory_swap_behavior: SwapBehavior;
        /// Whether only the process at fault is killed when a container is out of memory.
        "single-process-oom-kill" => single_process_oom_kill: bool;
        /// What the kernel keeps of the memory that pods ask for, from Kubernetes 1.36 on.
        /// `TieredReservation` turns on kubelet's feature gate `MemoryQoS`.
        "memory-reservation-policy" => memory_reservation_policy: MemoryReservationPolicy;
        /// Share of a container's limit from which its memory is throttled. It turns on
        /// kubelet's feature gate `MemoryQoS`, with which 0.9 holds while this is unset.
        "memory-throttling-factor" => memory_throttling_factor: Factor;
        /// Socket of the container runtime.
        "container-runtime-endpoint" => container_runtime_endpoint: SingleLine,
            example "\"unix:///run/containerd/containerd.sock\"";
        /// Name of the node at its cloud provider.
        "provider-id" => provider_id: ProviderId, generated "provider-id";
        /// How much kubelet logs.
        "log-level" => log_level: u8, example "2";
        /// Programs that give kubelet credentials of registries, by the program's name.
        "credential-providers" => credential_providers: BTreeMap<Identifier, CredentialProvider>;
        /// kubelet's server certificate; `server-key` goes with it.
        "server-certificate" => server_certificate: Base64Pem;
        /// The certificate's key.
        "server-key" => server_key: Base64Pem,
            example "\"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCkFBQUEKLS0tLS1FTkQgUFJJVkFURSBLRVktLS0tLQo=\"",
            secret true;
        /// How long a shutdown waits for pods.
        "shutdown-grace-period" => shutdown_grace_period: Duration, example "\"1m30s\"";
        /// How much of that is for critical pods.
        "shutdown-grace-period-for-critical-pods" => shutdown_grace_period_for_critical_pods:
            Duration, example "\"20s\"";
        /// Memory that is kept on NUMA nodes, by the number of the node.
        "memory-manager-reserved-memory" => memory_manager_reserved_memory:
            BTreeMap<NumaNode, ReservedMemory>;
        /// How containers get memory of NUMA nodes.
        "memory-manager-policy" => memory_manager_policy: MemoryManagerPolicy;
        /// CPUs that pods do not get.
        "reserved-cpus" => reserved_cpus: CpuSet;
        /// Pods that the node takes.
        "max-pods" => max_pods: u32, generated "max-pods", example "110";
        /// Deprecated: it is accepted and does nothing.
        "pod-infra-container-image" => pod_infra_container_image: SingleLine,
            example "\"registry.example.com/pause:3\"";
        /// Name of the node, instead of the host's.
        "hostname-override" => hostname_override: Hostname, generated "hostname-override";
        /// Where the host gets that name from while it is unset.
        "hostname-override-source" => hostname_override_source: HostnameSource,
            only AwsKubernetes;
        /// Whether the runtime's seccomp profile holds for pods that name none.
        "seccomp-default" => seccomp_default: bool;
        /// Whether a pod's devices belong to its user.
        "device-ownership-from-security-context" => device_ownership_from_security_context: bool;
    }
}

group! {
    /// A pod that kubelet runs from a manifest of the host.
    pub struct StaticPod {
        /// Whether it runs.
        "enabled" => enabled: bool;
        /// Its manifest in base64.
        "manifest" => manifest: Base64,
            example "\"YXBpVmVyc2lvbjogdjEKa2luZDogUG9kCg==\"", secret true;
    }
}

group! {
    /// How little may be left of something: a quantity, or a percentage below 100.
    pub struct EvictionThresholds {
        /// Memory.
        "memory.available" => memory_available: Threshold, example "\"100Mi\"";
        /// Disk of kubelet.
        "nodefs.available" => nodefs_available: Threshold;
        /// Inodes of that disk.
        "nodefs.inodesFree" => nodefs_inodes_free: Threshold, example "\"5%\"";
        /// Disk of images.
        "imagefs.available" => imagefs_available: Threshold, example "\"15%\"";
        /// Inodes of that disk.
        "imagefs.inodesFree" => imagefs_inodes_free: Threshold, example "\"5%\"";
        /// Process ids.
        "pid.available" => pid_available: Threshold;
    }
}

group! {
    /// How long something may be short.
    pub struct EvictionGracePeriods {
        /// Memory.
        "memory.available" => memory_available: Duration;
        /// Disk of kubelet.
        "nodefs.available" => nodefs_available: Duration;
        /// Inodes of that disk.
        "nodefs.inodesFree" => nodefs_inodes_free: Duration;
        /// Disk of images.
        "imagefs.available" => imagefs_available: Duration;
        /// Inodes of that disk.
        "imagefs.inodesFree" => imagefs_inodes_free: Duration;
        /// Process ids.
        "pid.available" => pid_available: Duration;
    }
}

group! {
    /// Resources that are kept from pods.
    pub struct Reserved {
        /// CPU time, in CPUs.
        "cpu" => cpu: Quantity, example "\"90m\"";
        /// Memory.
        "memory" => memory: Quantity, example "\"574Mi\"";
        /// Disk.
        "ephemeral-storage" => ephemeral_storage: Quantity, example "\"1Gi\"";
        /// Process ids.
        "pid" => pid: Quantity, example "\"1000\"";
    }
}

group! {
    /// Options of the topology manager's policy.
    pub struct TopologyOptions {
        /// Whether NUMA nodes that lie close together are preferred.
        "prefer-closest-numa-nodes" => prefer_closest_numa_nodes: bool;
        /// NUMA nodes up to which the policies work.
        "max-allowable-numa-nodes" => max_allowable_numa_nodes: u32, example "8";
    }
}

group! {
    /// A program that gives kubelet credentials of registries.
    pub struct CredentialProvider {
        /// Whether kubelet asks it.
        "enabled" => enabled: bool;
        /// Images that it is asked about.
        "image-patterns" => image_patterns: Vec<SingleLine>,
            example "[\"*.registry.example.com\"]";
        /// How long an answer holds that does not say so itself; unset is 12 hours.
        "cache-duration" => cache_duration: Duration, example "\"12h\"";
        /// Its environment.
        "environment" => environment: BTreeMap<EnvironmentName, SingleLine>, secret true;
    }
}

group! {
    /// Memory of a NUMA node that pods do not get.
    pub struct ReservedMemory {
        /// Whether the entry counts.
        "enabled" => enabled: bool;
        /// Memory in pages of 4 KiB.
        "memory" => memory: Quantity, example "\"1100Mi\"";
        /// Memory in pages of 2 MiB.
        "hugepages-2Mi" => hugepages_2mi: Quantity, example "\"64Mi\"";
        /// Memory in pages of 1 GiB.
        "hugepages-1Gi" => hugepages_1gi: Quantity, example "\"1Gi\"";
    }
}
