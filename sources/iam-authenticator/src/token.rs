//! The question, as a token, and what kubelet reads.

use aws_client::credentials::Found;
use aws_client::region::domain;
use aws_client::signature::{EMPTY, Request, Scope};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sysutil::time::Time;

/// What tokens begin with.
pub const PREFIX: &str = "k8s-aws-v1.";
/// The header that binds a token to one cluster.
pub const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// Seconds that the signed address says it is good for.
const EXPIRES: u32 = 60;
/// Seconds that the cluster takes a token for, which is what AWS allows a request's
/// date to be off, less one minute in which it travels.
const GOOD_FOR: u64 = 14 * 60;

/// A token for the cluster called `cluster`.
pub fn token(cluster: &str, region: &str, found: &Found, now: Time) -> String {
    let request = Request {
        method: "GET",
        host: &host(region),
        path: "/",
        query: &[("Action", "GetCallerIdentity"), ("Version", "2011-06-15")],
        headers: &[(CLUSTER_HEADER, cluster)],
        payload: EMPTY,
    };
    let scope = Scope {
        region,
        service: "sts",
        time: now,
    };
    let address = request.presign(&found.credentials, scope, EXPIRES);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(address))
}

/// Until when kubelet may use a token that is made now: no longer than what it is
/// signed with.
pub fn expiration(found: &Found, now: Time) -> Time {
    let end = now.plus(GOOD_FOR);
    found
        .expiration
        .map_or(end, |expiration| end.min(expiration))
}

/// What kubelet reads, in the version that it asks for in `exec_info`, the text of
/// `KUBERNETES_EXEC_INFO`.
pub fn exec_credential(token: &str, expiration: Time, exec_info: Option<&str>) -> Value {
    const VERSIONS: [&str; 2] = [
        "client.authentication.k8s.io/v1beta1",
        "client.authentication.k8s.io/v1",
    ];
    let asked: Option<Value> = exec_info.and_then(|text| serde_json::from_str(text).ok());
    let asked = asked
        .as_ref()
        .and_then(|asked| asked["apiVersion"].as_str());
    let version = VERSIONS.into_iter().find(|version| asked == Some(version));
    json!({
        "kind": "ExecCredential",
        "apiVersion": version.unwrap_or(VERSIONS[0]),
        "spec": {},
        "status": {
            "expirationTimestamp": expiration.to_string(),
            "token": token,
        },
    })
}

/// Where a region's token service is.
pub fn host(region: &str) -> String {
    format!("sts.{region}.{}", domain(region))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_client::signature::Credentials;

    fn found(session_token: Option<&str>, expiration: Option<Time>) -> Found {
        Found {
            credentials: Credentials {
                access_key: "ASIAEXAMPLEEXAMPLE77".into(),
                secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
                session_token: session_token.map(str::to_string),
            },
            expiration,
        }
    }

    fn address(token: &str) -> String {
        let encoded = token.strip_prefix("k8s-aws-v1.").expect("the prefix");
        let bytes = URL_SAFE_NO_PAD.decode(encoded).expect("base64");
        String::from_utf8(bytes).expect("a text")
    }

    /// What botocore 1.44.8 makes of the same for `aws eks get-token`; of its parameters
    /// two stand in another order, which does not count for the signature.
    #[test]
    fn addresses_as_the_command_line_of_aws_makes_them() {
        let now = Time::parse("20261128T102030Z").expect("a date");
        let head = "https://sts.eu-south-2.amazonaws.com/?Action=GetCallerIdentity\
                    &Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
                    &X-Amz-Credential=ASIAEXAMPLEEXAMPLE77%2F20261128%2Feu-south-2%2Fsts%2Faws4_request\
                    &X-Amz-Date=20261128T102030Z&X-Amz-Expires=60\
                    &X-Amz-SignedHeaders=host%3Bx-k8s-aws-id";
        for (session_token, tail) in [
            (
                None,
                "&X-Amz-Signature=a7439184313f703f8d548073aa6c7d9d9919785f5227567e119e8b0ad8380b5b",
            ),
            (
                Some("IQoJb3JpZ2luX2Vj//+sample==/token"),
                "&X-Amz-Security-Token=IQoJb3JpZ2luX2Vj%2F%2F%2Bsample%3D%3D%2Ftoken\
                 &X-Amz-Signature=cc9f9fbf41b768184bf7eb21ea465a8965790f3e919fc933293c6388f719d7c4",
            ),
        ] {
            let token = token("orchard", "eu-south-2", &found(session_token, None), now);
            let sorted = |text: &str| {
                let (path, query) = text.split_once('?').expect(text);
                let mut query: Vec<String> = query.split('&').map(str::to_string).collect();
                query.sort();
                (path.to_string(), query)
            };
            let expected = format!("{head}{tail}");
            assert_eq!(sorted(&address(&token)), sorted(&expected));
        }
    }

    #[test]
    fn a_token_ends_with_what_it_is_signed_with() {
        let now = Time(1_000_000);
        for (expiration, expected) in [
            (None, 1_000_840),
            (Some(1_000_841), 1_000_840),
            (Some(1_000_300), 1_000_300),
        ] {
            let found = found(None, expiration.map(Time));
            assert_eq!(super::expiration(&found, now), Time(expected));
        }
    }

    #[test]
    fn the_answer_has_the_version_that_is_asked_for() {
        let v1 = "{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"spec\": {}}";
        for (asked, version) in [
            (None, "v1beta1"),
            (Some(""), "v1beta1"),
            (
                Some("{\"apiVersion\": \"client.authentication.k8s.io/v7\"}"),
                "v1beta1",
            ),
            (Some(v1), "v1"),
        ] {
            let answer = exec_credential("t", Time(0), asked);
            let expected = json!({
                "kind": "ExecCredential",
                "apiVersion": format!("client.authentication.k8s.io/{version}"),
                "spec": {},
                "status": {"expirationTimestamp": "1970-01-01T00:00:00Z", "token": "t"},
            });
            assert_eq!(answer, expected, "{asked:?}");
        }
    }

    #[test]
    fn hosts_by_region() {
        for (region, expected) in [
            ("eu-central-1", "sts.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(host(region), expected);
        }
    }
}
