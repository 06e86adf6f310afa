//! `settings.container-registry`.

use crate::model::{describe, group};
use crate::types::{Base64, Secret, SingleLine, Url, text_type};
use crate::{Faults, Key, MapKey, Model, Schema};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

group! {
    /// Registries that images come from.
    pub struct ContainerRegistry {
        /// Mirrors of registries, each registry once; `*` stands for all others. Older
        /// user data has a table here, of lists of endpoints by registry.
        "mirrors" => mirrors: Mirrors,
            example "[{ registry = \"registry.example.com\", endpoint = [\"https://mirror.example.com\"] }]";
        /// Credentials of registries, each registry once, also taken as `creds`.
        "credentials" => credentials: Credentials, alias "creds",
            example "[{ registry = \"registry.example.com\", username = \"puller\", password = \"secret\" }]";
    }
}

group! {
    /// Where images of a registry come from.
    pub struct Mirror {
        /// Host name of the registry, or `*`.
        "registry" => registry: Mirrored, example "\"registry.example.com\"";
        /// What is asked instead, in this order, and the registry itself last. An address
        /// with a path is taken as it is; to one without, `/v2` is appended.
        "endpoint" => endpoint: Vec<Url>, example "[\"https://mirror.example.com\"]";
    }
}

group! {
    /// How the host logs in to a registry.
    pub struct Credential {
        /// Host name of the registry; `docker.io` and `registry-1.docker.io` are one.
        "registry" => registry: RegistryHost, example "\"registry.example.com\"";
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

text_type! {
    /// Host name of a registry, with its port if it has one.
    RegistryHost, "the host name of a registry", example "registry.example.com"
    pattern "^([A-Za-z0-9][A-Za-z0-9._-]*|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$",
    |name| if is_host(name) { Ok(()) } else { Err(NO_HOST.into()) }
}

text_type! {
    /// Host name of a registry that has mirrors, or `*`.
    Mirrored, "the host name of a registry, or \"*\"", example "registry.example.com"
    pattern "^(\\*|([A-Za-z0-9][A-Za-z0-9._-]*|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?)$",
    |name| if name == "*" || is_host(name) { Ok(()) } else { Err(NO_HOST.into()) }
}

const NO_HOST: &str = "not the name that images of the registry begin with: a host name, \
                       without a scheme or a path, and its port if it has one, as in \
                       registry.example.com:5000";

fn is_host(name: &str) -> bool {
    let (host, port) = match name.rsplit_once(':') {
        // What follows the last colon of an address of IPv6 without a port.
        Some((_, after)) if after.ends_with(']') => (name, None),
        Some((host, port)) => (host, Some(port)),
        None => (name, None),
    };
    let is_port = |port: &str| {
        port.bytes().all(|c| c.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0)
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    let is_good = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.bytes().all(is_name)
        }
    };
    is_good && port.is_none_or(is_port)
}

/// Credentials of registries, no two of which are for the same one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials(Vec<Credential>);

impl Credentials {
    /// The credentials in their order.
    pub fn list(&self) -> &[Credential] {
        &self.0
    }
}

impl Model for Credentials {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let list = Vec::<Credential>::read(value, at, faults)?;
        let registries = list.iter().map(|credential| {
            let name = credential.registry.as_ref()?.as_str();
            // It is asked under another name than it is called by.
            Some(if name == "docker.io" {
                DOCKER_HUB
            } else {
                name
            })
        });
        are_apart(registries, at, faults).then_some(Self(list))
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn schema() -> Schema {
        Vec::<Credential>::schema()
    }
}

const DOCKER_HUB: &str = "registry-1.docker.io";

/// Notes each item of the list at `at` whose registry an earlier one has, and says
/// whether there is none. Of two, nobody could say which one is meant.
fn are_apart<'r>(
    registries: impl Iterator<Item = Option<&'r str>>,
    at: &Key,
    faults: &mut Faults,
) -> bool {
    let mut items = BTreeMap::new();
    let mut is_apart = true;
    for (n, registry) in registries.enumerate() {
        let Some(registry) = registry else {
            continue;
        };
        if let Some(first) = items.get(registry) {
            let (item, first) = (n + 1, first + 1);
            let reason = format!("item {item}: registry: the same as that of item {first}");
            faults.add(at, reason);
            is_apart = false;
        } else {
            items.insert(registry, n);
        }
    }
    is_apart
}

/// Mirrors of registries, no two of which are of the same one.
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
struct Registry(Mirrored);

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
            Value::Array(_) => {
                let list = Vec::<Mirror>::read(value, at, faults)?;
                let registries = list
                    .iter()
                    .map(|mirror| Some(mirror.registry.as_ref()?.as_str()));
                are_apart(registries, at, faults).then_some(Self(list))
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use crate::types::tests::check;
    use serde_json::json;

    #[test]
    fn registries() {
        let both = [
            json!("docker.io"),
            json!("r"),
            json!("Registry.example.com"),
            json!("registry.example.com:5000"),
            json!("my_registry:443"),
            json!("10.0.0.1:65535"),
            json!("[fd00::a]"),
            json!("[::1]:5000"),
        ];
        let neither = [
            json!(""),
            json!("https://registry.example.com"),
            json!("registry.example.com/"),
            json!("registry.example.com/library"),
            json!("user@registry.example.com"),
            json!("registry.example.com:"),
            json!("registry.example.com:0"),
            json!("registry.example.com:65536"),
            json!("registry.example.com:+5"),
            json!(":5000"),
            json!("fd00::a"),
            json!("[registry]"),
            json!("[::1"),
            json!(".."),
            json!("_default"),
            json!("*.example.com"),
            json!("a b"),
            json!("a\nb"),
            json!(1),
        ];
        check::<RegistryHost>(&both, &neither);
        check::<RegistryHost>(&[], &[json!("*")]);
        check::<Mirrored>(&both, &neither);
        check::<Mirrored>(&[json!("*")], &[]);
    }

    #[test]
    fn a_registry_is_there_once() {
        for (setting, list, fault) in [
            (
                "credentials",
                json!([{"registry": "a"}, {"registry": "a:443"}, {}, {}]),
                None,
            ),
            (
                "credentials",
                json!([{"registry": "a"}, {"registry": "b"}, {"registry": "a"}]),
                Some((3, 1)),
            ),
            (
                "credentials",
                json!([{"registry": "docker.io"}, {"registry": "registry-1.docker.io"}]),
                Some((2, 1)),
            ),
            (
                "mirrors",
                json!([{"registry": "*"}, {"registry": "a"}, {}, {}]),
                None,
            ),
            // These are files of two names.
            (
                "mirrors",
                json!([{"registry": "docker.io"}, {"registry": "registry-1.docker.io"}]),
                None,
            ),
            (
                "mirrors",
                json!([{}, {"registry": "*"}, {"registry": "*"}]),
                Some((3, 2)),
            ),
        ] {
            let tree = json!({ "container-registry": { setting: list } });
            let told = Document::from_value(&tree)
                .err()
                .map(|faults| faults.to_string());
            let expected = fault.map(|(item, first)| {
                format!(
                    "settings.container-registry.{setting}: item {item}: registry: the same as \
                     that of item {first}"
                )
            });
            assert_eq!(told, expected, "{list}");
        }
    }
}
