//! Settings and user data of compatible hosts are taken, and come back as other
//! programs expect them.

use serde_json::{Value, json};
use settings::{Document, Key, Model, Schema, Settings, Variant};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/compat")
        .join(path)
}

/// Settings that no other host has.
const OURS: &[&str] = &[
    "settings.containerd-configuration",
    "settings.kubelet-configuration",
    "settings.updates.wait-for-kubelet",
    "settings.user-data-policy",
];

/// The names of all settings below, as `tests/compat/settings.tsv` writes them.
fn names(schema: &Schema, at: &str, found: &mut BTreeSet<String>) {
    match schema {
        Schema::Table { fields, others, .. } => {
            for field in fields.iter() {
                // Names of other programs, which are their matter.
                if field.name.ends_with("-configuration") && at == "settings" {
                    found.insert(format!("{at}.{}", field.name));
                    continue;
                }
                let name = match field.name.contains('.') {
                    true => format!("\"{}\"", field.name),
                    false => field.name.to_string(),
                };
                names(&field.schema, &format!("{at}.{name}"), found);
            }
            if let Some(others) = others {
                names(others, at, found);
            }
        }
        Schema::Map { value, .. } => names(value, &format!("{at}.<name>"), found),
        Schema::Either(forms) => names(&forms.0, at, found),
        Schema::List(item) if matches!(item.as_ref(), Schema::Table { .. }) => {
            names(item, &format!("{at}[]"), found);
        }
        Schema::List(_) | Schema::Pair(_) | Schema::Scalar { .. } => {
            found.insert(at.to_string());
        }
    }
}

/// A name with the other names of its tables replaced, and `<name>` for all that
/// the user chooses.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('<') {
        plain.push_str(before);
        plain.push_str("<name>");
        rest = after.split_once('>').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    // Taken under the longer names, returned under the shorter ones.
    plain
        .replace("boot.kernel-parameters.", "boot.kernel.")
        .replace("boot.init-parameters.", "boot.init.")
}

#[test]
fn every_setting_is_there() {
    let text = fs::read_to_string(data("settings.tsv")).unwrap();
    let mut known = BTreeSet::new();
    names(&Settings::schema(), "settings", &mut known);
    let (mut wanted, mut excluded) = (BTreeSet::new(), 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once('\t') {
            None => {
                wanted.insert(plain(line));
            }
            Some((name, reason)) => {
                assert!(!known.contains(&plain(name)), "{name} is there: {reason}");
                assert!(!reason.is_empty(), "{name} is left out for a reason");
                excluded += 1;
            }
        }
    }
    assert!(wanted.len() > 230 && excluded > 30);
    let missing: Vec<_> = wanted.difference(&known).collect();
    assert!(missing.is_empty(), "not in the model: {missing:#?}");
    let ours: Vec<_> = known.difference(&wanted).collect();
    assert_eq!(ours, OURS, "what no other host has needs a good reason");
}

/// User data that a launcher writes, for which variants, and what has to come
/// back under which key.
type Launch = (
    &'static str,
    &'static [&'static str],
    Vec<(&'static str, Value)>,
);

fn launchers() -> Vec<Launch> {
    const AWS: &[&str] = &["aws-k8s-1.36"];
    const ANY: &[&str] = &["aws-k8s-1.36", "metal-k8s-1.36"];
    let init = json!(["apiclient", "ephemeral-storage", "init"]);
    vec![
        (
            "01-karpenter-plain",
            AWS,
            vec![
                ("kubernetes.cluster-name", json!("orchard")),
                ("kubernetes.cluster-dns-ip", json!("10.100.0.10")),
                ("kubernetes.max-pods", json!(58)),
                (
                    "kubernetes.node-labels.\"karpenter.sh/do-not-sync-taints\"",
                    json!("true"),
                ),
                (
                    "kubernetes.node-taints.\"karpenter.sh/unregistered\"",
                    json!([":NoExecute"]),
                ),
            ],
        ),
        (
            "02-karpenter-kubelet",
            AWS,
            vec![
                ("kubernetes.image-gc-high-threshold-percent", json!("83")),
                ("kubernetes.image-gc-low-threshold-percent", json!("71")),
                ("kubernetes.cluster-dns-ip", json!("fd12:3456:789a::a")),
                (
                    "kubernetes.node-labels.\"node.kubernetes.io/tier\"",
                    json!(""),
                ),
                (
                    "kubernetes.node-taints.\"example.com/dedicated\"",
                    json!(["db:NoSchedule", "db:NoExecute"]),
                ),
                (
                    "kubernetes.eviction-soft-grace-period.\"memory.available\"",
                    json!("1m30s"),
                ),
                (
                    "kubernetes.memory-manager-reserved-memory",
                    json!({"0": {"enabled": true, "memory": "924Mi", "hugepages-2Mi": "64Mi"}}),
                ),
                ("kubernetes.memory-manager-policy", json!("Static")),
                (
                    "kubernetes.topology-manager-policy-options.max-allowable-numa-nodes",
                    json!(12),
                ),
                (
                    "kubernetes.credential-providers.ecr-credential-provider.environment",
                    json!({"AWS_STS_REGIONAL_ENDPOINTS": "regional"}),
                ),
            ],
        ),
        (
            "03-karpenter-instance-store",
            AWS,
            vec![
                (
                    "bootstrap-commands.000-mount-instance-storage",
                    json!({
                        "commands": [init, ["apiclient", "ephemeral-storage", "bind"]],
                        "mode": "always",
                        "essential": true,
                    }),
                ),
                ("bootstrap-commands.500-motd.mode", json!("once")),
            ],
        ),
        (
            "04-karpenter-instance-store-by-id",
            AWS,
            vec![(
                "bootstrap-commands.000-mount-instance-storage.commands",
                json!([
                    init,
                    [
                        "apiclient",
                        "ephemeral-storage",
                        "bind",
                        "--dirs",
                        "/var/lib/containerd",
                        "/var/lib/kubelet",
                        "/var/log/pods",
                    ]
                ]),
            )],
        ),
        (
            "05-karpenter-passthrough",
            AWS,
            vec![
                (
                    "container-registry.mirrors",
                    json!([{
                        "registry": "registry.example.org",
                        "endpoint": ["https://mirror.example.net", "https://fallback.example.net"],
                    }]),
                ),
                (
                    "network.hosts",
                    json!([
                        ["10.9.8.7", ["registry.internal", "registry"]],
                        ["fd00::7", ["six.internal"]],
                    ]),
                ),
                ("kernel.sysctl.\"vm.max_map_count\"", json!("262144")),
                ("updates.version-lock", json!("v1.2.3")),
                ("updates.seed", json!(1033)),
            ],
        ),
        (
            "06-eksctl-unmanaged",
            AWS,
            vec![
                ("host-containers", Value::Null),
                (
                    "kubernetes.node-taints.\"example.com/press\"",
                    json!(["grape:NoSchedule"]),
                ),
                (
                    "kubernetes.node-taints.\"example.com/warm\"",
                    json!([":PreferNoSchedule"]),
                ),
            ],
        ),
        (
            "07-eksctl-managed",
            AWS,
            vec![
                ("host-containers", json!({"admin": {"enabled": true}})),
                (
                    "kernel.sysctl",
                    json!({"user.max_user_namespaces": "16384"}),
                ),
                ("kubernetes.node-labels", Value::Null),
            ],
        ),
        (
            "08-self-managed-tls",
            ANY,
            vec![
                (
                    "kubernetes.cluster-dns-ip",
                    json!(["10.96.0.10", "fd00:10:96::a"]),
                ),
                ("kubernetes.cloud-provider", json!("\"\"")),
                ("kubernetes.authentication-mode", json!("tls")),
                ("kubernetes.provider-id", json!("qemu://cellar/1")),
                (
                    "kubernetes.node-labels",
                    json!({"node.example.com/rack": "r7", "plain": "yes"}),
                ),
            ],
        ),
        (
            "09-standalone",
            ANY,
            vec![
                ("kubernetes.standalone-mode", json!(true)),
                ("kubernetes.api-server", Value::Null),
                ("kubernetes.cluster-name", Value::Null),
                ("kubernetes.static-pods.hello.enabled", json!(true)),
            ],
        ),
    ]
}

#[test]
fn user_data_of_launchers_is_taken_and_comes_back() {
    let launchers = launchers();
    let files = fs::read_dir(data("userdata")).unwrap();
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let files = files.map(|entry| entry.unwrap().path()).filter(is_toml);
    assert_eq!(files.count(), launchers.len());
    for (name, variants, expected) in launchers {
        let text = fs::read_to_string(data(&format!("userdata/{name}.toml"))).unwrap();
        let document = Document::from_toml(&text)
            .unwrap_or_else(|faults| panic!("{name}: {faults}"))
            .unwrap();
        for id in variants {
            let foreign = document.foreign_to(&Variant::parse(id).unwrap());
            assert!(foreign.is_empty(), "{name} in {id}: {foreign}");
        }
        assert!(
            !document
                .foreign_to(&Variant::parse("metal-core").unwrap())
                .is_empty()
        );
        for (key, expected) in expected {
            let key: Key = key.parse().unwrap();
            let found = document.get(&key).cloned().unwrap_or_default();
            assert_eq!(found, expected, "{name}: {key}");
        }
        // What comes back can be given again, and comes back the same.
        assert_eq!(Document::from_value(&document.to_value()), Ok(document));
    }
}
