//! Settings that nobody but the host may see. A declaration marks them with
//! `secret`; whoever writes settings where others read them asks here. An address
//! with a login in it is a secret wherever it is.
//!
//! What reads settings to act by them gets them as they are: `GET /settings` and
//! transactions, for whoever may talk to the API's socket may set them, too.

use crate::{Document, Field, Key, Schema};
use serde_json::Value;

/// What is written in place of a secret.
pub const INSTEAD: &str = "[secret]";

impl Schema {
    /// A tree of settings with [`INSTEAD`] where a secret was, and the secrets.
    pub fn without_secrets(&self, tree: &Value) -> (Value, Vec<Value>) {
        let mut secrets = Vec::new();
        let shown = self.hide(tree, &mut secrets);
        (shown, secrets)
    }

    fn hide(&self, value: &Value, secrets: &mut Vec<Value>) -> Value {
        match (self, value) {
            (Self::Table { fields, others, .. }, Value::Object(table)) => {
                let hide = |(name, value): (&String, &Value)| {
                    let shown = match fields.iter().find(|field| field.is_named(name)) {
                        Some(field) if field.secret => {
                            secrets.push(value.clone());
                            INSTEAD.into()
                        }
                        Some(field) => field.schema.hide(value, secrets),
                        None => match others.as_deref() {
                            Some(Self::Map { value: inner, .. }) => inner.hide(value, secrets),
                            _ => value.clone(),
                        },
                    };
                    (name.clone(), shown)
                };
                Value::Object(table.iter().map(hide).collect())
            }
            (Self::Map { value: inner, .. }, Value::Object(table)) => Value::Object(
                table
                    .iter()
                    .map(|(name, value)| (name.clone(), inner.hide(value, secrets)))
                    .collect(),
            ),
            (Self::List(inner), Value::Array(items)) => {
                items.iter().map(|item| inner.hide(item, secrets)).collect()
            }
            (Self::Pair(both), Value::Array(items)) => {
                let halves = [&both.0, &both.1];
                let hide = |(half, item): (&Self, &Value)| half.hide(item, secrets);
                halves.into_iter().zip(items).map(hide).collect()
            }
            (Self::Either(forms), _) => {
                // Which form it has does not matter: neither shows what the other
                // hides.
                let shown = forms.0.hide(value, secrets);
                forms.1.hide(&shown, secrets)
            }
            (Self::Scalar { .. }, Value::String(text)) if has_login(text) => {
                secrets.push(value.clone());
                INSTEAD.into()
            }
            _ => value.clone(),
        }
    }

    /// The setting or table at `key` as others may see it.
    pub fn shown(&self, document: &Document, key: &Key) -> Option<Value> {
        let value = match key.parts() {
            [] => document.to_value(),
            _ => document.get(key)?.clone(),
        };
        Some(match self.at(key) {
            _ if self.is_within_secret(key) => INSTEAD.into(),
            Some(schema) => schema.without_secrets(&value).0,
            None => value,
        })
    }

    /// True if somebody who reads the setting or table `key` may see a secret.
    pub fn reads_secret(&self, key: &Key) -> bool {
        self.is_within_secret(key) || self.at(key).is_some_and(Self::has_secret)
    }

    /// True if the setting or table `key` is a secret, or in one.
    fn is_within_secret(&self, key: &Key) -> bool {
        (1..=key.parts().len()).any(|depth| {
            let above = Key::from_parts(key.parts().iter().take(depth));
            self.field(&above).is_some_and(|field| field.secret)
        })
    }

    fn has_secret(&self) -> bool {
        let is_or_has = |field: &Field| field.secret || field.schema.has_secret();
        match self {
            Self::Table { fields, others, .. } => {
                fields.iter().any(is_or_has) || others.as_deref().is_some_and(Self::has_secret)
            }
            Self::Map { value, .. } => value.has_secret(),
            Self::List(inner) => inner.has_secret(),
            Self::Pair(both) | Self::Either(both) => both.0.has_secret() || both.1.has_secret(),
            Self::Scalar { .. } => false,
        }
    }
}

/// True for an address such as `https://name:password@host/`.
fn has_login(text: &str) -> bool {
    let host = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| host.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, Settings};
    use serde_json::json;

    /// Every secret, and a tree in which each has a value.
    fn secrets() -> Value {
        json!({
            "aws": {"config": "1", "credentials": "2", "region": "r"},
            "bootstrap-containers": {"b": {"user-data": "3", "mode": "off"}},
            "container-registry": {
                "credentials": [{"registry": "r", "password": "4"}],
                "mirrors": [{"registry": "*", "endpoint": ["https://m", "https://u:9@m"]}],
            },
            "host-containers": {"h": {"user-data": "5", "enabled": true}},
            "kernel": {"hugepages": {"static": {"2Mi": {"count": "1"}, "essential": true}}},
            "kubernetes": {"bootstrap-token": "6", "server-key": "7", "cluster-name": "c"},
            "motd": "m",
            "network": {"https-proxy": "8", "no-proxy": ["n"]},
        })
    }

    #[test]
    fn secrets_are_replaced_and_the_rest_stays() {
        let mut expected = secrets();
        for pointer in [
            "/aws/config",
            "/aws/credentials",
            "/bootstrap-containers/b/user-data",
            "/container-registry/credentials/0/password",
            "/container-registry/mirrors/0/endpoint/1",
            "/host-containers/h/user-data",
            "/kubernetes/bootstrap-token",
            "/kubernetes/server-key",
            "/network/https-proxy",
        ] {
            *expected.pointer_mut(pointer).unwrap() = INSTEAD.into();
        }
        let (shown, found) = Settings::schema().without_secrets(&secrets());
        assert_eq!(shown, expected);
        assert_eq!(found.len(), 9);
        assert_eq!(found[3..5], [json!("4"), json!("https://u:9@m")]);
    }

    #[test]
    fn other_names_hide_as_much() {
        let tree = json!({"container-registry": {"creds": [{"auth": "x"}]}});
        let (shown, found) = Settings::schema().without_secrets(&tree);
        assert_eq!(
            shown,
            json!({"container-registry": {"creds": [{"auth": INSTEAD}]}})
        );
        assert_eq!(found, [json!("x")]);
    }

    #[test]
    fn what_is_shown_of_a_setting() {
        let tree = json!({
            "host-containers": {"h": {"enabled": true, "user-data": "YWJj"}},
            "kubernetes": {
                "credential-providers": {"p": {"environment": {"A": "b"}}},
                "static-pods": {"s": {"manifest": "YWJj"}},
            },
            "network": {"no-proxy": ["n"]},
        });
        let document = Document::from_value(&tree).expect("valid");
        for (key, expected) in [
            ("network.no-proxy", json!(["n"])),
            ("network.hostname", Value::Null),
            (
                "host-containers.h",
                json!({"enabled": true, "user-data": INSTEAD}),
            ),
            ("kubernetes.static-pods.s.manifest", json!(INSTEAD)),
            (
                "kubernetes.credential-providers.p.environment",
                json!(INSTEAD),
            ),
            (
                "kubernetes.credential-providers.p.environment.A",
                json!(INSTEAD),
            ),
        ] {
            let shown = Settings::schema().shown(&document, &key.parse().expect(key));
            assert_eq!(shown.unwrap_or_default(), expected, "{key}");
        }
        let (all, _) = Settings::schema().without_secrets(&tree);
        let shown = Settings::schema().shown(&document, &Key::root());
        assert_eq!(shown, Some(all));
    }

    #[test]
    fn logins_in_addresses() {
        for (text, expected) in [
            ("http://user:pass@proxy:3128", true),
            ("https://token@m/v2", true),
            ("https://m/v2/a@b", false),
            ("https://m?a=b@c", false),
            ("user@host", false),
            ("registry.example.com/a@sha256:00", false),
        ] {
            assert_eq!(has_login(text), expected, "{text}");
        }
    }

    #[test]
    fn who_reads_a_table_reads_its_secrets() {
        let schema = Settings::schema();
        for (key, expected) in [
            ("motd", false),
            ("network", true),
            ("network.https-proxy", true),
            ("network.no-proxy", false),
            ("host-containers", true),
            ("host-containers.admin", true),
            ("host-containers.admin.user-data", true),
            ("host-containers.admin.enabled", false),
            ("container-registry.mirrors", false),
            ("container-registry.creds", true),
            ("bootstrap-commands", true),
            ("kubernetes.static-pods.p", true),
            ("kubernetes.static-pods.p.enabled", false),
            ("kernel", false),
        ] {
            assert_eq!(
                schema.reads_secret(&key.parse().unwrap()),
                expected,
                "{key}"
            );
        }
    }
}
