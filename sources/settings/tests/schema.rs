//! The JSON Schema takes everything that the model takes, so that no editor
//! warns of good user data, and refuses the usual mistakes.

use serde_json::{Value, json};
use settings::{Document, Settings, Variant, properties};
use std::fs;
use std::path::Path;

/// The part of JSON Schema that our schema uses: an error at the first place
/// that does not fit.
fn validate(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let known = [
        "$schema",
        "title",
        "description",
        "default",
        "type",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "prefixItems",
        "minItems",
        "anyOf",
        "pattern",
        "minimum",
        "maximum",
    ];
    let Value::Object(keywords) = schema else {
        return match schema {
            Value::Bool(true) => Ok(()),
            _ => Err(format!("{at}: nothing may be here")),
        };
    };
    if let Some(odd) = keywords.keys().find(|word| !known.contains(&word.as_str())) {
        panic!("{at}: the test does not know the keyword {odd}");
    }
    let fault = |what: String| Err(format!("{at}: {what}"));
    if let Some(forms) = schema["anyOf"].as_array() {
        let fits = |form: &Value| validate(form, value, at).is_ok();
        return match forms.iter().any(fits) {
            true => Ok(()),
            false => fault(format!("{value} fits none of the forms")),
        };
    }
    if let Some(choices) = schema["enum"].as_array() {
        return match choices.contains(value) {
            true => Ok(()),
            false => fault(format!("{value} is not one of {choices:?}")),
        };
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        other => panic!("{at}: the type {other:?}"),
    };
    if !fits {
        return fault(format!("{value} is no {}", schema["type"]));
    }
    match value {
        Value::Object(table) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                if !table.contains_key(required.as_str().unwrap_or_default()) {
                    return fault(format!("{required} is missing"));
                }
            }
            for (name, value) in table {
                let own = schema["properties"].get(name);
                let others = schema.get("additionalProperties");
                let schema = own.or(others).unwrap_or(&Value::Bool(true));
                validate(schema, value, &format!("{at}.{name}"))?;
            }
        }
        Value::Array(items) => {
            let first = schema["prefixItems"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
                return fault("too short".into());
            }
            for (n, item) in items.iter().enumerate() {
                let schema = first.get(n).unwrap_or(&schema["items"]);
                validate(schema, item, &format!("{at}[{n}]"))?;
            }
        }
        Value::String(text) => {
            if let Some(pattern) = schema["pattern"].as_str() {
                let regex = regex::Regex::new(pattern).expect(pattern);
                if !regex.is_match(text) {
                    return fault(format!("{text:?} does not match {pattern}"));
                }
            }
        }
        Value::Number(number) => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            let within = schema["minimum"]
                .as_f64()
                .is_none_or(|least| least <= float)
                && schema["maximum"]
                    .as_f64()
                    .is_none_or(|greatest| float <= greatest);
            if !within {
                return fault(format!("{number} is out of range"));
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
    Ok(())
}

fn schema(id: &str) -> Value {
    let variant = Variant::parse(id).expect(id);
    Settings::schema_for(&variant).document_schema(id, &Document::defaults_of(Some(&variant)))
}

fn check(schema: &Value, toml: &str) -> Result<(), String> {
    let table: toml::Table = toml.parse().expect(toml);
    let value = serde_json::to_value(table).expect("JSON");
    validate(schema, &value, "document")
}

#[test]
fn good_user_data_fits() {
    let id = "aws-k8s-1.36";
    let (schema, variant) = (schema(id), Variant::parse(id).unwrap());
    let mut foreign = 0;
    for (key, _, example) in properties::all_settings() {
        let text = format!("{key} = {example}");
        let document = Document::from_toml(&text).ok().flatten();
        // What another version of Kubernetes has does not fit here, nor what nothing does.
        if document.is_some_and(|document| !document.foreign_to(&variant).is_empty()) {
            assert!(check(&schema, &text).is_err(), "{text}");
            foreign += 1;
        } else {
            assert_eq!(check(&schema, &text), Ok(()), "{text}");
        }
    }
    assert!(foreign > 0);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/userdata");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "toml") {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(check(&schema, &text), Ok(()), "{}", path.display());
            files += 1;
        }
    }
    assert_eq!(files, 9);
    let defaults = json!({ "settings": Document::defaults().to_value() });
    assert_eq!(validate(&schema, &defaults, "document"), Ok(()));
}

#[test]
fn texts_that_types_take_match_their_patterns() {
    let schema = schema("aws-k8s-1.36");
    for text in [
        "updates.version-lock = 'v1.2.3-rc.1'",
        "boot.kernel-parameters.'a.b' = ['', 'x y']",
        "boot.kernel.a = ['\"x\"']",
        "kernel.hugepages.static = { essential = true, 2Mi = { count = '0:1,1:2' } }",
        "container-runtime.concurrent-layer-fetch-buffer = '64 MiB'",
        "container-runtime.concurrent-download-chunk-size = 0",
        "container-registry.mirrors = { '*' = ['https://a'] }",
        "container-registry.creds = [{ registry = 'a', auth = 'YTpi' }]",
        "oci-defaults.resource-limits.max-stack-size = { hard-limit = 'unlimited', soft-limit = -1 }",
        "kubernetes.cluster-dns-ip = ['10.0.0.10']",
        "kubernetes.node-taints.a = ':NoExecute'",
        "kubernetes.node-labels.a = ''",
        "kubernetes.eviction-hard.'memory.available' = '12.5%'",
        "kubernetes.eviction-hard.'memory.available' = '1e3'",
        "kubernetes.eviction-soft-grace-period.'memory.available' = '2h0m0.5s'",
        "kubernetes.shutdown-grace-period = '0'",
        "kubernetes.shutdown-grace-period = '1.5µs'",
        "kubernetes.kube-reserved.cpu = '.5'",
        "kubernetes.system-reserved.memory = '-1.Gi'",
        "kubernetes.image-gc-high-threshold-percent = '100'",
        "kubernetes.cloud-provider = ''",
        "kubernetes.cpu-manager-policy = 'static'",
        "kubernetes.memory-throttling-factor = 1",
        "kubernetes.reserved-cpus = '0-3,7,9-10'",
        "metrics.service-checks = ['host-containers@admin']",
    ] {
        let text = format!("settings.{text}");
        Document::from_toml(&text).unwrap_or_else(|faults| panic!("{text}: {faults}"));
        assert_eq!(check(&schema, &text), Ok(()), "{text}");
    }
}

#[test]
fn the_usual_mistakes_do_not_fit() {
    let aws = schema("aws-k8s-1.36");
    let metal = schema("metal-core");
    for (schema, text, place) in [
        (&aws, "motd = 'x'", "settings\" is missing"),
        (&aws, "settings.mtod = 'x'", "document.settings.mtod"),
        (
            &aws,
            "settings.kubernetes.max-pods = '110'",
            "document.settings.kubernetes.max-pods",
        ),
        (
            &aws,
            "settings.kubernetes.max-pods = 110.0",
            "document.settings.kubernetes.max-pods",
        ),
        (&aws, "settings.kubernetes.max-pods = -1", "out of range"),
        (
            &aws,
            "settings.kubernetes.max_pods = 1",
            "document.settings.kubernetes.max_pods",
        ),
        (
            &aws,
            "settings.kubernetes.node-taints.a = 1",
            "fits none of the forms",
        ),
        (
            &aws,
            "settings.kubernetes.cluster-name = 'a b'",
            "does not match",
        ),
        (
            &aws,
            "settings.kubernetes.authentication-mode = 'x'",
            "is not one of",
        ),
        (
            &aws,
            "settings.kernel.sysctl.a = 1",
            "document.settings.kernel.sysctl.a",
        ),
        (&aws, "settings.network.hosts = [['10.0.0.1']]", "too short"),
        (
            &aws,
            "settings.network.hosts = [['10.0.0.1', [], 1]]",
            "document.settings.network.hosts[0][2]",
        ),
        (
            &aws,
            "settings.ntp.options = ['a\u{2028}']",
            "does not match",
        ),
        (&aws, "settings.ntp.options = [\"a\\nb\"]", "does not match"),
        (
            &metal,
            "settings.kubernetes.max-pods = 1",
            "document.settings.kubernetes: nothing",
        ),
        (
            &metal,
            "settings.aws.region = 'x'",
            "document.settings.aws: nothing",
        ),
    ] {
        match check(schema, text) {
            Err(fault) => assert!(fault.contains(place), "{text}: {fault}"),
            Ok(()) => panic!("{text} fits"),
        }
    }
}

#[test]
fn the_schema_helps_to_write() {
    let schema = schema("aws-k8s-1.36");
    let at = |pointer: &str| schema.pointer(&format!("/properties/settings/properties/{pointer}"));
    assert_eq!(
        at("kubernetes/properties/cluster-domain"),
        Some(&json!({
            "type": "string",
            "description": "Domain of the cluster's services (a DNS domain).",
            "pattern": "^[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63})*$",
            "default": "cluster.local",
        }))
    );
    // Every place says what it is about.
    fn described(schema: &Value, at: &str) {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let words = schema["description"].as_str().unwrap_or_default();
            assert!(words.len() > 4, "{at}: {words:?}");
            described(schema, &at);
            described(&schema["additionalProperties"], &at);
            described(&schema["items"], &at);
        }
    }
    described(&schema["properties"]["settings"], "settings");
}
