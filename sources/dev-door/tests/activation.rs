//! The program itself, started as the service manager does it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Starts dev-door with two sockets of these names, and returns where they are.
/// The shell puts them where the service manager would.
fn start(names: &str, folder: &Path) -> (Child, [SocketAddr; 2]) {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("socket"));
    let addresses = [0, 1].map(|index: usize| sockets[index].local_addr().expect("address"));
    let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
    let child = Command::new("sh")
        .args([
            "-c",
            r#"exec 3<&0 4<&1 0</dev/null 1>&2; export LISTEN_PID=$$; exec "$0" "$1""#,
            env!("CARGO_BIN_EXE_dev-door"),
        ])
        .arg(folder.join("api.sock"))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", names)
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .stdin(first)
        .stdout(second)
        .stderr(Stdio::piped())
        .spawn()
        .expect("dev-door");
    (child, addresses)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    stream
}

#[test]
fn serves_both_sockets() {
    let folder = tempfile::tempdir().expect("folder");
    let notify = UnixDatagram::bind(folder.path().join("notify")).expect("socket");
    notify
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let api = UnixListener::bind(folder.path().join("api.sock")).expect("socket");
    let (mut child, [probe_address, api_address]) = start("probe:api", folder.path());

    let mut message = [0; 64];
    let length = notify.recv(&mut message).expect("message");
    assert_eq!(&message[..length], b"READY=1");

    let mut probe = connect(probe_address);
    // What it starts has neither its sockets nor its variables.
    let request = r#"{"run":["sh","-c","echo ${LISTEN_PID-none} ${NOTIFY_SOCKET-none}; ls -l /proc/$$/fd | grep -c socket:"]}"#;
    for _ in 0..2 {
        writeln!(probe, "{request}").expect("request");
        let mut answer = String::new();
        BufReader::new(&probe)
            .read_line(&mut answer)
            .expect("answer");
        assert_eq!(
            answer,
            "{\"ok\":{\"status\":1,\"stdout\":\"none none\\n0\\n\",\"stderr\":\"\"}}\n"
        );
    }

    let mut client = connect(api_address);
    client.write_all(b"?").expect("request");
    let (mut server, _) = api.accept().expect("connection");
    server.read_exact(&mut [0]).expect("request");
    server.write_all(b"!").expect("answer");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    assert_eq!(answer, "!");

    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn an_unknown_socket_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let (child, _) = start("api:window", folder.path());
    let output = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("\"window\" is unknown"), "{stderr}");
}

#[test]
fn says_who_starts_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_dev-door"))
        .arg("/run/api.sock")
        .output()
        .expect("dev-door");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("the socket units start"), "{stderr}");
}
