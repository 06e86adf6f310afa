//! Nodes that prove who they are by their role in AWS, as clusters of EKS have it.
//!
//! The API server asks a webhook who has sent a token. The one here does what EKS and
//! AWS' token service do together: it judges the signature with the secret that the
//! metadata service of the test has handed out, and knows the instance by its role.

use crate::ec2::Ec2;
use anyhow::{Context, Result};
use iam_authenticator::fake;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use sysutil::time::Time;

/// The port of loopback at which the webhook listens in a test's own network.
const PORT: u16 = 21362;
/// Largest request.
const BODY_LIMIT: u64 = 64 * 1024;

/// Which role is which node of which cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Roles {
    cluster: String,
    instance: Ec2,
    log: PathBuf,
}

impl Roles {
    /// The role of `instance` is the node that it is, in the cluster called `cluster`;
    /// what is judged is written to `log`.
    pub(super) fn new(cluster: &str, instance: &Ec2, log: PathBuf) -> Self {
        Self {
            cluster: cluster.to_string(),
            instance: instance.clone(),
            log,
        }
    }

    /// Writes it to a file, for the helper that runs the webhook.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("cannot write the roles")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Who sent `token`: the user as Kubernetes knows it, or why nobody.
    fn judge(&self, token: &str, now: Time) -> Value {
        let instance = &self.instance;
        let credentials = instance.credentials();
        match fake::check(token, &self.cluster, &instance.region, &credentials, now) {
            Ok(()) => json!({
                "authenticated": true,
                "user": {
                    "username": format!("system:node:{}", instance.private_dns_name()),
                    "groups": ["system:bootstrappers", "system:nodes"],
                },
            }),
            Err(error) => json!({ "authenticated": false, "error": format!("{error:#}") }),
        }
    }

    /// The answer to a `TokenReview`.
    fn answer(&self, review: &Value, now: Time) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        json!({
            "apiVersion": review["apiVersion"],
            "kind": "TokenReview",
            "status": self.judge(token, now),
        })
    }

    /// A line on each judgement is how a test learns of a refusal.
    fn note(&self, answer: &Value) -> io::Result<()> {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        writeln!(log, "{}", answer["status"])
    }
}

/// How the API server finds the webhook, as a kubeconfig.
pub(super) fn webhook_config() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "webhook",
        "clusters": [{
            "name": "webhook",
            "cluster": { "server": format!("http://127.0.0.1:{PORT}/") },
        }],
        "users": [{ "name": "api-server", "user": {} }],
        "contexts": [{
            "name": "webhook",
            "context": { "cluster": "webhook", "user": "api-server" },
        }],
    })
}

/// Serves the webhook of the roles in the file `path` until the process ends.
pub(crate) fn serve(path: &Path) -> Result<()> {
    let read = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(read)?;
    let roles: Roles = serde_json::from_str(&text).with_context(read)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .with_context(|| format!("cannot listen at port {PORT}"))?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let roles = roles.clone();
            thread::spawn(move || {
                // The API server logs what it could not ask.
                let _ = serve_client(client, &roles);
            });
        }
    });
    Ok(())
}

fn serve_client(mut client: TcpStream, roles: &Roles) -> Result<()> {
    let body = read_body(&mut BufReader::new(client.try_clone()?))?;
    let review = serde_json::from_slice(&body).context("the request is no JSON")?;
    let answer = roles.answer(&review, Time::now());
    roles.note(&answer)?;
    let answer = answer.to_string();
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(())
}

/// The body of a request whose head says how long it is.
fn read_body(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        let read = reader.by_ref().take(BODY_LIMIT).read_line(&mut line)?;
        let line = line.trim_end();
        if read == 0 || line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.filter(|length| *length <= BODY_LIMIT);
    let length = length.context("the request does not say its length, or it is too long")?;
    let mut body = vec![0; usize::try_from(length)?];
    reader.read_exact(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_client::credentials::Found;
    use iam_authenticator::token::token;

    #[test]
    fn the_role_of_the_instance_is_its_node() {
        let instance = Ec2::new().unwrap();
        let roles = Roles::new("orchard", &instance, PathBuf::new());
        let now = Time(1_796_998_830);
        let found = Found {
            credentials: instance.credentials(),
            expiration: None,
        };
        let review = |cluster: &str| {
            let token = token(cluster, &instance.region, &found, now);
            json!({ "apiVersion": "authentication.k8s.io/v1", "spec": { "token": token } })
        };
        let answer = roles.answer(&review("orchard"), now);
        let name = format!("system:node:{}", instance.private_dns_name());
        assert_eq!(answer["status"]["user"]["username"], name);
        assert_eq!(answer["apiVersion"], "authentication.k8s.io/v1");
        for bad in [review("other"), json!({})] {
            assert_eq!(roles.answer(&bad, now)["status"]["authenticated"], false);
        }
    }

    #[test]
    fn bodies_are_read_to_their_length() {
        let read = |text: &str| read_body(&mut text.as_bytes());
        assert_eq!(
            read("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}x").unwrap(),
            b"{}"
        );
        for bad in [
            "POST / HTTP/1.1\r\n\r\n{}",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}",
            "POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n{}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
