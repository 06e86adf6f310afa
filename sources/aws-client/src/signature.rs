//! AWS' Signature Version 4: for requests whose signature is in a header, and for those
//! whose signature is part of their address.
//!
//! `aws-sigv4` would do it, too, and bring 60 crates along: see decision 32.

use sha2::{Digest, Sha256};
use sysutil::time::Time;

/// The hash of an empty body.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a request is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the key.
    pub access_key: String,
    /// The key itself.
    pub secret_key: String,
    /// What goes with keys that are good for a while only.
    pub session_token: Option<String>,
}

/// Where and when a signature holds.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The region.
    pub region: &'a str,
    /// The service, such as `sts`.
    pub service: &'a str,
    /// When it was made.
    pub time: Time,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method, such as `GET`.
    pub method: &'a str,
    /// Its host.
    pub host: &'a str,
    /// Its path, encoded already.
    pub path: &'a str,
    /// Names and values of its query.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers that are signed besides the host, in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The hash of its body, or what stands for one.
    pub payload: &'a str,
}

impl Request<'_> {
    /// The request's address with its signature, good for `expires` seconds.
    pub fn presign(&self, credentials: &Credentials, scope: Scope<'_>, expires: u32) -> String {
        let headers = Headers::of(self, &[]);
        let date = scope.time.compact();
        let credential = scope.credential(credentials);
        let expires = expires.to_string();
        let mut query = self.query.to_vec();
        query.extend([
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &headers.names),
        ]);
        if let Some(token) = &credentials.session_token {
            query.push(("X-Amz-Security-Token", token));
        }
        let query = canonical_query(&query);
        let canonical = self.canonical(&query, &headers);
        let signature = sign(&credentials.secret_key, scope, &canonical);
        format!(
            "https://{}{}?{query}&X-Amz-Signature={signature}",
            self.host, self.path
        )
    }

    /// The headers that the request has to have besides its own, its signature among them.
    pub fn signed_headers(
        &self,
        credentials: &Credentials,
        scope: Scope<'_>,
    ) -> Vec<(&'static str, String)> {
        let mut added = vec![("x-amz-date", scope.time.compact())];
        if let Some(token) = &credentials.session_token {
            added.push(("x-amz-security-token", token.clone()));
        }
        let headers = Headers::of(self, &added);
        let canonical = self.canonical(&canonical_query(self.query), &headers);
        let authorization = format!(
            "{ALGORITHM} Credential={}, SignedHeaders={}, Signature={}",
            scope.credential(credentials),
            headers.names,
            sign(&credentials.secret_key, scope, &canonical)
        );
        added.push(("authorization", authorization));
        added
    }

    /// The form that is signed.
    fn canonical(&self, query: &str, headers: &Headers) -> String {
        format!(
            "{}\n{}\n{query}\n{}\n{}\n{}",
            self.method, self.path, headers.lines, headers.names, self.payload
        )
    }
}

/// Headers as they are signed.
struct Headers {
    /// Each on a line.
    lines: String,
    /// Their names.
    names: String,
}

impl Headers {
    /// Those of `request`, with the host and with what is `added`.
    fn of(request: &Request<'_>, added: &[(&str, String)]) -> Self {
        let mut headers = vec![("host", request.host)];
        headers.extend(request.headers);
        headers.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"));
        Self {
            lines: lines.collect(),
            names: names.join(";"),
        }
    }
}

fn canonical_query(query: &[(&str, &str)]) -> String {
    let pairs = query.iter();
    let mut pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// The hash of a body, as a request has it for its payload.
pub fn payload(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

impl Scope<'_> {
    /// Whose signature it is, and where it holds.
    fn credential(&self, credentials: &Credentials) -> String {
        format!("{}/{}", credentials.access_key, self.path())
    }

    fn path(&self) -> String {
        let date = self.time.compact();
        let day = &date[..8];
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }
}

/// The signature of a request in its canonical form.
pub fn sign(secret_key: &str, scope: Scope<'_>, canonical: &str) -> String {
    let text = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        scope.time.compact(),
        scope.path(),
        hex::encode(Sha256::digest(canonical))
    );
    hex::encode(hmac(&signing_key(secret_key, scope), text.as_bytes()))
}

fn signing_key(secret_key: &str, scope: Scope<'_>) -> [u8; 32] {
    let date = scope.time.compact();
    let mut key = hmac(
        format!("AWS4{secret_key}").as_bytes(),
        &date.as_bytes()[..8],
    );
    for part in [scope.region, scope.service, "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    key
}

/// HMAC with SHA-256, RFC 2104.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// Everything but letters, digits and `-_.~` as `%` and two digits.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope<'a>(region: &'a str, service: &'a str, time: &str) -> Scope<'a> {
        Scope {
            region,
            service,
            time: Time::parse(time).expect(time),
        }
    }

    #[test]
    fn hmac_as_in_rfc_4231() {
        for (key, text, expected) in [
            (
                &b"Jefe"[..],
                &b"what do ya want for nothing?"[..],
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex::encode(hmac(key, text)), expected);
        }
    }

    fn credentials(access_key: &str, session_token: Option<&str>) -> Credentials {
        Credentials {
            access_key: access_key.into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: session_token.map(str::to_string),
        }
    }

    /// The example of AWS' documentation.
    #[test]
    fn keys_as_aws_derives_them() {
        let key = signing_key(
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            scope("us-east-1", "iam", "20120215T000000Z"),
        );
        assert_eq!(
            hex::encode(key),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
        );
    }

    /// `get-vanilla` of AWS' suite of tests, and the example of its documentation.
    #[test]
    fn headers_as_in_the_suite_and_the_documentation_of_aws() {
        let content_type = (
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        for (host, service, query, headers, names, expected) in [
            (
                "example.amazonaws.com",
                "service",
                &[][..],
                &[][..],
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "iam.amazonaws.com",
                "iam",
                &[("Version", "2010-05-08"), ("Action", "ListUsers")],
                &[content_type],
                "content-type;host;x-amz-date",
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
        ] {
            let request = Request {
                method: "GET",
                host,
                path: "/",
                query,
                headers,
                payload: EMPTY,
            };
            let credentials = credentials("AKIDEXAMPLE", None);
            let scope = scope("us-east-1", service, "20150830T123600Z");
            let expected = [
                ("x-amz-date", "20150830T123600Z".to_string()),
                (
                    "authorization",
                    format!(
                        "AWS4-HMAC-SHA256 \
                         Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
                         SignedHeaders={names}, Signature={expected}"
                    ),
                ),
            ];
            assert_eq!(request.signed_headers(&credentials, scope), expected);
        }
    }

    /// What botocore 1.44.8 makes of the same.
    #[test]
    fn headers_as_the_command_line_of_aws_makes_them() {
        let request = Request {
            method: "POST",
            host: "api.ecr.eu-south-2.amazonaws.com",
            path: "/",
            query: &[],
            headers: &[
                (
                    "x-amz-target",
                    "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
                ),
                ("content-type", "application/x-amz-json-1.1"),
            ],
            payload: &payload(b"{}"),
        };
        let scope = scope("eu-south-2", "ecr", "20261128T102030Z");
        for (token, expected) in [
            (
                None,
                "SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
                 Signature=37098d754b9aaa84e7b783dc27da29f46694ecaabed7d035b4cc68f3c237f488",
            ),
            (
                Some("IQoJb3JpZ2luX2Vj//+sample==/token"),
                "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
                 Signature=e3799789b9908fdc8acdef48b3e9529789abe1992a5e1ec228bb2385d9415c60",
            ),
        ] {
            let headers =
                request.signed_headers(&credentials("ASIAEXAMPLEEXAMPLE77", token), scope);
            let header = |name| {
                let mut named = headers.iter().filter(|(header, _)| *header == name);
                named.next().map(|(_, value)| value.as_str())
            };
            assert_eq!(header("x-amz-security-token"), token);
            let authorization = header("authorization").expect("a signature");
            assert!(authorization.ends_with(expected), "{authorization}");
        }
    }

    /// The example of a presigned address in the documentation of S3.
    #[test]
    fn addresses_as_in_the_documentation_of_s3() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let request = Request {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            headers: &[],
            payload: "UNSIGNED-PAYLOAD",
        };
        let scope = scope("us-east-1", "s3", "20130524T000000Z");
        assert_eq!(
            request.presign(&credentials, scope, 86400),
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }
}
