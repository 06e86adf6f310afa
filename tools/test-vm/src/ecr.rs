//! Amazon ECR as a machine sees it: the service that gives the role of an instance a login
//! for the registry of its account. The registry itself is that of a cluster, which also
//! answers to the name that ECR has for it.

use crate::ec2::Ec2;
use anyhow::{Context, Result};
use aws_client::fake::{Fake, Service};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// The name of the registry, and that of the service.
pub(crate) const REGISTRY: &str = "111122223333.dkr.ecr.eu-south-2.amazonaws.com";
pub(crate) const SERVICE: &str = "api.ecr.eu-south-2.amazonaws.com";
/// Who everybody is to a registry of ECR.
pub(crate) const USER: &str = "AWS";
/// The port of loopback at which the service listens in a test's own network.
const PORT: u16 = 443;

/// The service, for the role of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecr {
    pub(crate) instance: Ec2,
    /// What lets in to the registry.
    pub(crate) password: String,
    /// By which the service is known, and its key, both PEM.
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Ecr {
    /// Writes it to a file, for the helper that runs the service.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("cannot write what ECR knows")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What it says to who is the role of the instance.
    fn answer(&self) -> Value {
        let login = STANDARD.encode(format!("{USER}:{}", self.password));
        json!({ "authorizationData": [{
            "authorizationToken": login,
            "expiresAt": 4_102_444_800.0,
            "proxyEndpoint": format!("https://{REGISTRY}"),
        }]})
    }
}

/// Serves what [`Ecr::write`] has written, in the network of this process, until it ends.
pub(crate) fn serve(path: &Path) -> Result<()> {
    let read = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(read)?;
    let ecr: Ecr = serde_json::from_str(&text).with_context(read)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .with_context(|| format!("cannot listen at port {PORT}"))?;
    let service = Service {
        host: SERVICE.to_string(),
        service: "ecr".to_string(),
        region: ecr.instance.region.clone(),
        target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken".to_string(),
        credentials: ecr.instance.credentials(),
        answer: Ok(ecr.answer()),
    };
    Fake::listen_as(listener, service, &ecr.certificate, &ecr.key)
        .context("cannot start the service of ECR")
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_region_and_account_of_an_instance() {
        let region = Ec2::new().unwrap().region;
        for name in [REGISTRY, SERVICE] {
            assert!(
                name.ends_with(&format!(".ecr.{region}.amazonaws.com")),
                "{name}"
            );
        }
        assert!(REGISTRY.starts_with(crate::ec2::ACCOUNT));
    }
}
