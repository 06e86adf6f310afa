//! Which settings are secrets, and that no fault tells of one.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use settings::{Document, Key, Model, Settings, planted};
use std::collections::BTreeSet;

/// Settings that take any text and that everybody may see. Whoever adds a setting
/// decides: it is marked `secret`, or it is here.
const PUBLIC: &[&str] = &[
    "settings.aws.profile",
    "settings.aws.region",
    "settings.boot.init.log_buf_len",
    "settings.boot.kernel.log_buf_len",
    "settings.bootstrap-containers.my-name.source",
    "settings.cloudformation.logical-resource-id",
    "settings.cloudformation.stack-name",
    // The name of the registry; the rest is marked.
    "settings.container-registry.credentials",
    "settings.container-registry.mirrors",
    r#"settings.container-registry.mirrors."registry.example.com""#,
    "settings.host-containers.my-name.source",
    r#"settings.kernel.sysctl."vm.max_map_count""#,
    "settings.kubernetes.allowed-unsafe-sysctls",
    "settings.kubernetes.api-server",
    "settings.kubernetes.cluster-domain",
    "settings.kubernetes.cluster-name",
    "settings.kubernetes.container-runtime-endpoint",
    "settings.kubernetes.credential-providers.my-name.image-patterns",
    r#"settings.kubernetes.node-labels."example.com/rack""#,
    "settings.kubernetes.pod-infra-container-image",
    "settings.measurement.excluded-settings",
    "settings.metrics.metrics-url",
    "settings.metrics.service-checks",
    "settings.motd",
    "settings.network.no-proxy",
    "settings.ntp.options",
    "settings.ntp.time-servers",
    "settings.updates.metadata-base-url",
    "settings.updates.targets-base-url",
];

#[test]
fn every_setting_that_takes_any_text_is_a_secret_or_known_to_be_none() {
    let found = planted::of_any_text();
    // Fields of other programs are decided on where they are refused: none of those that
    // hold credentials can be set.
    let own = |key: &&Key| !key.parts()[0].ends_with("-configuration");
    let found: Vec<String> = found.iter().filter(own).map(Key::to_string).collect();
    assert_eq!(found, PUBLIC);
}

#[test]
fn every_secret_that_is_planted_is_hidden() {
    let schema = Settings::schema();
    let planted = planted::all();
    for secret in &planted {
        let (shown, secrets) = schema.without_secrets(&secret.settings.to_value());
        let told = shown.to_string();
        assert!(!told.contains(&secret.secret), "{}: {told}", secret.key);
        assert!(!secrets.is_empty(), "{}", secret.key);
        assert!(schema.reads_secret(&secret.key), "{}", secret.key);
    }
    let keys: BTreeSet<&Key> = planted.iter().map(|secret| &secret.key).collect();
    assert!(keys.len() >= 13, "{keys:?}");
}

/// `tree` with something else at each of its leaves.
fn replaced(tree: &Value, leaf: &Value) -> Value {
    match tree {
        Value::Object(table) => Value::Object(
            table
                .iter()
                .map(|(name, value)| (name.clone(), replaced(value, leaf)))
                .collect(),
        ),
        Value::Array(items) => items.iter().map(|item| replaced(item, leaf)).collect(),
        _ => leaf.clone(),
    }
}

#[test]
fn no_fault_tells_of_a_secret() {
    for planted in planted::all() {
        for (wrong, secret) in [
            (json!(4_711_471_147_u64), "4711471147"),
            (json!(4_711_471_147.0), "4711471147"),
            (json!("5ecret-\u{1}"), "5ecret"),
            (json!("http://u:5ecret@"), "5ecret"),
            (json!(["5ecret"]), "5ecret"),
            (json!([4_711_471_147_u64]), "4711471147"),
        ] {
            let tree = replaced(&planted.settings.to_value(), &wrong);
            if let Err(faults) = Document::from_value(&tree) {
                let told = faults.to_string();
                assert!(!told.contains(secret), "{told}");
            }
        }
    }
}
