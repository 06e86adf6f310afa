//! Repositories that are reached over TLS, and through a proxy.

use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use api_types::UpdateCommand::{Prepare, Refresh};
use boot_slots::verity::BLOCK_SIZE;
use hyper_util::client::proxy::matcher::Matcher;
use test_vm::files::Manner;
use tls_client::fake::{Authority, begin};

use crate::fixture::{Fixture, Server, connector};

/// A name that nothing but a proxy of these tests knows.
const NAME: &str = "updates.example";

/// Serves the repository over TLS, as `name`.
fn serve(fixture: &Fixture, authority: &Authority, name: &str, manner: Manner) -> Server {
    let config = authority.server_config(name);
    Server::start_over(&fixture.repository_folder(), manner, move |stream| {
        begin(&config, stream)
    })
}

/// What a proxy was asked for: the first line, and the password if there was one.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A proxy that leads to `server`, whoever is asked for, or to nobody.
fn proxy(server: Option<u16>) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let heard = Arc::clone(&heard);
            thread::spawn(move || lead(client, server, &heard));
        }
    });
    (port, asked)
}

fn lead(mut client: TcpStream, server: Option<u16>, heard: &Asked) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut lines = (&mut reader).lines().map(|line| line.unwrap());
    let first = lines.next().unwrap();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let password = (headers.iter()).find_map(|header| {
        let (name, value) = header.split_once(": ")?;
        (name.eq_ignore_ascii_case("proxy-authorization")).then(|| value.to_string())
    });
    heard.lock().unwrap().push((first, password));
    let Some(server) = server else {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        client.write_all(refusal.as_bytes()).unwrap();
        return;
    };
    let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut to, mut back) = (server.try_clone().unwrap(), server);
    thread::spawn(move || {
        let _ = copy(&mut reader, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut back, &mut client);
    let _ = client.shutdown(Shutdown::Write);
}

#[test]
fn an_update_over_tls() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let authority = Authority::generate();
    fixture.trust(authority.certificate());
    let server = serve(&fixture, &authority, "127.0.0.1", Manner::Ranges);
    fixture.look_at(&format!("https://127.0.0.1:{}", server.port));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 100 * BLOCK_SIZE as u64);
}

#[test]
fn attack_a_server_that_somebody_else_vouches_for() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let (authority, other) = (Authority::generate(), Authority::generate());
    for (trusted, name, says) in [
        (Some(&other), "127.0.0.1", "invalid peer certificate"),
        (Some(&authority), NAME, "not valid for name"),
        (None, "127.0.0.1", "ca-certificates.crt"),
    ] {
        let _ = std::fs::remove_dir_all(fixture.folder.path().join("host/etc/ssl"));
        if let Some(trusted) = trusted {
            fixture.trust(trusted.certificate());
        }
        let server = serve(&fixture, &authority, name, Manner::Ranges);
        fixture.look_at(&format!("https://127.0.0.1:{}", server.port));
        let error = format!("{:#}", fixture.run(Refresh).unwrap().unwrap_err());
        assert!(error.contains(says), "{error}");
        assert!(error.contains(&server.port.to_string()), "{error}");
    }
}

#[test]
fn attack_a_redirect_out_of_tls() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let authority = Authority::generate();
    fixture.trust(authority.certificate());
    let server = serve(&fixture, &authority, "127.0.0.1", Manner::MovedToPlain);
    fixture.look_at(&format!("https://127.0.0.1:{}", server.port));
    fixture.done(&[Refresh]);
    let error = format!("{:#}", fixture.run(Prepare).unwrap().unwrap_err());
    assert!(error.contains("it leads out of TLS"), "{error}");
}

#[test]
fn a_proxy_leads_to_the_repository() {
    let mut fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let authority = Authority::generate();
    fixture.trust(authority.certificate());
    let server = serve(&fixture, &authority, NAME, Manner::Ranges);
    let (port, asked) = proxy(Some(server.port));
    let proxies = Matcher::builder().https(format!("http://user:secret@127.0.0.1:{port}"));
    fixture.connector = connector(fixture.folder.path(), proxies.no("127.0.0.1"));
    fixture.look_at(&format!("https://{NAME}"));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    let asked = asked.lock().unwrap();
    let expected = (
        format!("CONNECT {NAME}:443 HTTP/1.1"),
        Some("Basic dXNlcjpzZWNyZXQ=".to_string()),
    );
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|line| *line == expected), "{asked:?}");
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let mut fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    fixture.trust(Authority::generate().certificate());
    let (port, _) = proxy(None);
    let proxies = Matcher::builder().https(format!("http://user:secret@127.0.0.1:{port}"));
    fixture.connector = connector(fixture.folder.path(), proxies);
    fixture.look_at(&format!("https://{NAME}"));
    let error = format!("{:#}", fixture.run(Refresh).unwrap().unwrap_err());
    let says =
        format!("the proxy 127.0.0.1:{port} refused a connection to {NAME}:443 with status 407");
    assert!(error.contains(&says), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
