//! The socket in front of the router.

use crate::app::App;
use crate::exec;
use crate::http::{Answer, Request};
use crate::router;
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_on, socket,
};
use nix::sys::stat::{Mode, fchmod};
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

mod io;

/// How much a client may ask for before it is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once; more of them wait in the socket's queue.
    pub connections: usize,
    /// How long a request's header, and then its body, may take to arrive; also
    /// how long a connection may lie idle.
    pub read: Duration,
    /// How long a client may leave an answer unread.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            read: Duration::from_secs(10),
            write: Duration::from_secs(30),
        }
    }
}

/// The socket at `path`, for its owner and the group `group` only. At no moment can anybody
/// else connect. It is one that the service manager has kept from a server before (`kept`),
/// for a container has the file itself and not its name; or else a new one, which the service
/// manager gets to keep.
pub fn listen(path: &Path, group: Option<u32>, kept: Kept) -> Result<UnixListener> {
    let make = || format!("make the socket {}", path.display());
    let kept = kept.into_iter().find(|(name, _)| name == KEPT_AS);
    let socket = match kept {
        Some((_, socket)) if is_socket(path) => socket,
        // Without its file it would be for those alone who have that already.
        _ => {
            let socket = bind_anew(path).with_context(make)?;
            sysutil::notify::keep(KEPT_AS, &socket)?;
            socket
        }
    };
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true).with_context(make)?;
    let listener = UnixListener::from_std(listener).with_context(make)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))
            .with_context(|| format!("give {} to group {group}", path.display()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(listener)
}

/// What the service manager has handed over, by names.
pub type Kept = Vec<(String, OwnedFd)>;

/// The name by which it knows the socket.
const KEPT_AS: &str = "api";

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn bind_anew(path: &Path) -> Result<OwnedFd> {
    // Left over when we were killed; binding needs the name free. It is bound
    // under its final name, for by that name SELinux labels it.
    let _ = fs::remove_file(path);
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // The file gets the mode that the socket has when it is bound, less what the umask
    // takes away. The umask itself is the whole process's and not ours to change.
    fchmod(&socket, Mode::from_bits_truncate(0o660))?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen_on(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket)
}

/// Serves connections until `stop` is ready, then lets those that are being
/// answered end: the answer to a request for a reboot must not be lost to the
/// reboot.
pub async fn serve(
    listener: UnixListener,
    app: App,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    // Nobody waits for that.
    let sessions = Arc::clone(&app.sessions);
    tokio::spawn(async move { sessions.end_leftovers().await });
    tokio::select! {
        () = accept(&listener, &places, app.clone(), limits) => {}
        () = stop => {}
    }
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    app.sessions.end().await;
    // A client that keeps its connection open does not hold up the end.
    let _ = tokio::time::timeout(LAST_ANSWERS, places.acquire_many(all)).await;
}

async fn accept(listener: &UnixListener, places: &Arc<Semaphore>, app: App, limits: Limits) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                tokio::spawn(async move {
                    connection(stream, app, limits).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some be closed.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Time that connections have to end after the server was told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

async fn connection(stream: UnixStream, app: App, limits: Limits) {
    let is_session = AtomicBool::new(false);
    let service = service_fn(|request| {
        let (app, is_session) = (&app, &is_session);
        async move {
            if let Some(answer) = exec::upgrade(&request) {
                is_session.store(true, Ordering::Relaxed);
                return Ok(answer);
            }
            Ok::<_, Infallible>(respond(app, request, limits.read).await)
        }
    });
    let served = http1::Builder::new()
        .timer(io::Timer)
        .header_read_timeout(limits.read)
        .max_buf_size(64 * 1024)
        .serve_connection(io::Stream::new(stream, limits.write), service)
        .without_shutdown()
        .await;
    match served {
        Ok(parts) if is_session.load(Ordering::Relaxed) => {
            app.sessions
                .take(parts.io.into_inner(), &parts.read_buf)
                .await;
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("connection ended: {error}"),
    }
}

async fn respond(
    app: &App,
    request: hyper::Request<Incoming>,
    time: Duration,
) -> hyper::Response<Full<Bytes>> {
    let method = request.method().as_str().to_string();
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_string();
    let answer = match body(request.into_body(), time).await {
        Ok(body) => router::route(app, &Request::new(&method, &target, body)).await,
        Err(refused) => refused,
    };
    // The query may hold names that the user chose; the path says enough.
    let path = target.split('?').next().unwrap_or_default();
    tracing::debug!("{method} {path} {}", answer.status);
    hyper_response(answer)
}

async fn body(body: Incoming, time: Duration) -> Result<Vec<u8>, Answer> {
    let too_large = || {
        let text = format!("the body is larger than {} bytes", api_types::BODY_LIMIT);
        Answer::text(413, text)
    };
    let whole = Limited::new(body, api_types::BODY_LIMIT).collect();
    match tokio::time::timeout(time, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Answer::text(400, format!("the body broke off: {error}"))),
        Err(_) => Err(Answer::text(
            408,
            format!("the body took longer than {time:?}"),
        )),
    }
}

fn hyper_response(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = answer.content_type {
        response.headers_mut().insert(
            hyper::header::CONTENT_TYPE,
            hyper::header::HeaderValue::from_static(content_type),
        );
    }
    response
}
