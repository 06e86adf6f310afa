//! Containers and their processes.

use crate::api::{
    Any, CloseInput, Container, ContainerId, ContainerMessage, CreateTask, ExecProcess, Found,
    Kill, Mounts, Nothing, PrepareSnapshot, ProcessId, ResizePty, Runtime, Snapshot, Started,
    Waited,
};
use crate::grpc::{Answer, Client};
use crate::{SNAPSHOTTER, image::ImageConfig};
use anyhow::{Context, Result};
use serde_json::Value;

/// The program that looks after containers, by the name that containerd has for it.
const RUNTIME: &str = "io.containerd.runc.v2";
/// The file system of a root that can take a label.
const OVERLAY: &str = "overlay";
/// What the runtime's own documents are called.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// The pipes of a process, by their paths; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipes {
    /// What it reads.
    pub input: String,
    /// What it writes.
    pub output: String,
    /// What it complains with; none where a terminal takes both.
    pub errors: String,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// A process of a container: its first one, or another that was started in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    container: String,
    /// Empty for the first one.
    exec: String,
}

/// Makes a container of an image, whose first process waits for [`Process::start`].
/// `spec` is what the runtime goes by. One of that name must not be there.
pub async fn create(
    client: &Client,
    name: &str,
    image: (&str, &ImageConfig),
    spec: &Value,
    pipes: &Pipes,
) -> Result<Process> {
    let creating = || format!("cannot make the container {name}");
    let (reference, config) = image;
    let prepare = PrepareSnapshot {
        snapshotter: SNAPSHOTTER.to_string(),
        key: name.to_string(),
        parent: config.snapshot.clone(),
    };
    let steps = async {
        let mut root: Mounts = client
            .call("snapshots.v1.Snapshots/Prepare", None, &prepare)
            .await?;
        label(&mut root, spec);
        let container = Container {
            id: name.to_string(),
            image: reference.to_string(),
            runtime: Some(Runtime {
                name: RUNTIME.to_string(),
            }),
            spec: Some(json(SPEC, spec)?),
            snapshotter: SNAPSHOTTER.to_string(),
            snapshot_key: name.to_string(),
            ..Container::default()
        };
        let container = ContainerMessage {
            container: Some(container),
        };
        client
            .call::<Nothing>("containers.v1.Containers/Create", None, &container)
            .await?;
        let task = CreateTask {
            container_id: name.to_string(),
            rootfs: root.mounts,
            stdin: pipes.input.clone(),
            stdout: pipes.output.clone(),
            stderr: pipes.errors.clone(),
            terminal: pipes.terminal,
        };
        client
            .call::<Nothing>("tasks.v1.Tasks/Create", None, &task)
            .await
    };
    steps.await.with_context(creating)?;
    Ok(Process::first(name))
}

/// Makes a further process of a container, which waits for [`Process::start`].
/// `process` is what the runtime goes by.
pub async fn exec(
    client: &Client,
    container: &str,
    id: &str,
    process: &Value,
    pipes: &Pipes,
) -> Result<Process> {
    let request = ExecProcess {
        container_id: container.to_string(),
        stdin: pipes.input.clone(),
        stdout: pipes.output.clone(),
        stderr: pipes.errors.clone(),
        terminal: pipes.terminal,
        spec: Some(json(PROCESS, process)?),
        exec_id: id.to_string(),
    };
    client
        .call::<Nothing>("tasks.v1.Tasks/Exec", None, &request)
        .await?;
    Ok(Process::further(container, id))
}

/// The specification of a container, if it is there.
pub async fn spec(client: &Client, container: &str) -> Result<Option<Value>> {
    let request = ContainerId {
        id: container.to_string(),
    };
    let answer = client.ask::<ContainerMessage>("containers.v1.Containers/Get", None, &request);
    let Answer::Done(answer) = answer.await? else {
        return Ok(None);
    };
    let spec = answer.container.and_then(|container| container.spec);
    let spec = spec.with_context(|| format!("the container {container} has no specification"))?;
    serde_json::from_slice(&spec.value)
        .with_context(|| format!("the specification of the container {container} is not valid"))
        .map(Some)
}

/// Removes a container and whatever is left of it, also of one that was cut off while
/// it was made. Its first process must have ended.
pub async fn remove(client: &Client, container: &str) -> Result<()> {
    let id = ContainerId {
        id: container.to_string(),
    };
    let snapshot = Snapshot {
        snapshotter: SNAPSHOTTER.to_string(),
        key: container.to_string(),
    };
    client
        .ask::<Nothing>("tasks.v1.Tasks/Delete", None, &id)
        .await?;
    client
        .ask::<Nothing>("containers.v1.Containers/Delete", None, &id)
        .await?;
    client
        .ask::<Nothing>("snapshots.v1.Snapshots/Remove", None, &snapshot)
        .await
        .map(drop)
}

impl Process {
    /// The first process of a container.
    pub fn first(container: &str) -> Self {
        Self {
            container: container.to_string(),
            exec: String::new(),
        }
    }

    /// The further process of a container that was made as `id`.
    pub fn further(container: &str, id: &str) -> Self {
        Self {
            container: container.to_string(),
            exec: id.to_string(),
        }
    }

    /// Its number on the host, also when it has ended; `None` if it is not there, or was
    /// not started.
    pub async fn number(&self, client: &Client) -> Result<Option<u32>> {
        let id = self.id();
        let answer = client.ask::<Found>("tasks.v1.Tasks/Get", None, &id);
        Ok(match answer.await? {
            Answer::Done(found) => found.process.map(|process| process.pid),
            Answer::NotFound | Answer::AlreadyExists => None,
        }
        .filter(|number| *number != 0))
    }

    /// Starts it; its number on the host.
    pub async fn start(&self, client: &Client) -> Result<u32> {
        let started: Started = client
            .call("tasks.v1.Tasks/Start", None, &self.id())
            .await?;
        Ok(started.pid)
    }

    /// Waits until it has ended; its exit status. `None` if it is not there.
    pub async fn wait(&self, client: &Client) -> Result<Option<u32>> {
        let id = self.id();
        let answer = client.ask::<Waited>("tasks.v1.Tasks/Wait", None, &id);
        Ok(match answer.await? {
            Answer::Done(waited) => Some(waited.exit_status),
            Answer::NotFound | Answer::AlreadyExists => None,
        })
    }

    /// Sends it a signal, and with `all` every process of its container. One that has
    /// ended is left alone.
    pub async fn signal(&self, client: &Client, signal: i32, all: bool) -> Result<()> {
        let request = Kill {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            signal: signal.unsigned_abs(),
            all,
        };
        client
            .ask::<Nothing>("tasks.v1.Tasks/Kill", None, &request)
            .await
            .map(drop)
    }

    /// Tells its terminal how large it is.
    pub async fn resize(&self, client: &Client, rows: u16, columns: u16) -> Result<()> {
        let request = ResizePty {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            width: columns.into(),
            height: rows.into(),
        };
        client
            .ask::<Nothing>("tasks.v1.Tasks/ResizePty", None, &request)
            .await
            .map(drop)
    }

    /// Says that no more input comes.
    pub async fn close_input(&self, client: &Client) -> Result<()> {
        let request = CloseInput {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            stdin: true,
        };
        client
            .ask::<Nothing>("tasks.v1.Tasks/CloseIO", None, &request)
            .await
            .map(drop)
    }

    /// Forgets it, once it has ended.
    pub async fn delete(&self, client: &Client) -> Result<()> {
        client
            .ask::<Nothing>("tasks.v1.Tasks/DeleteProcess", None, &self.id())
            .await
            .map(drop)
    }

    fn id(&self) -> ProcessId {
        ProcessId {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
        }
    }
}

/// Gives the files of a container's root the label that `spec` has for its files: the
/// runtime labels what it mounts itself alone.
fn label(root: &mut Mounts, spec: &Value) {
    let Some(label) = spec["linux"]["mountLabel"].as_str() else {
        return;
    };
    for mount in &mut root.mounts {
        if mount.kind == OVERLAY {
            mount.options.push(format!("context=\"{label}\""));
        }
    }
}

fn json(kind: &str, value: &Value) -> Result<Any> {
    Ok(Any {
        kind: kind.to_string(),
        value: serde_json::to_vec(value).context("cannot write the specification")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Mount;
    use serde_json::json;

    #[test]
    fn a_root_gets_the_label_of_its_container() {
        let mount = |kind: &str, options: &[&str]| Mount {
            kind: kind.to_string(),
            options: options.iter().map(|option| option.to_string()).collect(),
            ..Mount::default()
        };
        let check = |spec: Value, expected: &[&str]| {
            let mut root = Mounts {
                mounts: vec![mount("overlay", &["index=off"]), mount("bind", &["ro"])],
            };
            label(&mut root, &spec);
            assert_eq!(
                root.mounts,
                [mount("overlay", expected), mount("bind", &["ro"])]
            );
        };
        check(json!({}), &["index=off"]);
        check(
            json!({ "linux": { "mountLabel": "u:r:t:s0" } }),
            &["index=off", "context=\"u:r:t:s0\""],
        );
    }
}
