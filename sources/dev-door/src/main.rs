//! The door into a development image, which has neither a shell nor a login.
//! Only the dev twin of a variant has this program; the image that people run
//! does not contain it.
//!
//! The service manager hands it two TCP sockets by name:
//!
//! * `api`: each connection is joined to the API's Unix socket ([`forward`]);
//! * `probe`: tests look inside the machine, a line of JSON for a request and
//!   one for its answer ([`probe`], the requests themselves in [`inspect`] and
//!   [`run`]).
//!
//! Neither asks who is calling. The probe does everything as an ordinary
//! service of the host, without a SELinux domain of its own, so that what it is
//! refused is refused to every such service. Starting and stopping machines,
//! and the other end of both connections, are the crate test-vm's job.

mod forward;
mod inspect;
mod probe;
mod run;
mod server;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, bail};

/// Connections to the API at once; each has two threads.
const API_CONNECTIONS: usize = 64;

/// Connections to the probe at once; each has one thread, and one program that
/// it runs.
const PROBE_CONNECTIONS: usize = 16;

fn main() -> ExitCode {
    // Before anything else, which might open descriptors, is done.
    let sockets = sysutil::listen::listen_fds();
    sysutil::main_with("dev-door", || {
        let api = PathBuf::from(
            std::env::args_os()
                .nth(1)
                .context("name the API's socket: dev-door /run/api.sock")?,
        );
        let sockets = sockets?;
        if sockets.is_empty() {
            bail!("there are no sockets to serve; the socket units start this program");
        }
        let mut servers = Vec::new();
        for (name, socket) in sockets {
            servers.push(serve(&name, TcpListener::from(socket), api.clone())?);
        }
        sysutil::notify::ready()?;
        for server in servers {
            if server.join().is_err() {
                bail!("a thread has panicked");
            }
        }
        Ok(())
    })
}

/// Serves the socket that the service manager calls `name`.
fn serve(name: &str, listener: TcpListener, api: PathBuf) -> Result<thread::JoinHandle<()>> {
    listener
        .set_nonblocking(false)
        .with_context(|| format!("preparing the socket {name:?}"))?;
    let builder = thread::Builder::new().name(name.to_string());
    match name {
        "api" => builder.spawn(move || {
            server::serve(&listener, "api", API_CONNECTIONS, move |client| {
                forward::forward(&client, &api)
            })
        }),
        "probe" => builder.spawn(move || {
            server::serve(&listener, "probe", PROBE_CONNECTIONS, |client| {
                probe::converse(&client, &client)
            })
        }),
        _ => bail!(
            "the socket {name:?} is unknown: FileDescriptorName= of a socket unit is api or probe"
        ),
    }
    .with_context(|| format!("starting the thread that serves the socket {name:?}"))
}
