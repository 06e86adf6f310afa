//! What answers beside the machine: the guest's API as a Unix socket on the
//! workstation, and the servers of a test's own network.
//!
//! They run in a helper, the tool itself started once more, because a process has
//! to be single-threaded to enter the network namespace that the emulator lives
//! in. Folders stay the workstation's there, so the API's socket is simply a file.
//! The helper ends with its standard input, that is with whoever started it.

use crate::cluster::egress::{self, Forward};
use crate::cluster::roles;
use crate::ec2::{self, Ec2};
use crate::ecr::{self, Ecr};
use crate::files::{self, Manner};
use crate::socket;
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The argument by which the tool's `main` knows that it is the helper: everything
/// after it goes to [`run`].
pub const HELPER_ARGUMENT: &str = "vm-services";

/// What the time server writes a line to for each answer, in the run's folder.
pub const NTP_LOG: &str = "ntp.log";

/// What the metadata service says, in the run's folder.
const METADATA: &str = "metadata.json";
/// What ECR knows, in the run's folder.
const ECR: &str = "ecr.json";

/// Who serves files over TLS, in the run's folder.
const IDENTITY: &str = "files.pem";

const READY: &str = "ready";

/// The servers of a test's own network. The guest reaches them at 10.0.2.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// A time server whose clock is this many seconds ahead.
    pub ntp: Option<i64>,
    /// EC2's metadata service, where the machine is this instance. It is reached at its
    /// own address.
    pub metadata: Option<Ec2>,
    /// The service of ECR that gives logins for a registry.
    pub ecr: Option<Ecr>,
    /// A folder whose files are served over HTTP, at [`FILES_PORT`].
    pub files: Option<PathBuf>,
    /// The certificate and its key, in PEM, with which they are served over TLS instead.
    pub files_identity: Option<String>,
}

/// Serves a folder over TLS with a certificate and its key, in PEM. Whoever starts machines
/// brings it, for this crate has no TLS.
pub type ServeOverTls = fn(TcpListener, &Path, &str) -> Result<()>;

/// Where [`Services::files`] are served.
pub const FILES_PORT: u16 = 8080;

/// The command line that runs the helper when the program's `main` passes
/// [`HELPER_ARGUMENT`] on to [`run`].
pub(crate) fn helper_of_this_program() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), HELPER_ARGUMENT.into()]
}

/// How the helper is started.
pub(crate) struct Start<'a> {
    pub(crate) helper: &'a [OsString],
    /// Process whose network namespace is entered.
    pub(crate) join: Option<u32>,
    pub(crate) folder: &'a Path,
    /// Unix sockets on the workstation and the TCP ports that they lead to.
    pub(crate) forwards: &'a [(PathBuf, u16)],
    pub(crate) services: &'a Services,
}

/// The helper while it runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself; killing it only makes that certain.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the helper and waits until everything in it listens.
pub(crate) fn start(start: &Start<'_>) -> Result<Running> {
    let [program, arguments @ ..] = start.helper else {
        bail!("there is no program to run the machine's services with");
    };
    let mut command = Command::new(program);
    command.args(arguments);
    for (socket, port) in start.forwards {
        command
            .arg("--socket")
            .arg(socket)
            .arg("--port")
            .arg(port.to_string());
    }
    if let Some(pid) = start.join {
        command.arg("--join").arg(pid.to_string());
    }
    if let Some(ahead) = start.services.ntp {
        command.arg("--ntp").arg(ahead.to_string());
        command.arg("--ntp-log").arg(start.folder.join(NTP_LOG));
    }
    if let Some(instance) = &start.services.metadata {
        let path = start.folder.join(METADATA);
        instance.write(&path)?;
        command.arg("--metadata").arg(path);
    }
    if let Some(ecr) = &start.services.ecr {
        let path = start.folder.join(ECR);
        ecr.write(&path)?;
        command.arg("--ecr").arg(path);
    }
    if let Some(folder) = &start.services.files {
        command.arg("--files").arg(folder);
    }
    if let Some(identity) = &start.services.files_identity {
        let path = start.folder.join(IDENTITY);
        fs::write(&path, identity).with_context(|| format!("cannot write {}", path.display()))?;
        command.arg("--identity").arg(path);
    }
    spawn(command)
}

/// Starts the helper that leads an API server to its nodes: see
/// [`cluster::egress`](crate::cluster::egress). With a file of roles, it also judges the
/// tokens of nodes: see [`cluster::roles`](crate::cluster::roles).
pub(crate) fn start_egress(
    join: Option<u32>,
    socket: &Path,
    forwards: &[Forward],
    roles: Option<&Path>,
) -> Result<Running> {
    let mut command = helper(join);
    command.arg("--egress").arg(socket);
    for forward in forwards {
        command.arg("--node").arg(forward.to_argument());
    }
    if let Some(roles) = roles {
        command.arg("--roles").arg(roles);
    }
    spawn(command)
}

/// Starts the helper that takes connections at `port` of loopback and drops them.
pub(crate) fn start_dropping(join: Option<u32>, port: u16) -> Result<Running> {
    let mut command = helper(join);
    command.arg("--drop").arg(port.to_string());
    spawn(command)
}

/// Starts the helper that begins to answer at `port` of loopback whatever it is asked, as a
/// registry that has an image of that name, and gets no further.
pub(crate) fn start_stalling(join: Option<u32>, port: u16) -> Result<Running> {
    let mut command = helper(join);
    command.arg("--stall").arg(port.to_string());
    spawn(command)
}

/// This program as the helper, in the network of the process `join` if there is one.
fn helper(join: Option<u32>) -> Command {
    let helper = helper_of_this_program();
    let mut command = Command::new(&helper[0]);
    command.args(&helper[1..]);
    if let Some(pid) = join {
        command.arg("--join").arg(pid.to_string());
    }
    command
}

/// Starts a helper and waits until it says that everything in it listens.
fn spawn(mut command: Command) -> Result<Running> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on the terminal is for the tool, which still needs the helper
        // while it powers the machine off.
        .process_group(0)
        .spawn()
        .context("cannot start the helper that runs the machine's services")?;
    let stdin = child.stdin.take();
    let stdout = child
        .stdout
        .take()
        .context("the helper has no standard output")?;
    let stderr = child
        .stderr
        .take()
        .context("the helper has no standard error")?;
    let mut running = Running { child, stdin };
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("cannot read from the helper that runs the machine's services")?;
    if line.trim_end() != READY {
        drop(running.stdin.take());
        let mut text = String::new();
        BufReader::new(stderr)
            .read_to_string(&mut text)
            .context("cannot read why the machine's services did not start")?;
        return Err(anyhow!(
            "the machine's services did not start: {}",
            text.trim()
        ));
    }
    Ok(running)
}

/// What the helper's command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    join: Option<u32>,
    sockets: Vec<PathBuf>,
    /// For each of the sockets, where it leads to.
    ports: Vec<u16>,
    ntp: Option<i64>,
    ntp_log: Option<PathBuf>,
    egress: Option<PathBuf>,
    /// Where the egress leads to.
    nodes: Vec<Forward>,
    roles: Option<PathBuf>,
    metadata: Option<PathBuf>,
    ecr: Option<PathBuf>,
    files: Option<PathBuf>,
    identity: Option<PathBuf>,
    /// Where connections are dropped.
    drop: Option<u16>,
    /// Where answers get no further than their heads.
    stall: Option<u16>,
}

impl Request {
    fn parse(arguments: &[OsString]) -> Result<Self> {
        fn number<T: std::str::FromStr>(name: &OsStr, value: &OsStr) -> Result<T> {
            match value.to_str().and_then(|value| value.parse().ok()) {
                Some(number) => Ok(number),
                None => bail!("{} {} is not a number", name.display(), value.display()),
            }
        }
        let mut request = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                bail!("{} has no value", pair[0].display());
            };
            match name.to_str() {
                Some("--join") => request.join = Some(number(name, value)?),
                Some("--socket") => request.sockets.push(value.into()),
                Some("--port") => request.ports.push(number(name, value)?),
                Some("--ntp") => request.ntp = Some(number(name, value)?),
                Some("--ntp-log") => request.ntp_log = Some(value.into()),
                Some("--egress") => request.egress = Some(value.into()),
                Some("--roles") => request.roles = Some(value.into()),
                Some("--drop") => request.drop = Some(number(name, value)?),
                Some("--stall") => request.stall = Some(number(name, value)?),
                Some("--metadata") => request.metadata = Some(value.into()),
                Some("--ecr") => request.ecr = Some(value.into()),
                Some("--files") => request.files = Some(value.into()),
                Some("--identity") => request.identity = Some(value.into()),
                Some("--node") => request.nodes.push(value.to_string_lossy().parse()?),
                _ => bail!("unknown argument {}", name.display()),
            }
        }
        Ok(request)
    }
}

/// The helper: enters the namespace, listens, says so, and serves until standard
/// input ends. To be called before the program has started any thread.
pub fn run(arguments: &[OsString], serve_over_tls: ServeOverTls) -> Result<()> {
    let request = Request::parse(arguments)?;
    if let Some(pid) = request.join {
        enter_network_of(pid)?;
    }
    for (path, port) in request.sockets.iter().zip(&request.ports) {
        let listener = socket::listen(path)?;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    // The client sees a failed connection end; there is nobody
                    // else to tell.
                    let _ = join_streams(client, target);
                });
            }
        });
    }
    if let Some(ahead) = request.ntp {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, NTP_PORT))
            .context("cannot bind the time server's port")?;
        let mut log = match &request.ntp_log {
            Some(path) => Some(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot write {}", path.display()))?,
            ),
            None => None,
        };
        thread::spawn(move || serve_time(&socket, ahead, log.as_mut()));
    }
    if let Some(path) = &request.egress {
        egress::serve(socket::listen(path)?, request.nodes);
    }
    if let Some(path) = &request.roles {
        roles::serve(path)?;
    }
    if let Some(path) = &request.ecr {
        ecr::serve(path)?;
    }
    if let Some(port) = request.drop {
        let listener = listen(port)?;
        thread::spawn(move || listener.incoming().for_each(drop));
    }
    if let Some(port) = request.stall {
        let listener = listen(port)?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Who goes away is told nothing.
                thread::spawn(move || begin_to_answer(client));
            }
        });
    }
    if let Some(folder) = &request.files {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, FILES_PORT))
            .with_context(|| format!("cannot listen at port {FILES_PORT}"))?;
        match &request.identity {
            None => files::serve(listener, folder, Manner::Ranges),
            Some(path) => {
                let identity = fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serve_over_tls(listener, folder, &identity)?;
            }
        }
    }
    let _metadata = match &request.metadata {
        Some(path) => Some(ec2::serve(path)?),
        None => None,
    };
    println!("{READY}");
    io::copy(&mut io::stdin(), &mut io::sink()).context("cannot read standard input")?;
    Ok(())
}

/// Listens at a port of loopback.
fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen at port {port}"))
}

/// Answers each request with a head that promises a manifest, which never comes.
fn begin_to_answer(client: TcpStream) -> io::Result<()> {
    let digest = "0123456789abcdef".repeat(4);
    let mut client = BufReader::new(client);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if client.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\n\
             Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\
             Docker-Content-Digest: sha256:{digest}\r\n\
             Content-Length: 1000\r\n\r\n"
        );
        client.get_mut().write_all(head.as_bytes())?;
    }
}

fn enter_network_of(pid: u32) -> Result<()> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).with_context(|| format!("cannot open {path}"))
    };
    // Both are opened first: after the first step /proc may look different.
    let (user, net) = (open("user")?, open("net")?);
    setns(user, CloneFlags::CLONE_NEWUSER)
        .with_context(|| format!("cannot enter the user namespace of process {pid}"))?;
    setns(net, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace of process {pid}"))
}

/// Passes bytes both ways until both sides have ended.
pub(crate) fn join_streams(client: UnixStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || {
        let result = io::copy(&mut from_client, &mut to_server);
        // Fails when the other side is gone, which is what it would bring about.
        let _ = to_server.shutdown(Shutdown::Write);
        result
    });
    let (mut from_server, mut to_client) = (server, client);
    let result = io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
    // A panic in the other thread would have been printed by it.
    let _ = upward.join();
    result.map(drop)
}

const NTP_PORT: u16 = 123;
/// Seconds from 1900, where NTP begins to count, to 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;

fn serve_time(socket: &UdpSocket, ahead: i64, mut log: Option<&mut File>) {
    let mut packet = [0; 512];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut packet) else {
            // An error report for an earlier answer; the socket goes on working,
            // and if it does not this must not take all processor time.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Some(answer) = ntp_answer(&packet[..length], SystemTime::now(), ahead) else {
            continue;
        };
        if socket.send_to(&answer, client).is_ok()
            && let Some(log) = log.as_mut()
        {
            // The log is how a test learns of the answer; without it the test
            // fails and names this file.
            let _ = writeln!(log, "answered {client}");
        }
    }
}

/// The answer of RFC 5905 to a client's request; nothing when it is no request.
fn ntp_answer(request: &[u8], now: SystemTime, ahead: i64) -> Option<[u8; 48]> {
    const CLIENT: u8 = 3;
    const SERVER: u8 = 4;
    let request: &[u8; 48] = request.get(..48)?.try_into().ok()?;
    let version = request[0] >> 3 & 7;
    if request[0] & 7 != CLIENT || !(3..=4).contains(&version) {
        return None;
    }
    let since = now.duration_since(UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()? + NTP_TO_UNIX + ahead;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    let mut stamp = [0; 8];
    // The era is not part of a time stamp: the number wraps in 2036.
    stamp[..4].copy_from_slice(&(seconds as u32).to_be_bytes());
    stamp[4..].copy_from_slice(&(fraction as u32).to_be_bytes());

    let mut answer = [0; 48];
    answer[0] = version << 3 | SERVER;
    answer[1] = 1; // stratum: a primary server
    answer[2] = request[2]; // poll interval
    answer[3] = (-20_i8) as u8; // precision: a microsecond
    answer[12..16].copy_from_slice(b"TEST");
    answer[16..24].copy_from_slice(&stamp); // clock last set
    answer[24..32].copy_from_slice(&request[40..48]); // client's time
    answer[32..40].copy_from_slice(&stamp); // received
    answer[40..48].copy_from_slice(&stamp); // sent
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_command_line() {
        let parse = |text: &str| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            Request::parse(&arguments)
        };
        let all = parse(
            "--join 7 --socket /a --port 80 --ntp -5 --ntp-log /l \
             --egress /e --node 10.0.2.15:10250=4 --roles /r --metadata /m --ecr /c --files /f \
             --identity /i --drop 5 --stall 6",
        )
        .unwrap();
        let expected = Request {
            join: Some(7),
            sockets: vec!["/a".into()],
            ports: vec![80],
            ntp: Some(-5),
            ntp_log: Some("/l".into()),
            egress: Some("/e".into()),
            nodes: vec!["10.0.2.15:10250=4".parse().unwrap()],
            roles: Some("/r".into()),
            metadata: Some("/m".into()),
            ecr: Some("/c".into()),
            files: Some("/f".into()),
            identity: Some("/i".into()),
            drop: Some(5),
            stall: Some(6),
        };
        assert_eq!(all, expected);
        for bad in ["--join", "--join x", "--port 70000", "--what 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_connections_are_passed_on_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = server.local_addr().unwrap();
        let path = folder.path().join("api.sock");
        let listener = socket::listen(&path).unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || join_streams(client, target));
            }
        });
        let mut clients: Vec<UnixStream> =
            (0..3).map(|_| socket::connect(&path).unwrap()).collect();
        // The last one is served first: no connection waits for an earlier one.
        for client in &mut clients {
            client.write_all(b"ping").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        let servers: Vec<TcpStream> = (0..3).map(|_| server.accept().unwrap().0).collect();
        for mut stream in servers.into_iter().rev() {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "ping");
            stream.write_all(b"pong").unwrap();
        }
        for mut client in clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "pong");
        }
    }

    #[test]
    fn answers_time_requests_only() {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let mut request = [0; 48];
        request[0] = 4 << 3 | 3;
        request[40..48].copy_from_slice(b"ORIGINAL");
        let answer = ntp_answer(&request, now, 3600).unwrap();
        assert_eq!(answer[0], 4 << 3 | 4);
        assert_eq!(&answer[24..32], b"ORIGINAL");
        let seconds = u32::from_be_bytes(answer[40..44].try_into().unwrap());
        assert_eq!(i64::from(seconds), 1_700_000_000 + 3600 + NTP_TO_UNIX);
        assert_eq!(answer[44..48], [0x80, 0, 0, 0]);
        for (mode, version) in [(4, 4), (3, 1), (0, 4)] {
            request[0] = version << 3 | mode;
            assert_eq!(ntp_answer(&request, now, 0), None);
        }
        assert_eq!(ntp_answer(&[0; 47], now, 0), None);
    }
}
