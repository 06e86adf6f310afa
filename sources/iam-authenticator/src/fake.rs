//! Judges a token as AWS' token service and a cluster of EKS together would, knowing
//! the secrets that were handed out.
//!
//! The signature is worked out anew from the address as it came, not from what should
//! be in it, so that a token which AWS would refuse is refused.

use crate::token::{CLUSTER_HEADER, PREFIX, host};
use anyhow::{Context, Result, bail, ensure};
use aws_client::signature::{Credentials, EMPTY, Scope, sign};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use sysutil::time::Time;

/// Seconds that a request's date may be off.
const TOLERANCE: u64 = 15 * 60;

/// Whether `token` was made for `cluster` with `credentials`, in `region` and lately;
/// if not, why.
pub fn check(
    token: &str,
    cluster: &str,
    region: &str,
    credentials: &Credentials,
    now: Time,
) -> Result<()> {
    let encoded = token
        .strip_prefix(PREFIX)
        .context("the prefix is missing")?;
    let address = URL_SAFE_NO_PAD.decode(encoded).context("it is no base64")?;
    let address = String::from_utf8(address).context("it is no text")?;
    let rest = address.strip_prefix("https://").context("it is no https")?;
    let (found_host, query) = rest.split_once("/?").context("it is not the root")?;
    ensure!(found_host == host(region), "it is for {found_host}");
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    let mut signature = None;
    let mut given = BTreeMap::new();
    let mut signed = Vec::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').context("a parameter has no value")?;
        if name == "X-Amz-Signature" {
            signature = Some(value);
            continue;
        }
        ensure!(
            given.insert(name, decode(value)?).is_none(),
            "{name} is there twice"
        );
        signed.push(pair);
    }
    let mut take = |name: &str| {
        given
            .remove(name)
            .with_context(|| format!("{name} is missing"))
    };
    for (name, expected) in [
        ("Action", "GetCallerIdentity"),
        ("Version", "2011-06-15"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-SignedHeaders", "host;x-k8s-aws-id"),
    ] {
        let value = take(name)?;
        ensure!(value == expected, "{name} is {value}");
    }
    let date = take("X-Amz-Date")?;
    let time = Time::parse(&date).with_context(|| format!("{date} is no date"))?;
    ensure!(date == time.compact(), "{date} is not written as AWS does");
    ensure!(
        time.0.abs_diff(now.0) <= TOLERANCE,
        "it is of {time}, and it is {now}"
    );
    let expires: u64 = take("X-Amz-Expires")?.parse().context("X-Amz-Expires")?;
    ensure!(expires <= TOLERANCE, "it is to be good for {expires} s");
    let day = &date[..8];
    let expected = format!("{}/{day}/{region}/sts/aws4_request", credentials.access_key);
    let credential = take("X-Amz-Credential")?;
    ensure!(credential == expected, "it is signed by {credential}");
    let session = given.remove("X-Amz-Security-Token");
    ensure!(
        session == credentials.session_token,
        "its session is another"
    );
    if let Some((name, _)) = given.first_key_value() {
        bail!("{name} has no business there");
    }
    let canonical = format!(
        "GET\n/\n{}\nhost:{found_host}\n{CLUSTER_HEADER}:{cluster}\n\nhost;{CLUSTER_HEADER}\n{EMPTY}",
        signed.join("&")
    );
    let scope = Scope {
        region,
        service: "sts",
        time,
    };
    ensure!(
        signature == Some(sign(&credentials.secret_key, scope, &canonical).as_str()),
        "the signature is wrong, or it is for another cluster"
    );
    Ok(())
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
        bytes.extend(hex::decode(digits).with_context(|| format!("{text} is cut off"))?);
    }
    String::from_utf8(bytes).with_context(|| format!("{text} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::token;
    use aws_client::credentials::Found;

    #[test]
    fn only_what_is_right_in_everything_is_taken() {
        let credentials = Credentials {
            access_key: "ASIA".into(),
            secret_key: "secret".into(),
            session_token: Some("a/b+c=".into()),
        };
        let found = Found {
            credentials: credentials.clone(),
            expiration: None,
        };
        let now = Time(1_796_998_830);
        let good = token("orchard", "eu-south-2", &found, now);
        let check_with = |token: &str, change: &dyn Fn(&mut Credentials), later: u64| {
            let mut credentials = credentials.clone();
            change(&mut credentials);
            let judged = check(
                token,
                "orchard",
                "eu-south-2",
                &credentials,
                now.plus(later),
            );
            judged.err().map(|error| format!("{error:#}"))
        };
        let same = |_: &mut Credentials| {};
        assert_eq!(check_with(&good, &same, 0), None);
        assert_eq!(check_with(&good, &same, 899), None);
        let told = |token: &str, change: &dyn Fn(&mut Credentials), later, expected: &str| {
            let reason = check_with(token, change, later).expect(expected);
            assert!(reason.contains(expected), "{reason}");
        };
        told(&good, &same, 901, "it is of ");
        told(
            &good,
            &|c| c.secret_key.push('x'),
            0,
            "the signature is wrong",
        );
        told(&good, &|c| c.access_key.push('x'), 0, "it is signed by");
        told(
            &good,
            &|c| c.session_token = None,
            0,
            "its session is another",
        );
        for (cluster, region, expected) in [
            ("other", "eu-south-2", "the signature is wrong"),
            ("orchard", "eu-south-1", "it is for sts.eu-south-1"),
        ] {
            told(&token(cluster, region, &found, now), &same, 0, expected);
        }
        let address = URL_SAFE_NO_PAD
            .decode(&good[PREFIX.len()..])
            .expect("base64");
        let address = String::from_utf8(address).expect("a text");
        for (from, to, expected) in [
            ("Expires=60", "Expires=61", "the signature is wrong"),
            ("GetCallerIdentity", "GetSessionToken", "Action is"),
            ("&X-Amz-Expires", "&X=1&X-Amz-Expires", "X has no business"),
            ("&X-Amz-Expires=60", "", "X-Amz-Expires is missing"),
        ] {
            let changed = URL_SAFE_NO_PAD.encode(address.replace(from, to));
            told(&format!("{PREFIX}{changed}"), &same, 0, expected);
        }
        told("k8s-aws-v2.x", &same, 0, "the prefix");
    }
}
