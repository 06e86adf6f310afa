//! How to log in to registries: as the settings say, and to those of ECR by the instance's
//! role where they say nothing.

use crate::ecr;
use anyhow::{Context, Result};
use aws_client::call::Way;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use containerd_client::pull::Credentials;
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::time::Duration;
use sysutil::time::Time;

/// Where the settings' credentials are rendered.
const FILE: &str = "/etc/host-containerd/registries.toml";
/// Docker Hub, as it is called, and as it is asked.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// Whom the host trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How long the metadata service may take. Off EC2 there is none.
const METADATA: Duration = Duration::from_secs(10);

/// What is known of registries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    #[serde(default)]
    credentials: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    registry: String,
    username: Option<String>,
    password: Option<String>,
    /// User and password with a colon in between, in base64.
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Registries {
    /// Reads what the settings say.
    pub fn read() -> Result<Self> {
        let path = Path::new(FILE);
        let read = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(path).with_context(read)?;
        toml::from_str(&text).with_context(read)
    }

    /// How to log in to `host`, by the proxy that variables in `environment` name. What takes
    /// its time is done on another thread.
    pub async fn log_in(
        &self,
        host: String,
        environment: Vec<String>,
    ) -> Result<Option<Credentials>> {
        if let Some(credentials) = self.credentials(&host) {
            return Ok(Some(credentials));
        }
        let log_in = move || {
            let Some(registry) = ecr::Registry::at(&host) else {
                return Ok(None);
            };
            let mut metadata = imds::Client::new(imds::Options::with_budget(METADATA));
            let way = Way {
                trusted: Path::new(TRUSTED),
                environment: &environment,
            };
            registry.log_in(&mut metadata, way, Time::now()).map(Some)
        };
        tokio::task::spawn_blocking(log_in)
            .await
            .context("the login was not waited for")?
    }

    /// What the settings have for `host`.
    fn credentials(&self, host: &str) -> Option<Credentials> {
        let is_host = |entry: &&Entry| {
            entry.registry == host || DOCKER_HUB == [entry.registry.as_str(), host]
        };
        let entry = self.credentials.iter().find(is_host)?;
        if let Some(token) = &entry.identitytoken {
            return Some(Credentials::IdentityToken(token.clone()));
        }
        if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
            return Some(Credentials::User(user.clone(), password.clone()));
        }
        let decoded = STANDARD.decode(entry.auth.as_ref()?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Credentials::User(user.to_string(), password.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_credentials_is_understood() {
        let registries: Registries = toml::from_str(
            "[[credentials]]\nregistry = 'a.example'\nusername = 'u'\npassword = 'p:p'\n\
             [[credentials]]\nregistry = 'b.example'\nauth = 'dTpwOnA='\n\
             [[credentials]]\nregistry = 'c.example'\nidentitytoken = 't'\n\
             [[credentials]]\nregistry = 'd.example'\nauth = '?'\n\
             [[credentials]]\nregistry = 'docker.io'\nusername = 'u'\npassword = 'p:p'\n",
        )
        .unwrap();
        let user = Some(Credentials::User("u".into(), "p:p".into()));
        for (host, expected) in [
            ("a.example", user.clone()),
            ("b.example", user.clone()),
            ("c.example", Some(Credentials::IdentityToken("t".into()))),
            ("d.example", None),
            ("e.example", None),
            ("registry-1.docker.io", user),
        ] {
            assert_eq!(registries.credentials(host), expected, "{host}");
        }
    }
}
