//! EC2's metadata service, as this host asks it.
//!
//! The service is reached over the network, which comes up beside us. Nothing
//! polls for it: another try is made when the kernel tells of a new address or
//! route, and after pauses that grow.

use crate::dmi;
use crate::link::AddressNews;
use anyhow::{Context, Result};
use imds::{Client, Error, Options};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the service is waited for on EC2: without it the machine is of no use
/// there.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long on a machine that says it is something else.
const PATIENCE_ELSEWHERE: Duration = Duration::from_secs(10);

/// The service. Whoever has a clone shares a client, its budget of time, and what
/// ended its hopes: a service that did not come is waited for once in a boot.
#[derive(Clone)]
pub struct Metadata {
    endpoints: Vec<SocketAddr>,
    is_ec2: bool,
    patience: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    /// Why nothing is asked any more.
    gone: Option<Error>,
    /// Texts that were asked for, by their paths.
    texts: BTreeMap<String, Option<String>>,
}

/// What the instance's identity document says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// The region, such as `eu-central-1`.
    pub region: Option<String>,
    /// The availability zone, such as `eu-central-1a`.
    pub availability_zone: Option<String>,
    /// The instance's name, such as `i-0123456789abcdef0`.
    pub instance_id: Option<String>,
    /// Its type, such as `m7i.large`.
    pub instance_type: Option<String>,
    /// Its IPv4 address in the VPC.
    pub private_ip: Option<String>,
}

impl Metadata {
    /// The service of the machine whose root is `root`. Nothing is asked yet.
    pub fn of(root: &Path) -> Self {
        let is_ec2 = dmi::is_ec2(root);
        let patience = if is_ec2 { PATIENCE } else { PATIENCE_ELSEWHERE };
        Self::at(imds::ENDPOINTS.to_vec(), is_ec2, patience)
    }

    /// A service that listens elsewhere, for tests.
    pub fn at(endpoints: Vec<SocketAddr>, is_ec2: bool, patience: Duration) -> Self {
        Self {
            endpoints,
            is_ec2,
            patience,
            state: Arc::default(),
        }
    }

    /// Whether the machine says that it is one of EC2.
    pub fn is_ec2(&self) -> bool {
        self.is_ec2
    }

    /// Whether to ask for more than user data: yes on EC2, and elsewhere once the
    /// service has been waited for in this boot anyway. Waiting for it at every boot
    /// of an image for EC2 that runs somewhere else would be in vain.
    pub fn is_expected(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_ec2 || state.client.is_some()
    }

    /// How long all that is asked may take together.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What lies at `path`, at most `limit` bytes of it and one more.
    pub fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask(&mut state, |client| client.get(path, limit))
    }

    /// The text at `path`. It is asked for once.
    pub fn text(&self, path: &str) -> Result<Option<String>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = state.texts.get(path) {
            return Ok(text.clone());
        }
        let text = self.ask(&mut state, |client| client.text(path))?;
        state.texts.insert(path.to_string(), text.clone());
        Ok(text)
    }

    /// The instance's identity document.
    pub fn identity(&self) -> Result<Identity> {
        let Some(document) = self.text(imds::IDENTITY_DOCUMENT)? else {
            return Ok(Identity::default());
        };
        serde_json::from_str(&document).context("the identity document is not what it should be")
    }

    fn ask<T>(
        &self,
        state: &mut State,
        request: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(error) = &state.gone {
            return Err(error.clone());
        }
        let client = state.client.get_or_insert_with(|| self.connect());
        let result = request(client);
        if let Err(error @ (Error::Budget { .. } | Error::Off)) = &result {
            state.gone = Some(error.clone());
        }
        result
    }

    fn connect(&self) -> Client {
        let mut options = Options::with_budget(self.patience);
        options.endpoints.clone_from(&self.endpoints);
        match AddressNews::subscribe() {
            Ok(news) => {
                options.wait = Box::new(move |pause| {
                    news.wait(pause);
                });
            }
            // Then the pauses alone have to do.
            Err(error) => tracing::warn!("{error:#}"),
        }
        Client::new(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::net::TcpListener;
    use std::time::Instant;

    fn identity(document: &str) -> Result<Identity> {
        let instance = Instance::from([(imds::IDENTITY_DOCUMENT.to_string(), document.into())]);
        let fake = Fake::start(instance, Behaviour::default()).expect("a fake");
        let metadata = Metadata::at(vec![fake.address()], true, Duration::from_secs(5));
        let identity = metadata.identity();
        assert_eq!(metadata.identity().ok(), identity.as_ref().ok().cloned());
        // A token and the document, once.
        assert_eq!(fake.requests().len(), 2);
        identity
    }

    #[test]
    fn what_the_identity_document_means() {
        let given = identity(
            r#"{"region": "eu-south-2", "instanceType": "m7i.large", "privateIp": null,
                "devpayProductCodes": null, "instanceId": "i-1"}"#,
        );
        let expected = Identity {
            region: Some("eu-south-2".into()),
            instance_id: Some("i-1".into()),
            instance_type: Some("m7i.large".into()),
            ..Identity::default()
        };
        assert_eq!(given.expect("a document"), expected);
        assert_eq!(identity("{}").expect("a document"), Identity::default());
        assert!(identity("<html>").is_err());
        assert!(identity(r#"{"region": 1}"#).is_err());
    }

    #[test]
    fn a_service_that_does_not_come_is_waited_for_once() {
        let nobody = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port that is free again");
        let patience = Duration::from_millis(600);
        let metadata = Metadata::at(vec![nobody], true, patience);
        assert!(metadata.is_expected());
        let elsewhere = Metadata::at(vec![nobody], false, Duration::from_millis(1));
        assert!(!elsewhere.is_expected());
        elsewhere.get("user-data", 10).expect_err("nobody answers");
        assert!(elsewhere.is_expected());
        let started = Instant::now();
        let first = metadata.text("meta-data/mac").expect_err("nobody answers");
        assert!(matches!(first, Error::Budget { .. }), "{first}");
        let waited = started.elapsed();
        for _ in 0..20 {
            let again = metadata.clone().get("user-data", 10);
            assert_eq!(
                again.expect_err("nobody answers").to_string(),
                first.to_string()
            );
        }
        assert!(started.elapsed() < waited + patience / 2);
    }
}
