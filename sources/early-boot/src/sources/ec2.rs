//! EC2: the region out of the instance's identity document, and user data, both
//! from the metadata service.
//!
//! The service is reached over the network, which comes up beside us. Nothing
//! polls for it: another try is made when the kernel tells of a new address or
//! route, and after pauses that grow.

use crate::link::AddressNews;
use crate::{Source, dmi};
use anyhow::{Context, Result};
use imds::{Client, Options};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the service is waited for on EC2: without user data the machine is of
/// no use there.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long on a machine that says it is something else.
const PATIENCE_ELSEWHERE: Duration = Duration::from_secs(10);

/// The two sources of EC2, which share a client and its budget.
pub fn sources(root: &Path) -> Vec<Box<dyn Source>> {
    let service = Service {
        endpoints: imds::ENDPOINTS.to_vec(),
        is_ec2: dmi::is_ec2(root),
        client: Arc::new(Mutex::new(None)),
    };
    vec![
        Box::new(IdentityDocument(service.clone())),
        Box::new(UserData(service)),
    ]
}

#[derive(Clone)]
struct Service {
    endpoints: Vec<SocketAddr>,
    is_ec2: bool,
    client: Arc<Mutex<Option<Client>>>,
}

impl Service {
    fn patience(&self) -> Duration {
        if self.is_ec2 {
            PATIENCE
        } else {
            PATIENCE_ELSEWHERE
        }
    }

    fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut client = match self.client.lock() {
            Ok(client) => client,
            Err(poisoned) => poisoned.into_inner(),
        };
        let client = client.get_or_insert_with(|| self.connect());
        match client.get(path, limit) {
            Ok(content) => Ok(content),
            // An image for EC2 on another machine, such as QEMU.
            Err(imds::Error::Budget { .. }) if !self.is_ec2 => Ok(None),
            // Whoever switches the service off has no user data to give by it.
            Err(imds::Error::Off) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn connect(&self) -> Client {
        let mut options = Options::with_budget(self.patience());
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

struct IdentityDocument(Service);

impl Source for IdentityDocument {
    fn name(&self) -> &'static str {
        "EC2 identity document"
    }

    fn location(&self) -> String {
        "dynamic/instance-identity/document".into()
    }

    fn patience(&self) -> Duration {
        self.0.patience()
    }

    fn read(&self, _: &Path, _: usize) -> Result<Option<Vec<u8>>> {
        const LIMIT: usize = 64 * 1024;
        let Some(document) = self.0.get(&self.location(), LIMIT)? else {
            return Ok(None);
        };
        region_settings(&document)
    }
}

/// The settings that follow from the document.
fn region_settings(document: &[u8]) -> Result<Option<Vec<u8>>> {
    let document: serde_json::Value =
        serde_json::from_slice(document).context("the identity document is not JSON")?;
    let Some(region) = document.get("region").and_then(|region| region.as_str()) else {
        return Ok(None);
    };
    // A string of JSON is one of TOML.
    let region = serde_json::to_string(region).context("the region as a text")?;
    Ok(Some(
        format!("[settings.aws]\nregion = {region}\n").into_bytes(),
    ))
}

struct UserData(Service);

impl Source for UserData {
    fn name(&self) -> &'static str {
        "EC2 user data"
    }

    fn location(&self) -> String {
        "user-data".into()
    }

    fn read(&self, _: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        self.0.get(&self.location(), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::net::TcpListener;

    fn service(address: SocketAddr, is_ec2: bool) -> Service {
        Service {
            endpoints: vec![address],
            is_ec2,
            client: Arc::default(),
        }
    }

    fn read(source: &dyn Source) -> Option<String> {
        let read = source.read(Path::new("/nothing"), 100).expect("readable");
        read.map(|bytes| String::from_utf8(bytes).expect("a text"))
    }

    #[test]
    fn region_and_user_data_come_with_one_token() {
        let instance: Instance = [
            (
                "dynamic/instance-identity/document",
                "{\"region\": \"eu-south-2\", \"instanceType\": \"m7i.large\"}",
            ),
            ("user-data", "[settings]\n"),
        ]
        .map(|(path, content)| (path.to_string(), content.into()))
        .into();
        let fake = Fake::start(instance, Behaviour::default()).expect("a fake");
        let service = service(fake.address(), true);
        assert_eq!(
            read(&IdentityDocument(service.clone())).as_deref(),
            Some("[settings.aws]\nregion = \"eu-south-2\"\n")
        );
        assert_eq!(read(&UserData(service)).as_deref(), Some("[settings]\n"));
        assert_eq!(fake.requests().len(), 3);
    }

    #[test]
    fn a_machine_without_any_of_it_has_none() {
        for off in [false, true] {
            let behaviour = Behaviour {
                off,
                ..Behaviour::default()
            };
            let fake = Fake::start(Instance::new(), behaviour).expect("a fake");
            let service = service(fake.address(), true);
            assert_eq!(read(&IdentityDocument(service.clone())), None);
            assert_eq!(read(&UserData(service)), None);
        }
    }

    #[test]
    fn what_the_identity_document_means() {
        for (document, expected) in [
            ("{}", Ok(None)),
            ("{\"region\": 1}", Ok(None)),
            (
                "{\"region\": \"a\\\"\\n\\u0007\"}",
                Ok(Some("[settings.aws]\nregion = \"a\\\"\\n\\u0007\"\n")),
            ),
            ("<html>", Err(())),
        ] {
            let found = region_settings(document.as_bytes()).map_err(|_| ());
            let expected = expected.map(|text: Option<&str>| text.map(|text| text.into()));
            assert_eq!(found, expected, "{document}");
        }
    }

    #[test]
    fn elsewhere_a_service_that_is_not_there_is_no_fault() {
        let nobody = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port that is free again");
        let service = service(nobody, false);
        let client = Client::new(Options {
            endpoints: vec![nobody],
            ..Options::with_budget(Duration::from_millis(100))
        });
        *service.client.lock().expect("not poisoned") = Some(client);
        assert_eq!(read(&UserData(service.clone())), None);
        let on_ec2 = Service {
            is_ec2: true,
            ..service
        };
        let error = UserData(on_ec2).read(Path::new("/nothing"), 100);
        assert!(error.is_err());
    }
}
