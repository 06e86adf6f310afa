//! EC2: the region out of the instance's identity document, and user data, both
//! from the metadata service.

use crate::Source;
use crate::ec2::Metadata;
use anyhow::{Context, Result};
use imds::Error;
use std::path::Path;
use std::time::Duration;

/// The two sources of EC2.
pub fn sources(metadata: &Metadata) -> Vec<Box<dyn Source>> {
    vec![
        Box::new(IdentityDocument(metadata.clone())),
        Box::new(UserData(metadata.clone())),
    ]
}

/// True if the error means that the machine has no user data, rather than that it
/// cannot be read.
fn is_nothing(error: &Error, metadata: &Metadata) -> bool {
    match error {
        // An image for EC2 on another machine, such as QEMU.
        Error::Budget { .. } => !metadata.is_ec2(),
        // Whoever switches the service off has no user data to give by it.
        Error::Off => true,
        _ => false,
    }
}

struct IdentityDocument(Metadata);

impl Source for IdentityDocument {
    fn name(&self) -> &'static str {
        "EC2 identity document"
    }

    fn location(&self) -> String {
        imds::IDENTITY_DOCUMENT.into()
    }

    fn patience(&self) -> Duration {
        self.0.patience()
    }

    fn read(&self, _: &Path, _: usize) -> Result<Option<Vec<u8>>> {
        let identity = match self.0.identity() {
            Ok(identity) => identity,
            Err(error) => match error.downcast_ref() {
                Some(cause) if is_nothing(cause, &self.0) => return Ok(None),
                _ => return Err(error),
            },
        };
        let Some(region) = identity.region else {
            return Ok(None);
        };
        // A string of JSON is one of TOML.
        let region = serde_json::to_string(&region).context("the region as a text")?;
        Ok(Some(
            format!("[settings.aws]\nregion = {region}\n").into_bytes(),
        ))
    }
}

struct UserData(Metadata);

impl Source for UserData {
    fn name(&self) -> &'static str {
        "EC2 user data"
    }

    fn location(&self) -> String {
        "user-data".into()
    }

    fn read(&self, _: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        match self.0.get(&self.location(), limit) {
            Err(error) if is_nothing(&error, &self.0) => Ok(None),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::net::{SocketAddr, TcpListener};

    fn service(address: SocketAddr, is_ec2: bool) -> Metadata {
        Metadata::at(vec![address], is_ec2, Duration::from_millis(500))
    }

    fn read(source: &dyn Source) -> Option<String> {
        let read = source.read(Path::new("/nothing"), 100).expect("readable");
        read.map(|bytes| String::from_utf8(bytes).expect("a text"))
    }

    #[test]
    fn region_and_user_data_come_with_one_token() {
        let instance: Instance = [
            (
                imds::IDENTITY_DOCUMENT,
                "{\"region\": \"a\\\"\\n\\u0007\", \"instanceType\": \"m7i.large\"}",
            ),
            ("user-data", "[settings]\n"),
        ]
        .map(|(path, content)| (path.to_string(), content.into()))
        .into();
        let fake = Fake::start(instance, Behaviour::default()).expect("a fake");
        let service = service(fake.address(), true);
        assert_eq!(
            read(&IdentityDocument(service.clone())).as_deref(),
            Some("[settings.aws]\nregion = \"a\\\"\\n\\u0007\"\n")
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
    fn elsewhere_a_service_that_is_not_there_is_no_fault() {
        let nobody = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port that is free again");
        for (is_ec2, is_nothing) in [(false, true), (true, false)] {
            for source in sources(&service(nobody, is_ec2)) {
                let read = source.read(Path::new("/nothing"), 100);
                assert_eq!(matches!(read, Ok(None)), is_nothing, "{read:?}");
            }
        }
    }
}
