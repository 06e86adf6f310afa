//! `settings.container-registry`.

use crate::model::{describe, group};
use crate::types::{Base64, Secret, SingleLine, Url};
use crate::{Faults, Key, MapKey, Model, Schema};
use serde_json::Value;
use std::collections::BTreeMap;

group! {
    /// Registries that images come from.
    pub struct ContainerRegistry {
        /// Mirrors of registries; the registry `*` stands for all others. Older
        /// user data has a table here, of lists of endpoints by registry.
        "mirrors" => mirrors: Mirrors,
            example "[{ registry = \"registry.example.com\", endpoint = [\"https://mirror.example.com\"] }]";
        /// Credentials of registries, also taken as `creds`.
        "credentials" => credentials: Vec<Credential>, alias "creds",
            example "[{ registry = \"registry.example.com\", username = \"puller\", password = \"secret\" }]";
    }
}

group! {
    /// Where images of a registry come from.
    pub struct Mirror {
        /// Host name of the registry, or `*`.
        "registry" => registry: SingleLine, example "\"registry.example.com\"";
        /// What is asked instead, in this order, and the registry itself last.
        "endpoint" => endpoint: Vec<Url>, example "[\"https://mirror.example.com\"]";
    }
}

group! {
    /// How the host logs in to a registry.
    pub struct Credential {
        /// Host name of the registry.
        "registry" => registry: SingleLine, example "\"registry.example.com\"";
        /// Name of the user.
        "username" => username: SingleLine, example "\"puller\"", secret true;
        /// Password of the user.
        "password" => password: Secret, secret true;
        /// Base64 of name and password with a colon between, instead of those.
        "auth" => auth: Base64, example "\"cHVsbGVyOnNlY3JldA==\"",
            secret true;
        /// A token, instead of name and password.
        "identitytoken" => identitytoken: Secret, secret true;
    }
}

/// Mirrors of registries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirrors(Vec<Mirror>);

impl Mirrors {
    /// The mirrors in their order.
    pub fn list(&self) -> &[Mirror] {
        &self.0
    }
}

/// Name of a registry, as the key of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Registry(SingleLine);

impl MapKey for Registry {
    const WHAT: &'static str = "the host name of a registry";
    const EXAMPLE: &'static str = "registry.example.com";

    fn check(name: &str) -> Option<Self> {
        crate::Scalar::check(&Value::from(name)).ok().map(Self)
    }

    fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

type Table = BTreeMap<Registry, Vec<Url>>;

impl Model for Mirrors {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        match value {
            // Half of the table means something else, as it would of the list.
            Value::Object(entries) => {
                let table = Table::read(value, at, faults)?;
                let mirrors = table.into_iter().map(|(registry, endpoint)| Mirror {
                    registry: Some(registry.0),
                    endpoint: Some(endpoint),
                });
                let mirrors: Vec<Mirror> = mirrors.collect();
                (mirrors.len() == entries.len()).then_some(Self(mirrors))
            }
            Value::Array(_) => Vec::read(value, at, faults).map(Self),
            other => {
                faults.add(
                    at,
                    format!("expected a list of tables, got {}", describe(other)),
                );
                None
            }
        }
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn schema() -> Schema {
        Schema::Either(Box::new((Vec::<Mirror>::schema(), Table::schema())))
    }
}
