//! Runs one container, from its image to its end.

use crate::config::{Config, Kind};
use crate::credentials::Registries;
use crate::host_files::Copies;
use crate::spec::{Container, Powers};
use crate::users;
use anyhow::{Context, Result, bail};
use containerd_client::import::import;
use containerd_client::task::{self, Pipes, Process};
use containerd_client::{Client, HOST_NAMESPACE, HOST_SOCKET, image, layout};
use nix::libc::{SIGKILL, SIGTERM};
use nix::sys::stat::Mode;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sysutil::fs::write_atomic;
use sysutil::os_release::unquote;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Where it keeps its data.
const DATA: &str = "/var/lib/host-containerd";
/// Images that lie in the root, for hosts whose registry is down, or that have none.
const IMAGES: &str = "/usr/share/bulkhead/host-images";
/// Mirrors of registries.
const HOSTS: &str = "/etc/containerd/certs.d";
/// In the folder that each container has for itself.
const USER_DATA: &str = "user-data";
/// Where pipes lie.
const PIPES: &str = "/run/host-containers/pipes";
/// Variables by which programs find the host's proxy.
const PROXY: &str = "/etc/network/proxy.env";

/// What comes between the name of an image and its digest.
const DIGEST: char = '@';
/// Seconds between tries to pull.
const PAUSES: [u64; 4] = [1, 2, 4, 8];
/// The same where nobody tries again later.
const MORE_PAUSES: [u64; 3] = [16, 16, 16];
/// How long a pull may get no further. A registry that has begun to answer may be silent for
/// ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time to end by itself when asked to.
const GRACE: Duration = Duration::from_secs(20);

/// How a container came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with success.
    Done,
    /// Because this was asked to end.
    Asked,
}

/// Runs the container called `name`, which is `config`, until it ends, or until this is
/// asked to end. Nothing is left of it then but its folder and its image.
pub fn run(kind: Kind, name: &str, config: &Config) -> Result<End> {
    prepare(&kind.folder(name), config.user_data()?.as_deref())?;
    let id = kind.id(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let ended = runtime.block_on(async {
        let client = Client::connect(Path::new(HOST_SOCKET), HOST_NAMESPACE).await?;
        remove_rest(&client, &id).await?;
        let ended = run_with(&client, kind, name, config).await;
        if ended.is_err()
            && let Err(error) = remove_rest(&client, &id).await
        {
            tracing::warn!("a part of {name} may be left: {error:#}");
        }
        ended
    });
    // Who is asked to end does not wait for a login that is on its way on another thread.
    runtime.shutdown_background();
    ended
}

/// The same with the runtime `client`. What was made is left when it fails.
async fn run_with(client: &Client, kind: Kind, name: &str, config: &Config) -> Result<End> {
    let id = kind.id(name);
    let powers = match (kind, config.superpowered) {
        (Kind::Bootstrap, _) => Powers::Bootstrap,
        (Kind::Host, true) => Powers::Super,
        (Kind::Host, false) => Powers::Ordinary,
    };
    let mut end = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let image = tokio::select! {
        image = get_image(client, kind, &id, &config.source) => image?,
        _ = end.recv() => return Ok(End::Asked),
    };
    let layers = match users::is_root(&image.user) {
        true => Vec::new(),
        false => image::layers(client, &id, &image).await?,
    };
    let copies = Copies::make(&id)?;
    let mounts: Vec<_> = copies.mounts().collect();
    let spec = Container {
        kind,
        name,
        powers,
        command: &config.command,
        image: &image,
        user: &users::find(&image.user, &layers)?,
        folder: &kind.folder(name),
        copies: &mounts,
        proxy: &proxy()?,
        cgroup: &cgroup()?,
    }
    .spec();
    copies.keep();
    let output = Output::new(&id)?;
    let pipes = output.pipes();
    // The runtime opens its ends only where there is somebody at ours.
    let (output, errors) = output.copy()?;
    let process = task::create(client, &id, (&config.source, &image), &spec, &pipes).await?;
    process.start(client).await?;
    let with = if powers == Powers::Super {
        " with superpowers"
    } else {
        ""
    };
    tracing::info!("{name} runs{with}");
    // An image that it ran before is of no use, but does no harm.
    match image::give_up_others(client, &id, &config.source).await {
        Ok(removed) => removed
            .iter()
            .for_each(|image| tracing::info!("removed {image}, which {name} ran before")),
        Err(error) => tracing::warn!("images of before may be left: {error:#}"),
    }
    let (status, end) = tokio::select! {
        status = process.wait(client) => (status?, End::Done),
        _ = end.recv() => {
            stop(client, &process).await?;
            (None, End::Asked)
        }
    };
    // What it wrote last is in the pipes.
    output.finish().await;
    errors.finish().await;
    task::remove(client, &id).await?;
    match status {
        None | Some(0) => Ok(end),
        Some(status) => bail!("{name} ended with status {status}"),
    }
}

/// Asks the container to end, and ends it.
async fn stop(client: &Client, process: &Process) -> Result<()> {
    process.signal(client, SIGTERM, false).await?;
    let ended = tokio::time::timeout(GRACE, process.wait(client)).await;
    if ended.is_err() {
        process.signal(client, SIGKILL, true).await?;
        process.wait(client).await?;
    }
    Ok(())
}

/// Removes what a container of that name has left that was not ended in order.
async fn remove_rest(client: &Client, id: &str) -> Result<()> {
    let process = Process::first(id);
    process.signal(client, SIGKILL, true).await?;
    process.wait(client).await?;
    task::remove(client, id).await
}

/// The image: one that lies in the root, or pulled. A name without a digest may have got
/// another image in its registry since it was pulled, which is asked for; without an answer,
/// or with half of one, the one that is here is as good.
async fn get_image(
    client: &Client,
    kind: Kind,
    id: &str,
    source: &str,
) -> Result<image::ImageConfig> {
    let images = layout::all(Path::new(IMAGES))?;
    let own = images.iter().find(|image| image.name == source);
    if let Some(own) = own {
        // It may be another one than in the root before.
        if import(client, own, &[]).await? {
            tracing::info!("{source} comes from the root");
        }
    }
    let mut image = image::take_up(client, id, source).await?;
    let is_fixed = own.is_some() || source.contains(DIGEST);
    if image.is_some() && !is_fixed {
        match pull_now(client, id, source).await {
            Ok(()) => image = image::take_up(client, id, source).await?,
            Err(error) => tracing::warn!("{id}: the image that is here is run: {error:#}"),
        }
    }
    let image = loop {
        if let Some(image) = image {
            break image;
        }
        pull(client, kind, id, source).await?;
        // What is pulled can be removed again before it is taken up.
        image = image::take_up(client, id, source).await?;
    };
    image::config(client, &image).await
}

/// Pulls an image that is not here, in several tries.
async fn pull(client: &Client, kind: Kind, id: &str, source: &str) -> Result<()> {
    let more = match kind {
        Kind::Host => &[][..],
        Kind::Bootstrap => &MORE_PAUSES[..],
    };
    let mut pauses = PAUSES.iter().chain(more);
    loop {
        match (pull_now(client, id, source).await, pauses.next()) {
            (Ok(()), _) => return Ok(()),
            (Err(error), None) => return Err(error),
            (Err(error), Some(pause)) => {
                tracing::warn!("{id}: {error:#}; another try in {pause} s");
                tokio::time::sleep(Duration::from_secs(*pause)).await;
            }
        }
    }
}

async fn pull_now(client: &Client, id: &str, source: &str) -> Result<()> {
    tracing::info!("pulling {source}");
    let registries = Arc::new(Registries::read()?);
    let environment = proxy()?;
    let log_in = move |host| {
        let (registries, environment) = (registries.clone(), environment.clone());
        async move { registries.log_in(host, environment).await }
    };
    let hosts = Path::new(HOSTS);
    containerd_client::pull::pull(client, source, id, hosts, log_in, PATIENCE, sync).await
}

/// Has the file system with images reach the disk.
fn sync() -> Result<()> {
    let folder = File::open(DATA).with_context(|| format!("cannot open {DATA}"))?;
    nix::unistd::syncfs(&folder).with_context(|| format!("cannot sync {DATA}"))
}

/// Makes the container's own folder, with the user data that the settings have for it.
fn prepare(folder: &Path, user_data: Option<&[u8]>) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(USER_DATA);
    // The container may have put anything in its place.
    let found = fs::symlink_metadata(&path);
    let removed = match (&found, user_data) {
        (Ok(found), _) if found.is_dir() => fs::remove_dir_all(&path),
        (Ok(_), None) => fs::remove_file(&path),
        _ => Ok(()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    match user_data {
        Some(bytes) => write_atomic(&path, bytes, 0o600),
        None => Ok(()),
    }
}

/// The lines of the file with the proxy's variables that set one.
fn proxy() -> Result<Vec<String>> {
    let text = match fs::read_to_string(PROXY) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {PROXY}"))?,
    };
    Ok(variables(&text))
}

/// The variables of a file that is written for the service manager, as programs have them.
fn variables(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| format!("{name}={}", unquote(value)))
        .collect()
}

/// The control group that the container gets: beside our own, in that of the unit.
fn cgroup() -> Result<String> {
    const OWN: &str = "/proc/self/cgroup";
    let text = fs::read_to_string(OWN).with_context(|| format!("cannot read {OWN}"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    let unit = own.and_then(|own| Path::new(own.trim()).parent());
    let unit = unit.with_context(|| format!("{OWN} names no control group below a unit's"))?;
    Ok(unit.join("container").display().to_string())
}

/// What a container writes, on its way to the journal.
struct Output {
    folder: PathBuf,
}

impl Output {
    /// Makes the pipes.
    fn new(id: &str) -> Result<Self> {
        let folder = Path::new(PIPES).join(id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let output = Self { folder };
        for path in [output.path("output"), output.path("errors")] {
            match nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()));
                }
            }
        }
        Ok(output)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn pipes(&self) -> Pipes {
        Pipes {
            output: self.path("output").display().to_string(),
            errors: self.path("errors").display().to_string(),
            ..Pipes::default()
        }
    }

    /// Goes on to copy what comes.
    fn copy(&self) -> Result<(Copy, Copy)> {
        let copy = |name| Copy::new(&self.path(name));
        Ok((copy("output")?, copy("errors")?))
    }
}

/// A pipe that is copied to what we write.
struct Copy {
    task: tokio::task::JoinHandle<()>,
    ended: tokio::sync::oneshot::Sender<()>,
}

impl Copy {
    fn new(path: &Path) -> Result<Self> {
        // Opened for writing, too, it has no end when the runtime opens it later.
        let mut pipe = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let (ended, mut end) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            loop {
                let read = tokio::select! {
                    biased;
                    read = pipe.read(&mut bytes) => read,
                    _ = &mut end => return,
                };
                match read {
                    Ok(length) if length > 0 => {
                        // The journal takes it, or nobody does.
                        let _ = std::io::stdout().write_all(&bytes[..length]);
                    }
                    _ => return,
                }
            }
        });
        Ok(Self { task, ended })
    }

    /// Copies what is still there.
    async fn finish(self) {
        let _ = self.ended.send(());
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn user_data_is_written_in_the_containers_own_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        let path = own.join(USER_DATA);
        let of_the_host = folder.path().join("host");
        fs::write(&of_the_host, "host").unwrap();
        prepare(&own, Some(b"a")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        symlink(&of_the_host, &path).unwrap();
        prepare(&own, Some(b"b")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"b");
        assert_eq!(fs::read(&of_the_host).unwrap(), b"host");
        for user_data in [Some(&b"c"[..]), None] {
            let _ = fs::remove_file(&path);
            fs::create_dir_all(path.join("folder")).unwrap();
            prepare(&own, user_data).unwrap();
            assert_eq!(fs::read(&path).ok().as_deref(), user_data);
        }
        prepare(&own, None).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn variables_are_as_the_service_manager_reads_them() {
        let file = r#"HTTPS_PROXY="http://jo:a\$b\\c@proxy.example:3128"
NO_PROXY=localhost,127.0.0.1
no_proxy="a b,[::1]"

nothing
"#;
        assert_eq!(
            variables(file),
            [
                r"HTTPS_PROXY=http://jo:a$b\c@proxy.example:3128",
                "NO_PROXY=localhost,127.0.0.1",
                "no_proxy=a b,[::1]",
            ]
        );
    }
}
