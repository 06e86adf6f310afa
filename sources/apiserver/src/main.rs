//! Program of the API server: brings settings up, then serves.

use anyhow::{Context, Result, bail};
use apiserver::{App, server};
use early_boot::ec2::Metadata;
use nix::time::{ClockId, clock_gettime};
use settings::Variant;
use settings_agent::{Host, Systemd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// The group that may use the API. Host containers and operators know it by
/// its number.
const API_GROUP: u32 = 274;

const USAGE: &str = "usage: apiserver [--socket-path PATH] [--root FOLDER]

Brings settings up (user data at first boot, generated settings, config files),
then serves the API.

  --socket-path PATH   where to listen (default /run/api.sock)
  --root FOLDER        work below FOLDER instead of /; the socket then keeps the
                       caller's group";

struct Arguments {
    socket: PathBuf,
    root: PathBuf,
}

fn main() -> ExitCode {
    sysutil::main_with("apiserver", || run(arguments()?))
}

fn run(arguments: Arguments) -> Result<()> {
    let kept = sysutil::listen::listen_fds()?;
    let host = Host::open(&arguments.root, Arc::new(Systemd))?;
    let variant = Variant::parse(&host.os().variant_id).ok();
    let metadata = Metadata::of(&arguments.root);
    let sources = early_boot::sources::of(variant.as_ref(), &metadata);
    let booted = settings_agent::boot(&host, &sources, &metadata)?;
    // Of this process alone, which tells more than the clock of a machine that boots.
    if let Ok(taken) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
        let taken = std::time::Duration::from(taken).as_millis();
        tracing::info!("settings brought up in {taken} ms of processor time");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(arguments, App::new(host, booted.store), kept))
}

async fn serve(arguments: Arguments, app: App, kept: server::Kept) -> Result<()> {
    let is_host = arguments.root == Path::new("/");
    let listener = server::listen(&arguments.socket, is_host.then_some(API_GROUP), kept)?;
    sysutil::notify::ready()?;
    if is_host {
        sysutil::console::say("API ready");
    }
    tokio::spawn(app.clone().apply_as_wanted());
    let mut terminate = signal(SignalKind::terminate()).context("listen for the signal to end")?;
    let stop = async move {
        terminate.recv().await;
    };
    server::serve(listener, app, server::Limits::default(), stop).await;
    Ok(())
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments {
        socket: api_types::SOCKET.into(),
        root: "/".into(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value\n{USAGE}"))
        };
        match word.as_str() {
            "--socket-path" => arguments.socket = value()?.into(),
            "--root" => arguments.root = value()?.into(),
            "-h" | "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => bail!("unknown argument {word:?}\n{USAGE}"),
        }
    }
    Ok(arguments)
}
