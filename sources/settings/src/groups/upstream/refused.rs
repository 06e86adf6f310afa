//! Fields that cannot be set, and why: what a setting decides has that setting, what
//! the host stands on stays as it is, and nothing lowers the host's security.

/// A field's path, and what somebody reads who sets it.
type Refused = (&'static str, &'static str);

/// kubelet's.
pub(super) const KUBELET: &[Refused] = &[
    // What a setting decides.
    (
        "allowedUnsafeSysctls",
        "settings.kubernetes.allowed-unsafe-sysctls sets it",
    ),
    ("clusterDNS", "settings.kubernetes.cluster-dns-ip sets it"),
    (
        "clusterDomain",
        "settings.kubernetes.cluster-domain sets it",
    ),
    (
        "containerLogMaxFiles",
        "settings.kubernetes.container-log-max-files sets it",
    ),
    (
        "containerLogMaxSize",
        "settings.kubernetes.container-log-max-size sets it",
    ),
    (
        "containerLogMaxWorkers",
        "settings.kubernetes.container-log-max-workers sets it",
    ),
    (
        "containerLogMonitorInterval",
        "settings.kubernetes.container-log-monitor-interval sets it",
    ),
    (
        "containerRuntimeEndpoint",
        "settings.kubernetes.container-runtime-endpoint sets it",
    ),
    (
        "cpuCFSQuota",
        "settings.kubernetes.cpu-cfs-quota-enforced sets it",
    ),
    (
        "cpuManagerPolicy",
        "settings.kubernetes.cpu-manager-policy sets it",
    ),
    (
        "cpuManagerPolicyOptions",
        "settings.kubernetes.cpu-manager-policy-options sets it",
    ),
    (
        "cpuManagerReconcilePeriod",
        "settings.kubernetes.cpu-manager-reconcile-period sets it",
    ),
    ("eventBurst", "settings.kubernetes.event-burst sets it"),
    ("eventRecordQPS", "settings.kubernetes.event-qps sets it"),
    ("evictionHard", "settings.kubernetes.eviction-hard sets it"),
    (
        "evictionMaxPodGracePeriod",
        "settings.kubernetes.eviction-max-pod-grace-period sets it",
    ),
    ("evictionSoft", "settings.kubernetes.eviction-soft sets it"),
    (
        "evictionSoftGracePeriod",
        "settings.kubernetes.eviction-soft-grace-period sets it",
    ),
    (
        "imageGCHighThresholdPercent",
        "settings.kubernetes.image-gc-high-threshold-percent sets it",
    ),
    (
        "imageGCLowThresholdPercent",
        "settings.kubernetes.image-gc-low-threshold-percent sets it",
    ),
    (
        "imageMaximumGCAge",
        "settings.kubernetes.image-maximum-gc-age sets it",
    ),
    (
        "imageMinimumGCAge",
        "settings.kubernetes.image-minimum-gc-age sets it",
    ),
    ("kubeAPIBurst", "settings.kubernetes.kube-api-burst sets it"),
    ("kubeAPIQPS", "settings.kubernetes.kube-api-qps sets it"),
    ("kubeReserved", "settings.kubernetes.kube-reserved sets it"),
    ("logging.verbosity", "settings.kubernetes.log-level sets it"),
    (
        "maxParallelImagePulls",
        "settings.kubernetes.max-parallel-image-pulls sets it",
    ),
    ("maxPods", "settings.kubernetes.max-pods sets it"),
    (
        "memoryManagerPolicy",
        "settings.kubernetes.memory-manager-policy sets it",
    ),
    (
        "memoryReservationPolicy",
        "settings.kubernetes.memory-reservation-policy sets it",
    ),
    (
        "memorySwap",
        "settings.kubernetes.memory-swap-behavior sets it",
    ),
    (
        "memoryThrottlingFactor",
        "settings.kubernetes.memory-throttling-factor sets it",
    ),
    ("podPidsLimit", "settings.kubernetes.pod-pids-limit sets it"),
    ("providerID", "settings.kubernetes.provider-id sets it"),
    (
        "registerWithTaints",
        "settings.kubernetes.node-taints sets it",
    ),
    (
        "registryBurst",
        "settings.kubernetes.registry-burst sets it",
    ),
    (
        "registryPullQPS",
        "settings.kubernetes.registry-qps sets it",
    ),
    (
        "reservedMemory",
        "settings.kubernetes.memory-manager-reserved-memory sets it",
    ),
    (
        "reservedSystemCPUs",
        "settings.kubernetes.reserved-cpus sets it",
    ),
    (
        "seccompDefault",
        "settings.kubernetes.seccomp-default sets it",
    ),
    (
        "serverTLSBootstrap",
        "settings.kubernetes.server-tls-bootstrap sets it",
    ),
    (
        "shutdownGracePeriod",
        "settings.kubernetes.shutdown-grace-period sets it",
    ),
    (
        "shutdownGracePeriodCriticalPods",
        "settings.kubernetes.shutdown-grace-period-for-critical-pods sets it",
    ),
    (
        "singleProcessOOMKill",
        "settings.kubernetes.single-process-oom-kill sets it",
    ),
    (
        "staticPodPath",
        "settings.kubernetes.static-pods sets what lies there",
    ),
    (
        "staticPodURL",
        "pods of the host come from settings.kubernetes.static-pods",
    ),
    (
        "staticPodURLHeader",
        "pods of the host come from settings.kubernetes.static-pods",
    ),
    (
        "systemReserved",
        "settings.kubernetes.system-reserved sets it",
    ),
    (
        "tlsCertFile",
        "settings.kubernetes.server-certificate sets it",
    ),
    (
        "tlsPrivateKeyFile",
        "settings.kubernetes.server-key sets it",
    ),
    (
        "topologyManagerPolicy",
        "settings.kubernetes.topology-manager-policy sets it",
    ),
    (
        "topologyManagerPolicyOptions",
        "settings.kubernetes.topology-manager-policy-options sets it",
    ),
    (
        "topologyManagerScope",
        "settings.kubernetes.topology-manager-scope sets it",
    ),
    ("userNamespaces", "settings.kubernetes.ids-per-pod sets it"),
    // Identity and security.
    (
        "address",
        "where kubelet listens is decided by settings.kubernetes.standalone-mode",
    ),
    (
        "authentication",
        "who may speak to kubelet is not to be loosened",
    ),
    (
        "authorization",
        "who may do what by kubelet is not to be loosened",
    ),
    (
        "healthzBindAddress",
        "kubelet says how it is to the host only",
    ),
    (
        "healthzPort",
        "the host asks there whether kubelet is well before a boot is complete",
    ),
    (
        "protectKernelDefaults",
        "kubelet is not to change what the host's kernel is set to",
    ),
    (
        "readOnlyPort",
        "it answers without asking who asks, and stays closed",
    ),
    (
        "registerNode",
        "settings.kubernetes.standalone-mode decides it",
    ),
    ("rotateCertificates", "the node's certificates are renewed"),
    // What the host stands on.
    (
        "cgroupDriver",
        "it is the host's: the service manager owns the control groups",
    ),
    ("cgroupRoot", "it is the host's"),
    ("cgroupsPerQOS", "it is the host's"),
    ("failCgroupV1", "it is the host's, which has version 2"),
    ("failSwapOn", "it is the host's"),
    (
        "imageServiceEndpoint",
        "it is the host's: the container runtime has the images",
    ),
    ("kubeReservedCgroup", "it is the host's"),
    ("kubeletCgroups", "it is the host's"),
    (
        "podLogsDir",
        "it is the host's: other programs know /var/log/pods",
    ),
    (
        "resolvConf",
        "it is the host's; settings.dns sets what is in the file",
    ),
    ("runOnce", "kubelet is a service of the host"),
    ("systemCgroups", "it is the host's"),
    ("systemReservedCgroup", "it is the host's"),
    ("volumePluginDir", "it is the host's"),
];

/// containerd's.
pub(super) const CONTAINERD: &[Refused] = &[
    ("version", "the file's version is the host's"),
    ("root", "it is the host's: the data partition has the room"),
    ("state", "it is the host's"),
    ("temp", "it is the host's"),
    ("imports", "files of the host are rendered from settings"),
    (
        "cgroup.path",
        "it is the host's: the service manager owns the control groups",
    ),
    ("disabled_plugins", "it is the host's"),
    ("required_plugins", "it is the host's"),
    (
        "plugins.\"io.containerd.cri.v1.images\".concurrent_layer_fetch_buffer",
        "settings.container-runtime.concurrent-download-chunk-size sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".max_concurrent_downloads",
        "settings.container-runtime.max-concurrent-downloads sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".pinned_images",
        "the image of pods' sandboxes is the host's",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".registry",
        "settings.container-registry sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".use_local_image_pull",
        "it is the host's",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".image_pull_with_sync_fs",
        "it is the host's: without it a power cut may leave images that are empty",
    ),
    (
        "plugins.\"io.containerd.cri.v1.images\".snapshotter",
        "settings.container-runtime.snapshotter sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".enable_selinux",
        "containers are kept apart by it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".selinux_category_range",
        "it is the host's: the policy has these categories",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".enable_unprivileged_icmp",
        "settings.container-runtime.enable-unprivileged-icmp sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".enable_unprivileged_ports",
        "settings.container-runtime.enable-unprivileged-ports sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".max_container_log_line_size",
        "settings.container-runtime.max-container-log-line-size sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".device_ownership_from_security_context",
        "settings.kubernetes.device-ownership-from-security-context sets it",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".cni.bin_dirs",
        "it is the host's: agents install to /opt/cni/bin",
    ),
    (
        "plugins.\"io.containerd.cri.v1.runtime\".cni.conf_dir",
        "it is the host's: agents write /etc/cni/net.d",
    ),
    (
        "plugins.\"io.containerd.grpc.v1.cri\".disable_tcp_service",
        "containers are reached by kubelet only",
    ),
];
