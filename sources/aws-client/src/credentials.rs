//! Where the credentials of the node come from: the environment, or the role of the
//! instance.

use crate::signature::Credentials;
use anyhow::{Context, Result, bail};
use imds::Client;
use serde::Deserialize;
use sysutil::time::Time;

/// Where the metadata service has roles.
const ROLES: &str = "meta-data/iam/security-credentials/";
/// Seconds that a clock may be off before AWS refuses what it dates.
const CLOCK_TOLERANCE: u64 = 5 * 60;

/// Credentials, and until when they are good.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// The credentials.
    pub credentials: Credentials,
    /// Their end, if they have one that is known.
    pub expiration: Option<Time>,
}

/// What the metadata service says of a role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Role {
    code: String,
    message: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    last_updated: String,
    expiration: String,
}

/// Credentials by the variables that AWS' own programs know.
pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Found>> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let pair = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY"));
    match pair {
        (None, None) => Ok(None),
        (Some(access_key), Some(secret_key)) => Ok(Some(Found {
            credentials: Credentials {
                access_key,
                secret_key,
                session_token: set("AWS_SESSION_TOKEN"),
            },
            expiration: None,
        })),
        _ => bail!(
            "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is set and one is not: set both, \
             or none to use the instance's role"
        ),
    }
}

/// The credentials of the instance's role, which `now` must be within.
pub fn of_instance(client: &mut Client, now: Time) -> Result<Found> {
    const TO_DO: &str = "launch it with an instance profile";
    let roles = client
        .text(ROLES)
        .context("cannot ask for the instance's role")?;
    let roles = roles.unwrap_or_default();
    let Some(name) = roles
        .lines()
        .next()
        .map(str::trim)
        .filter(|name| !name.is_empty())
    else {
        bail!("the instance has no role: {TO_DO}");
    };
    let text = client
        .text(&format!("{ROLES}{name}"))
        .with_context(|| format!("cannot ask for the credentials of the role {name}"))?;
    let Some(text) = text else {
        bail!("there are no credentials of the role {name}: {TO_DO}");
    };
    let role: Role = serde_json::from_str(&text)
        .ok()
        .with_context(|| format!("the metadata service gives no credentials of the role {name}"))?;
    role.into_found(name, now)
}

impl Role {
    fn into_found(self, name: &str, now: Time) -> Result<Found> {
        if self.code != "Success" {
            bail!(
                "the role {name} gives no credentials ({}{}): see whether the role exists, and \
                 whether EC2 may assume it by its trust policy",
                self.code,
                self.message
                    .map(|text| format!(": {text}"))
                    .unwrap_or_default()
            );
        }
        if self.access_key_id.is_empty() || self.secret_access_key.is_empty() {
            bail!("the metadata service gives credentials of the role {name} that have no key");
        }
        let expiration = Time::parse(&self.expiration);
        if let Some(end) = expiration
            && end <= now
        {
            bail!(
                "the credentials of the role {name} were good until {end}, and the clock says \
                 {now}: is the clock right?"
            );
        }
        if let Some(start) = Time::parse(&self.last_updated)
            && now.plus(CLOCK_TOLERANCE) < start
        {
            bail!(
                "the credentials of the role {name} are of {start}, and the clock says {now}: \
                 AWS refuses what is dated so; the clock has to be set first"
            );
        }
        Ok(Found {
            credentials: Credentials {
                access_key: self.access_key_id,
                secret_key: self.secret_access_key,
                session_token: Some(self.token).filter(|token| !token.is_empty()),
            },
            expiration,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imds::Options;
    use imds::fake::{Behaviour, Fake, Instance};
    use std::time::Duration;

    const GOOD: &str = r#"{"Code": "Success", "LastUpdated": "2026-11-28T10:00:00Z",
        "Type": "AWS-HMAC", "AccessKeyId": "ASIA", "SecretAccessKey": "secret",
        "Token": "token", "Expiration": "2026-11-28T16:00:00Z"}"#;

    fn asked(instance: &[(&str, &str)], now: &str) -> Result<Found> {
        let instance: Instance = instance
            .iter()
            .map(|(path, text)| (format!("{ROLES}{path}"), (*text).into()))
            .collect();
        let fake = Fake::start(instance, Behaviour::default()).expect("a fake");
        let mut client = Client::new(Options {
            endpoints: vec![fake.address()],
            ..Options::with_budget(Duration::from_secs(5))
        });
        of_instance(&mut client, Time::parse(now).expect(now))
    }

    #[test]
    fn the_role_of_the_instance() {
        let found = asked(&[("", "nodes\n"), ("nodes", GOOD)], "2026-11-28T12:00:00Z");
        let found = found.expect("credentials");
        assert_eq!(found.expiration, Time::parse("2026-11-28T16:00:00Z"));
        let credentials = found.credentials;
        assert_eq!(credentials.access_key, "ASIA");
        assert_eq!(credentials.secret_key, "secret");
        assert_eq!(credentials.session_token.as_deref(), Some("token"));
    }

    #[test]
    fn what_is_wrong_with_a_role_is_said() {
        let failed = r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume"}"#;
        let keyless = GOOD.replace("\"ASIA\"", "\"\"");
        let noon = "2026-11-28T12:00:00Z";
        for (instance, now, expected) in [
            (vec![], noon, "has no role"),
            (vec![("", "\n")], noon, "has no role"),
            (
                vec![("", "nodes")],
                noon,
                "no credentials of the role nodes",
            ),
            (
                vec![("", "nodes"), ("nodes", "<html>")],
                noon,
                "gives no credentials",
            ),
            (
                vec![("", "nodes"), ("nodes", failed)],
                noon,
                "(AssumeRoleUnauthorizedAccess: EC2 cannot assume)",
            ),
            (
                vec![("", "nodes"), ("nodes", &*keyless)],
                noon,
                "have no key",
            ),
            (
                vec![("", "nodes"), ("nodes", GOOD)],
                "2026-11-28T16:00:00Z",
                "were good until 2026-11-28T16:00:00Z, and the clock says 2026-11-28T16:00:00Z",
            ),
            (
                vec![("", "nodes"), ("nodes", GOOD)],
                "1970-01-01T00:00:00Z",
                "the clock has to be set first",
            ),
        ] {
            let error = asked(&instance, now).err().expect(expected);
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_environment_comes_first_and_is_whole() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set
                .iter()
                .map(|(name, value)| (format!("AWS_{name}"), (*value).to_string()))
                .collect();
            of_environment(|name| {
                let mut named = set.iter().filter(|(there, _)| there == name);
                named.next().map(|(_, value)| value.clone())
            })
        };
        assert!(of(&[]).expect("nothing").is_none());
        assert!(of(&[("ACCESS_KEY_ID", "a")]).is_err());
        assert!(of(&[("ACCESS_KEY_ID", ""), ("SECRET_ACCESS_KEY", "s")]).is_err());
        let found = of(&[("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "s")]);
        let found = found.expect("credentials").expect("some");
        assert_eq!(found.credentials.session_token, None);
        assert_eq!(found.expiration, None);
    }
}
