//! Registries of Amazon ECR, to which the instance's role logs in.

use anyhow::{Context, Result};
use aws_client::call::{Call, Way};
use aws_client::credentials::of_instance;
use aws_client::region::{is_domain, is_region};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use containerd_client::pull::Credentials;
use imds::Client;
use serde::Deserialize;
use serde_json::json;
use sysutil::time::Time;

/// The domains of registries that have addresses of IPv6, too, each with that of their services.
const DUAL_STACK: [(&str, &str); 3] = [
    ("on.aws", "api.aws"),
    (
        "on.amazonwebservices.com.cn",
        "api.amazonwebservices.com.cn",
    ),
    ("on.amazonwebservices.eu", "api.amazonwebservices.eu"),
];

/// A registry of an account in a region.
#[derive(Debug, PartialEq, Eq)]
pub struct Registry<'a> {
    host: &'a str,
    region: &'a str,
    /// Where one asks for a login.
    service: String,
}

/// The answer to a question for a login.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    /// User and password with a colon in between, in base64.
    authorization_token: String,
}

impl<'a> Registry<'a> {
    /// The registry at `host`, if it is one of ECR: `ACCOUNT.dkr.ecr.REGION.amazonaws.com`,
    /// the same with `ecr-fips`, in another domain, or as `dkr-ecr` in one of those with IPv6.
    /// A port does not count.
    pub fn at(host: &'a str) -> Option<Self> {
        let name = host.split(':').next().unwrap_or(host);
        let (account, rest) = name.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|c| c.is_ascii_digit());
        let (kind, rest) = rest
            .strip_prefix("dkr.")
            .or_else(|| rest.strip_prefix("dkr-"))?
            .split_once('.')?;
        let (region, domain) = rest.split_once('.')?;
        if !is_account || !["ecr", "ecr-fips"].contains(&kind) || !is_region(region) {
            return None;
        }
        let dual_stack = DUAL_STACK
            .iter()
            .find(|(registries, _)| *registries == domain);
        let service = match dual_stack {
            Some((_, services)) => format!("{kind}.{region}.{services}"),
            None if is_domain(domain) => format!("api.{kind}.{region}.{domain}"),
            None => return None,
        };
        Some(Self {
            host,
            region,
            service,
        })
    }

    /// A login, for the role that `metadata` knows of. It is good for twelve hours, and is
    /// asked for at each pull, so it is kept nowhere.
    pub fn log_in(&self, metadata: &mut Client, way: Way<'_>, now: Time) -> Result<Credentials> {
        self.login(metadata, way, now).with_context(|| {
            format!(
                "cannot log in to {} by the instance's role, and there is no login for it in \
                 settings.container-registry.credentials",
                self.host
            )
        })
    }

    fn login(&self, metadata: &mut Client, way: Way<'_>, now: Time) -> Result<Credentials> {
        let role = of_instance(metadata, now)?;
        let answer = Call {
            host: &self.service,
            service: "ecr",
            region: self.region,
            interface: "AmazonEC2ContainerRegistry_V20150921",
            operation: "GetAuthorizationToken",
            body: &json!({}),
        }
        .ask(&role.credentials, way, now)?;
        // Never with its text: it is the login.
        let unknown = || format!("the answer of {} has no login", self.service);
        let answer: Answer = serde_json::from_value(answer).ok().with_context(unknown)?;
        let login = answer.authorization_data.first().with_context(unknown)?;
        let login = STANDARD.decode(&login.authorization_token).ok();
        let login = login.and_then(|login| String::from_utf8(login).ok());
        let login = login.with_context(unknown)?;
        let (user, password) = login.split_once(':').with_context(unknown)?;
        Ok(Credentials::User(user.to_string(), password.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_client::fake::{Fake, Service};
    use aws_client::signature;
    use imds::Options;
    use imds::fake::{Behaviour, Instance};
    use serde_json::Value;
    use std::fs;
    use std::time::Duration;
    use tls_client::fake::Authority;

    const HOST: &str = "111122223333.dkr.ecr.eu-south-2.amazonaws.com";

    #[test]
    fn registries_and_their_services() {
        for (host, region, service) in [
            (HOST, "eu-south-2", "api.ecr.eu-south-2.amazonaws.com"),
            (
                "111122223333.dkr.ecr.eu-south-2.amazonaws.com:443",
                "eu-south-2",
                "api.ecr.eu-south-2.amazonaws.com",
            ),
            (
                "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                "api.ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "api.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov",
                "us-iso-east-1",
                "api.ecr.us-iso-east-1.c2s.ic.gov",
            ),
            (
                "111122223333.dkr-ecr.eu-central-1.on.aws",
                "eu-central-1",
                "ecr.eu-central-1.api.aws",
            ),
            (
                "111122223333.dkr-ecr-fips.us-east-1.on.aws",
                "us-east-1",
                "ecr-fips.us-east-1.api.aws",
            ),
            (
                "111122223333.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
                "cn-north-1",
                "ecr.cn-north-1.api.amazonwebservices.com.cn",
            ),
        ] {
            let registry = Registry::at(host).expect(host);
            assert_eq!(
                (registry.region, registry.service.as_str()),
                (region, service)
            );
        }
        for other in [
            "",
            "localhost",
            "public.ecr.aws",
            "docker.io",
            "dkr.ecr.eu-south-2.amazonaws.com",
            "1111.dkr.ecr.eu-south-2.amazonaws.com",
            "11112222333x.dkr.ecr.eu-south-2.amazonaws.com",
            "111122223333.dkr.ecr..amazonaws.com",
            "111122223333.dkr.ecr.eu south.amazonaws.com",
            "111122223333.dkr.ecr.eu-south-2.amazonaws.com.example",
            "111122223333.dkr.ecr.eu-south-2.example.com",
            "111122223333.dkr.s3.eu-south-2.amazonaws.com",
        ] {
            assert_eq!(Registry::at(other), None, "{other}");
        }
    }

    /// What becomes of a login where the metadata service and ECR say this.
    fn logged_in(instance: &[(&str, &str)], answer: Result<Value, (String, String)>) -> String {
        let now = Time::now();
        let instance: Instance = instance
            .iter()
            .map(|(path, text)| {
                let path = format!("meta-data/iam/security-credentials/{path}");
                (
                    path,
                    text.replace("TOMORROW", &now.plus(86_400).to_string())
                        .into(),
                )
            })
            .collect();
        let metadata = imds::fake::Fake::start(instance, Behaviour::default()).unwrap();
        let mut metadata = Client::new(Options {
            endpoints: vec![metadata.address()],
            ..Options::with_budget(Duration::from_secs(5))
        });
        let registry = Registry::at(HOST).unwrap();
        let service = Service {
            host: registry.service.clone(),
            service: "ecr".to_string(),
            region: "eu-south-2".to_string(),
            target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken".to_string(),
            credentials: signature::Credentials {
                access_key: "ASIA".to_string(),
                secret_key: "secret".to_string(),
                session_token: Some("session".to_string()),
            },
            answer,
        };
        let authority = Authority::generate();
        let trusted = tempfile::NamedTempFile::new().unwrap();
        fs::write(trusted.path(), authority.certificate()).unwrap();
        let fake = Fake::start(service, authority.server_config(&registry.service)).unwrap();
        let way = Way {
            trusted: trusted.path(),
            environment: &[format!("HTTPS_PROXY=http://{}", fake.address())],
        };
        match registry.log_in(&mut metadata, way, now) {
            Ok(Credentials::User(user, password)) => format!("{user} {password}"),
            Ok(Credentials::IdentityToken(_)) => unreachable!("ECR has none"),
            Err(error) => {
                let error = format!("{error:#}");
                let with = "cannot log in to 111122223333.dkr.ecr.eu-south-2.amazonaws.com by \
                            the instance's role, and there is no login for it in \
                            settings.container-registry.credentials: ";
                error.strip_prefix(with).expect("what failed").to_string()
            }
        }
    }

    const ROLE: [(&str, &str); 2] = [
        ("", "nodes"),
        (
            "nodes",
            r#"{"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": "ASIA",
                "SecretAccessKey": "secret", "Token": "session", "Expiration": "TOMORROW"}"#,
        ),
    ];

    fn answer(token: &str) -> Value {
        json!({ "authorizationData": [{
            "authorizationToken": STANDARD.encode(token),
            "expiresAt": 1_796_998_830.5,
            "proxyEndpoint": "https://111122223333.dkr.ecr.eu-south-2.amazonaws.com",
        }]})
    }

    #[test]
    fn the_role_of_the_instance_logs_in() {
        let said = logged_in(&ROLE, Ok(answer("AWS:pass:word")));
        assert_eq!(said, "AWS pass:word");
    }

    #[test]
    fn what_goes_wrong_is_said() {
        assert_eq!(
            logged_in(&[], Ok(answer("AWS:password"))),
            "the instance has no role: launch it with an instance profile"
        );
        let denied = ("AccessDeniedException".to_string(), "no".to_string());
        assert_eq!(
            logged_in(&ROLE, Err(denied)),
            "api.ecr.eu-south-2.amazonaws.com refuses ecr:GetAuthorizationToken \
             (AccessDeniedException: no); a policy of the role has to allow \
             ecr:GetAuthorizationToken"
        );
        for odd in [
            json!({}),
            json!({ "authorizationData": [] }),
            json!({ "authorizationData": [{ "authorizationToken": "?" }] }),
            answer("password"),
        ] {
            assert_eq!(
                logged_in(&ROLE, Ok(odd)),
                "the answer of api.ecr.eu-south-2.amazonaws.com has no login"
            );
        }
    }
}
