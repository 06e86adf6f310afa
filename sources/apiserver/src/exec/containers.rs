//! Processes in containers of the host's own containerd.

use anyhow::{Context, Result, bail};
use api_types::exec::{Initialize, Size};
use containerd_client::task::{self, Pipes};
use containerd_client::{Client, HOST_NAMESPACE, HOST_SOCKET};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::unix::pipe;

/// Where there is a folder for each process, by which one finds what is left of a server
/// that was killed.
const FOLDERS: &str = "/run/host-containers/exec";
/// Time that a process has to end by itself when its client is gone.
const GRACE: Duration = Duration::from_secs(5);

/// What comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What runs processes.
pub trait Containers: Send + Sync {
    /// Starts a process.
    fn start<'a>(&'a self, what: &'a Initialize) -> Later<'a, Result<Started>>;

    /// Ends what a server before this one has started and not ended.
    fn end_leftovers(&self) -> Later<'_, ()>;
}

/// A process that was started.
pub struct Started {
    /// What it reads.
    pub input: pipe::Sender,
    /// What it writes, be it output or complaints.
    pub output: pipe::Receiver,
    /// The process itself.
    pub process: Box<dyn Process>,
}

/// A process.
pub trait Process: Send + Sync {
    /// Waits until it has ended; its exit status.
    fn wait(&self) -> Later<'_, Result<u32>>;
    /// Tells its terminal how large it is.
    fn resize(&self, size: Size) -> Later<'_, Result<()>>;
    /// Says that no more input comes.
    fn close_input(&self) -> Later<'_, Result<()>>;
    /// Ends it and what it has started, and waits until it is gone.
    fn end(&self) -> Later<'_, ()>;
    /// Forgets it, when it has ended.
    fn forget(&self) -> Later<'_, ()>;
}

/// The containers that serve the host.
#[derive(Debug, Default)]
pub struct HostContainers {
    started: AtomicU64,
}

impl Containers for HostContainers {
    fn start<'a>(&'a self, what: &'a Initialize) -> Later<'a, Result<Started>> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        // Those of a server before this one may still be there.
        let id = format!("{}{number}", own_names());
        Box::pin(start(what, id))
    }

    fn end_leftovers(&self) -> Later<'_, ()> {
        Box::pin(async {
            let left = match Folder::left(Path::new(FOLDERS), &own_names()) {
                Ok(left) => left,
                Err(error) => return tracing::warn!("what is left of before stays: {error:#}"),
            };
            let ending = left.into_iter().map(|folder| {
                tokio::spawn(async move {
                    let id = folder.id();
                    if let Err(error) = end_leftover(folder).await {
                        tracing::warn!("what is left of {id} stays: {error:#}");
                    }
                })
            });
            for ended in ending.collect::<Vec<_>>() {
                let _ = ended.await;
            }
        })
    }
}

/// How the names of this server's processes begin.
fn own_names() -> String {
    format!("exec-{}-", std::process::id())
}

/// Ends a process whose server is gone, and so whoever it was for.
async fn end_leftover(folder: Folder) -> Result<()> {
    let (Some(container), id) = (folder.container()?, folder.id()) else {
        // Cut off before there was anything to run.
        return Ok(());
    };
    let Ok(client) = Client::connect(Path::new(HOST_SOCKET), HOST_NAMESPACE).await else {
        // Containers end with their runtime.
        return Ok(());
    };
    let Some(spec) = task::spec(&client, &container).await? else {
        return Ok(());
    };
    let process = task::Process::further(&container, &id);
    let leader = process.number(&client).await?;
    let process = HostProcess {
        leader: leader.and_then(|pid| i32::try_from(pid).ok()),
        client,
        process,
        control_group: control_group(&spec),
        _folder: folder,
    };
    if process.leader.is_some() {
        process.end().await;
        tracing::info!("ended what a server before has left in the container {container}");
    }
    process.forget().await;
    Ok(())
}

async fn start(what: &Initialize, id: String) -> Result<Started> {
    let target = &what.target;
    let starting = || format!("cannot run a command in the container {target}");
    let client = Client::connect(Path::new(HOST_SOCKET), HOST_NAMESPACE)
        .await
        .with_context(|| format!("no host container runs, and {target} neither"))?;
    let Some(spec) = task::spec(&client, target).await? else {
        bail!("the container {target} does not run");
    };
    let process = process(&spec, what).with_context(starting)?;
    let folder = Folder::new(Path::new(FOLDERS), &id, target).with_context(starting)?;
    let (input, output) = folder.open().with_context(starting)?;
    let process = task::exec(&client, target, &id, &process, &folder.pipes(what))
        .await
        .with_context(starting)?;
    let mut process = HostProcess {
        client,
        process,
        leader: None,
        control_group: control_group(&spec),
        _folder: folder,
    };
    match process.process.start(&process.client).await {
        Ok(pid) => process.leader = i32::try_from(pid).ok(),
        Err(error) => {
            process.forget().await;
            return Err(error).with_context(starting);
        }
    }
    Ok(Started {
        input,
        output,
        process: Box::new(process),
    })
}

/// The process as the runtime is told of it: as the container's first one, but for what
/// it runs and whether it has a terminal.
fn process(spec: &Value, what: &Initialize) -> Result<Value> {
    let mut process = spec["process"].clone();
    let first = process.as_object_mut().context("it has no process")?;
    let arguments: Vec<&str> = what
        .command
        .iter()
        .map(|word| std::str::from_utf8(word.as_bytes()))
        .collect::<Result<_, _>>()
        .context("its arguments are not UTF-8")?;
    first.insert("args".to_string(), json!(arguments));
    first.insert("terminal".to_string(), json!(what.tty.is_some()));
    if let Some(size) = what.tty.and_then(|tty| tty.size) {
        let size = json!({ "height": size.rows, "width": size.cols });
        first.insert("consoleSize".to_string(), size);
    }
    if what.tty.is_some()
        && let Some(Value::Array(variables)) = first.get_mut("env")
        && !variables.iter().any(|variable| {
            let text = variable.as_str().unwrap_or_default();
            text.starts_with("TERM=")
        })
    {
        variables.push(json!("TERM=xterm"));
    }
    Ok(process)
}

/// Where the kernel lists the processes of a container.
fn control_group(spec: &Value) -> PathBuf {
    let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

/// A process of containerd's.
struct HostProcess {
    client: Client,
    process: task::Process,
    /// Its number, which is also that of its session. The runtime makes each process the
    /// leader of one.
    leader: Option<i32>,
    /// That of its container.
    control_group: PathBuf,
    _folder: Folder,
}

impl Process for HostProcess {
    fn wait(&self) -> Later<'_, Result<u32>> {
        Box::pin(async {
            let status = self.process.wait(&self.client).await?;
            status.context("the process is not there any more")
        })
    }

    fn resize(&self, size: Size) -> Later<'_, Result<()>> {
        Box::pin(self.process.resize(&self.client, size.rows, size.cols))
    }

    fn close_input(&self) -> Later<'_, Result<()>> {
        Box::pin(self.process.close_input(&self.client))
    }

    fn end(&self) -> Later<'_, ()> {
        Box::pin(async {
            let signal = |signal: Signal| self.process.signal(&self.client, signal as i32, false);
            if let Err(error) = signal(Signal::SIGTERM).await {
                tracing::warn!("cannot end a process: {error:#}");
            }
            let ended = tokio::time::timeout(GRACE, self.wait()).await;
            // What it has started goes with it.
            let find = |leader| members(&self.control_group, Path::new("/proc"), leader);
            for member in self.leader.map(find).unwrap_or_default() {
                match kill(Pid::from_raw(member), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => tracing::warn!("cannot end the process {member}: {error}"),
                }
            }
            if ended.is_err() {
                let _ = signal(Signal::SIGKILL).await;
                let _ = tokio::time::timeout(GRACE, self.wait()).await;
            }
        })
    }

    fn forget(&self) -> Later<'_, ()> {
        Box::pin(async {
            if let Err(error) = self.process.delete(&self.client).await {
                tracing::warn!("a process is left in the runtime: {error:#}");
            }
        })
    }
}

/// Those processes of a control group that belong to a session, as `proc` shows them.
fn members(control_group: &Path, proc: &Path, session: i32) -> Vec<i32> {
    let list = control_group.join("cgroup.procs");
    let Ok(text) = fs::read_to_string(&list) else {
        // The container has ended, and all that ran in it.
        return Vec::new();
    };
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    numbers
        .filter(|number: &i32| {
            let stat = fs::read_to_string(proc.join(number.to_string()).join("stat"));
            stat.is_ok_and(|stat| session_of(&stat) == Some(session))
        })
        .collect()
}

/// The session of a process, of which `stat` tells: the fourth field behind its name,
/// which may hold anything.
fn session_of(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(3)?.parse().ok()
}

/// The folder of a process: its pipes, and which container it is in. It goes when this is
/// dropped, and stays when this program is killed.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// In this file of it.
    const CONTAINER: &str = "container";

    fn new(folders: &Path, id: &str, container: &str) -> Result<Self> {
        let path = folders.join(id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self { path };
        for path in [folder.input(), folder.output()] {
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let path = folder.path.join(Self::CONTAINER);
        fs::write(&path, container).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(folder)
    }

    /// Those that are there but for those whose names begin with `own`.
    fn left(folders: &Path, own: &str) -> Result<Vec<Self>> {
        let list = || format!("cannot list {}", folders.display());
        let entries = match fs::read_dir(folders) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(list)?,
        };
        let mut left = Vec::new();
        for entry in entries {
            let entry = entry.with_context(list)?;
            if !entry.file_name().as_bytes().starts_with(own.as_bytes()) {
                left.push(Self { path: entry.path() });
            }
        }
        Ok(left)
    }

    /// The name of the process.
    fn id(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The container that it is in; `None` if there is none yet.
    fn container(&self) -> Result<Option<String>> {
        let path = self.path.join(Self::CONTAINER);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => text
                .map(|text| Some(text).filter(|text| !text.is_empty()))
                .with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn input(&self) -> PathBuf {
        self.path.join("input")
    }

    fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// Our ends. A writer waits for nobody if it can also read; of what is read, the end
    /// must be seen.
    fn open(&self) -> Result<(pipe::Sender, pipe::Receiver)> {
        let (input, output) = (self.input(), self.output());
        let sender = pipe::OpenOptions::new()
            .read_write(true)
            .open_sender(&input)
            .with_context(|| format!("cannot open {}", input.display()))?;
        let receiver = pipe::OpenOptions::new()
            .open_receiver(&output)
            .with_context(|| format!("cannot open {}", output.display()))?;
        Ok((sender, receiver))
    }

    fn pipes(&self, what: &Initialize) -> Pipes {
        let output = self.output().display().to_string();
        Pipes {
            input: self.input().display().to_string(),
            errors: match what.tty {
                Some(_) => String::new(),
                None => output.clone(),
            },
            output,
            terminal: what.tty.is_some(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::exec::Tty;

    #[test]
    fn a_process_is_as_the_first_one_but_for_its_command() {
        let spec = json!({ "process": {
            "args": ["/start"],
            "env": ["PATH=/bin"],
            "cwd": "/work",
            "selinuxLabel": "label",
        }});
        let mut what = Initialize {
            command: vec!["ls".into(), "-l".into()],
            target: "admin".into(),
            tty: None,
        };
        let plain = process(&spec, &what).unwrap();
        let expected = json!({
            "args": ["ls", "-l"],
            "env": ["PATH=/bin"],
            "cwd": "/work",
            "selinuxLabel": "label",
            "terminal": false,
        });
        assert_eq!(plain, expected);
        let size = Some(Size { rows: 24, cols: 80 });
        what.tty = Some(Tty { size });
        let with_terminal = process(&spec, &what).unwrap();
        assert_eq!(with_terminal["terminal"], true);
        let expected = json!({ "height": 24, "width": 80 });
        assert_eq!(with_terminal["consoleSize"], expected);
        assert_eq!(with_terminal["env"], json!(["PATH=/bin", "TERM=xterm"]));
        assert!(process(&json!({}), &what).is_err());
    }

    #[test]
    fn what_a_server_before_has_left_is_found() {
        let folders = tempfile::tempdir().unwrap();
        let folders = &folders.path().join("exec");
        assert!(Folder::left(folders, "exec-2-").unwrap().is_empty());
        let own = Folder::new(folders, "exec-2-0", "admin").unwrap();
        // A server that is killed drops nothing.
        std::mem::forget(Folder::new(folders, "exec-1-7", "control").unwrap());
        fs::create_dir(folders.join("exec-1-8")).unwrap();
        let mut left = Folder::left(folders, "exec-2-").unwrap();
        left.sort_by_key(Folder::id);
        let found: Vec<_> = left
            .iter()
            .map(|folder| (folder.id(), folder.container().unwrap()))
            .collect();
        let expected = [
            ("exec-1-7".to_string(), Some("control".to_string())),
            ("exec-1-8".to_string(), None),
        ];
        assert_eq!(found, expected);
        drop((left, own));
        assert_eq!(fs::read_dir(folders).unwrap().count(), 0);
    }

    #[test]
    fn members_of_a_session_are_found() {
        assert_eq!(session_of("7 (a) b) S 1 7 5 0 -1"), Some(5));
        assert_eq!(session_of("7 (a"), None);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (number, session) in [("5", 5), ("7", 5), ("8", 8), ("9", 5)] {
            let entry = folder.join(number);
            fs::create_dir(&entry).unwrap();
            let stat = format!("{number} (x) S 1 {number} {session} 0 -1");
            fs::write(entry.join("stat"), stat).unwrap();
        }
        assert!(members(folder, folder, 5).is_empty());
        // 6 has just ended, and 9 is of another container.
        fs::write(folder.join("cgroup.procs"), "5\n6\n7\n8\n").unwrap();
        assert_eq!(members(folder, folder, 5), [5, 7]);
        let spec = json!({ "linux": { "cgroupsPath": "/a.slice/b.service/container" } });
        let expected = Path::new("/sys/fs/cgroup/a.slice/b.service/container");
        assert_eq!(control_group(&spec), expected);
    }
}
