//! A service of AWS, as strict about requests as AWS is.
//!
//! The signature is worked out anew from the request as it came, not from what should be in
//! it, so that a request which AWS would refuse is refused. It is reached directly or, since
//! tests cannot own AWS' names, as what a proxy leads to.

use crate::signature::{Credentials, Scope, payload, sign};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use sysutil::time::Time;

/// Seconds that a request's date may be off.
const TOLERANCE: u64 = 5 * 60;
/// The longest head and body that are read.
const LIMIT: u64 = 64 * 1024;

/// A service of one operation: what it knows, and says to who is right in everything.
#[derive(Clone)]
pub struct Service {
    /// Its name.
    pub host: String,
    /// The name that signatures have for it.
    pub service: String,
    /// Its region.
    pub region: String,
    /// The operation that it has, with its interface.
    pub target: String,
    /// Who may ask.
    pub credentials: Credentials,
    /// The answer, or the name of a fault and its message.
    pub answer: Result<Value, (String, String)>,
}

/// Where a service is, and who may ask it.
#[derive(Clone)]
pub struct Site {
    /// Its name.
    pub host: String,
    /// The name that signatures have for it.
    pub service: String,
    /// Its region.
    pub region: String,
    /// Who may ask.
    pub credentials: Credentials,
}

/// What is said to an operation, with its interface, that asks this: an answer, or the name
/// of a fault and its message; nothing where there is no such operation.
pub type Answers = dyn Fn(&str, &Value) -> Option<Result<Value, (String, String)>> + Send;

/// A service that runs until the process ends.
pub struct Fake {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// A request as it came.
struct Request {
    method: String,
    path: String,
    /// By name in lower case.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// The name of a fault, and its message.
type Fault = (&'static str, String);

impl Fake {
    /// Has `service` answer at a port of its own.
    pub fn start(service: Service, tls: Arc<ServerConfig>) -> io::Result<Self> {
        Self::listen(TcpListener::bind("127.0.0.1:0")?, service, tls)
    }

    /// Has `service` answer where `listener` is.
    pub fn listen(
        listener: TcpListener,
        service: Service,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let site = Site {
            host: service.host,
            service: service.service,
            region: service.region,
            credentials: service.credentials,
        };
        let (only, answer) = (service.target, service.answer);
        let answers = move |target: &str, _: &Value| (target == only).then(|| answer.clone());
        Self::answering(listener, site, tls, Box::new(answers))
    }

    /// The same for a service of several operations, whose answers depend on what is asked.
    pub fn answering(
        listener: TcpListener,
        site: Site,
        tls: Arc<ServerConfig>,
        answers: Box<Answers>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Who has an answer finds it in the log.
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                let said = serve(client, &site, tls.clone(), &answers)
                    .unwrap_or_else(|error| format!("nothing: {error}"));
                lines.push(said);
            }
        });
        Ok(Self { address, log })
    }

    /// The same with this certificate and its key, both PEM.
    pub fn listen_as(
        listener: TcpListener,
        service: Service,
        certificate: &str,
        key: &str,
    ) -> anyhow::Result<Self> {
        let tls = tls_client::fake::server(certificate, key)?;
        Ok(Self::listen(listener, service, tls)?)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What became of each connection until now.
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Answers one request; what was said comes back.
fn serve(
    client: TcpStream,
    site: &Site,
    tls: Arc<ServerConfig>,
    answers: &Answers,
) -> io::Result<String> {
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    client.peek(&mut first)?;
    let by_proxy = first[0] != HANDSHAKE;
    if by_proxy {
        let mut reader = BufReader::new(client.try_clone()?);
        let request = read(&mut reader)?;
        let expected = format!("{}:443", site.host);
        if (request.method.as_str(), &request.path) != ("CONNECT", &expected) {
            return Err(odd(&format!("{} {}", request.method, request.path)));
        }
        (&client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    }
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, client));
    let request = read(&mut stream)?;
    let judged = judge(&request, site, Time::now()).and_then(|(target, body)| {
        let unknown = ("UnknownOperationException", String::new());
        answers(target, &body).ok_or(unknown)
    });
    let (status, answer) = match judged {
        Ok(Ok(answer)) => (200, answer),
        Ok(Err((kind, message))) => (400, fault(&kind, &message)),
        Err((kind, message)) => (400, fault(kind, &message)),
    };
    let text = answer.to_string();
    write!(
        stream.get_mut(),
        "HTTP/1.1 {status} -\r\nContent-Type: application/x-amz-json-1.1\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()?;
    let way = if by_proxy { "by a proxy" } else { "directly" };
    Ok(match status {
        200 => format!("200 {way}"),
        status => format!("{status} {way}: {text}"),
    })
}

fn fault(kind: &str, message: &str) -> Value {
    json!({ "__type": kind, "message": message })
}

/// Reads a request.
fn read(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut head = reader.by_ref().take(LIMIT);
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        head.read_line(&mut line)?;
        let ended = line.strip_suffix("\r\n");
        ended
            .map(str::to_string)
            .ok_or_else(|| odd("the head breaks off"))
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_string);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(odd(&first));
    };
    let mut headers = BTreeMap::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| odd(&header))?;
        let name = name.to_ascii_lowercase();
        if headers.insert(name, value.trim().to_string()).is_some() {
            return Err(odd(&format!("{header} is there twice")));
        }
    }
    let length = match headers.get("content-length") {
        Some(length) => length.parse::<u64>().map_err(|_| odd(length))?,
        None => 0,
    };
    let mut body = Vec::new();
    reader
        .by_ref()
        .take(length.min(LIMIT))
        .read_to_end(&mut body)?;
    Ok(Request {
        method,
        path,
        headers,
        body,
    })
}

fn odd(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// What a request that AWS would take is, and asks; if it would not, why.
fn judge<'a>(request: &'a Request, site: &Site, now: Time) -> Result<(&'a str, Value), Fault> {
    let header = |name: &str| {
        let value = request.headers.get(name).map(String::as_str);
        value.ok_or_else(|| incomplete(&format!("the header {name} is missing")))
    };
    let expect = |what: &str, found: &str, expected: &str| {
        let is = found == expected;
        is.then_some(())
            .ok_or_else(|| incomplete(&format!("{what} is {found:?} and not {expected:?}")))
    };
    let authorization = header("authorization")?
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or_else(|| incomplete("the algorithm is another"))?;
    let parts: BTreeMap<&str, &str> = authorization
        .split(", ")
        .filter_map(|part| part.split_once('='))
        .collect();
    let part = |name: &str| {
        let part = parts.get(name).copied();
        part.ok_or_else(|| incomplete(&format!("{name} is missing")))
    };
    let credentials = &site.credentials;
    let date = header("x-amz-date")?;
    let time = Time::parse(date).filter(|time| time.compact() == date);
    let time = time.ok_or_else(|| incomplete("the date is written otherwise"))?;
    let credential = part("Credential")?;
    let (key, scope) = credential.split_once('/').unwrap_or_default();
    if key != credentials.access_key {
        return Err(("UnrecognizedClientException", format!("nobody has {key}")));
    }
    let expected = format!(
        "{}/{}/{}/aws4_request",
        &date[..8],
        site.region,
        site.service
    );
    expect("the scope", scope, &expected)?;
    if time.0.abs_diff(now.0) > TOLERANCE {
        let message = format!("the request is of {time}, and it is {now}");
        return Err(("InvalidSignatureException", message));
    }
    let session = request.headers.get("x-amz-security-token");
    if session != credentials.session_token.as_ref() {
        let message = "the session is another".to_string();
        return Err(("UnrecognizedClientException", message));
    }
    expect("the host", header("host")?, &site.host)?;
    expect(
        "the type",
        header("content-type")?,
        "application/x-amz-json-1.1",
    )?;
    let names = part("SignedHeaders")?;
    let signed: Vec<&str> = names.split(';').collect();
    if !signed.is_sorted() {
        return Err(incomplete("the names of headers are not sorted"));
    }
    for name in request.headers.keys() {
        let must = name.starts_with("x-amz-") || name == "host" || name == "content-type";
        if must && !signed.contains(&name.as_str()) {
            return Err(incomplete(&format!("{name} is not signed")));
        }
    }
    let mut lines = String::new();
    for name in &signed {
        lines.push_str(&format!("{name}:{}\n", header(name)?));
    }
    let canonical = format!(
        "{}\n{}\n\n{lines}\n{names}\n{}",
        request.method,
        request.path,
        payload(&request.body)
    );
    let scope = Scope {
        region: &site.region,
        service: &site.service,
        time,
    };
    if part("Signature")? != sign(&credentials.secret_key, scope, &canonical) {
        let message = "the signature is another".to_string();
        return Err(("InvalidSignatureException", message));
    }
    let body = serde_json::from_slice(&request.body);
    let body = body.map_err(|_| ("SerializationException", String::new()))?;
    Ok((header("x-amz-target")?, body))
}

fn incomplete(message: &str) -> Fault {
    ("IncompleteSignatureException", message.to_string())
}
