//! The API: the image's own server and client, run on the workstation in a copy of
//! the image's root.

use super::Row;
use super::quota::Quota;
use anyhow::{Context, Result, ensure};
use buildsys::signals;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use test_vm::Emulator;
use test_vm::api::Api;
use test_vm::process::{ended_children, tree_cpu_seconds};

/// Changes of one file that no unit reads, of which the median is told.
const CHANGES: u32 = 51;
/// Commits in a row.
const COMMITS: u32 = 1000;
/// Starts of the client, of which the mean is told.
const CLIENT_STARTS: u32 = 100;
/// Starts of it with a hundredth of a processor.
const SLOWED_STARTS: u32 = 11;
const SLOWED: &str = "apiclient get os, 1 % of a core";
/// Bytes of settings that make a document a full one.
const FULL: usize = 512 * 1024;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the programs of the image in `image`.
pub fn measure(emulator: &Emulator, image: &Path, folder: &Path) -> Result<Vec<Row>> {
    eprintln!("API …");
    let root = extract(emulator, image, folder)?;
    let socket = folder.join("api.sock");
    let mut rows = Vec::new();

    let server = Server::start(&root, &socket)?;
    rows.push(server.started("API: start"));
    rows.push(Row::size("API: resident memory", server.resident()?));
    rows.push(change_one_file(&server, &root)?);
    rows.push(commit_often(&server)?);
    rows.push(start_clients(image, &socket)?);
    match Quota::new() {
        Ok(quota) => rows.push(start_slowed_clients(&quota, image, &socket)?),
        Err(error) => eprintln!("{SLOWED}: left out: {error:#}"),
    }
    fill(&server.api)?;
    drop(server);

    let server = Server::start(&root, &socket)?;
    rows.push(server.started("API: start, full document"));
    rows.push(Row::size(
        "API: resident memory, full document",
        server.resident()?,
    ));
    Ok(rows)
}

/// The image's root as a folder that can be written to.
fn extract(emulator: &Emulator, image: &Path, folder: &Path) -> Result<PathBuf> {
    const IMAGE: &str = "/image";
    emulator.run_with(
        folder,
        &[(image, IMAGE)],
        "fsck.erofs",
        &["--extract=root", &format!("{IMAGE}/root.erofs")],
    )?;
    let root = folder.join("root");
    for made in ["etc", "run", "var/lib/bulkhead"] {
        let made = root.join(made);
        fs::create_dir_all(&made).with_context(|| format!("cannot create {}", made.display()))?;
    }
    Ok(root)
}

/// A running server.
struct Server {
    child: Child,
    api: Api,
    cpu: f64,
    wall: f64,
}

impl Server {
    /// Starts the image's server, with the image's own libraries, and waits until it
    /// answers.
    fn start(root: &Path, socket: &Path) -> Result<Self> {
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let started = Instant::now();
        let child = Command::new(libraries.join("ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(&libraries)
            .arg(root.join("usr/bin/apiserver"))
            .arg("--root")
            .arg(root)
            .arg("--socket-path")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the image's API server")?;
        let mut server = Self {
            child,
            api: Api::at(socket),
            cpu: 0.0,
            wall: 0.0,
        };
        while !server.api.answers() {
            signals::check()?;
            ensure!(
                started.elapsed() < PATIENCE,
                "the image's API server does not answer"
            );
            thread::sleep(Duration::from_millis(1));
        }
        server.wall = started.elapsed().as_secs_f64();
        server.cpu = server.cpu_seconds();
        Ok(server)
    }

    fn started(&self, name: &str) -> Row {
        Row::time(name, self.cpu, self.wall)
    }

    fn cpu_seconds(&self) -> f64 {
        tree_cpu_seconds(self.child.id())
    }

    fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .and_then(|number| number.trim().parse().ok())
            .with_context(|| format!("{path} does not tell the resident memory"))?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed is how a server ends that has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn commit(api: &Api, settings: &Value) -> Result<Value> {
    api.json("PATCH", "/settings?tx=bench", Some(settings))?;
    api.json("POST", "/tx/commit_and_apply?tx=bench&wait=true", None)
}

/// From the request for a change to the rendered file, the median of many.
fn change_one_file(server: &Server, root: &Path) -> Result<Row> {
    let file = root.join("etc/motd");
    let (cpu, mut walls) = (server.cpu_seconds(), Vec::new());
    for number in 0..CHANGES {
        let text = format!("change {number}");
        let started = Instant::now();
        commit(&server.api, &json!({ "motd": text }))?;
        while !fs::read_to_string(&file).is_ok_and(|found| found.trim() == text) {
            ensure!(
                started.elapsed() < PATIENCE,
                "{} was not rendered",
                file.display()
            );
            thread::sleep(Duration::from_micros(200));
        }
        walls.push(started.elapsed().as_secs_f64());
    }
    walls.sort_by(f64::total_cmp);
    let cpu = (server.cpu_seconds() - cpu) / f64::from(CHANGES);
    let median = walls.get(walls.len() / 2).copied().unwrap_or_default();
    Ok(Row::time("API: set to rendered, one file", cpu, median))
}

fn commit_often(server: &Server) -> Result<Row> {
    let (cpu, started) = (server.cpu_seconds(), Instant::now());
    for number in 0..COMMITS {
        let settings = json!({ "motd": format!("commit {number}") });
        server
            .api
            .json("PATCH", "/settings?tx=bench", Some(&settings))?;
        server.api.json("POST", "/tx/commit?tx=bench", None)?;
        signals::check()?;
    }
    Ok(Row::time(
        &format!("API: {COMMITS} commits"),
        server.cpu_seconds() - cpu,
        started.elapsed().as_secs_f64(),
    ))
}

/// The static client, from its start to the answer printed; the mean of many.
fn start_clients(image: &Path, socket: &Path) -> Result<Row> {
    let (cpu, started) = (ended_children(), Instant::now());
    for _ in 0..CLIENT_STARTS {
        let status = Command::new(image.join("apiclient"))
            .arg("--socket-path")
            .arg(socket)
            .args(["get", "os"])
            .stdout(Stdio::null())
            .status()
            .context("cannot start the image's apiclient")?;
        ensure!(status.success(), "apiclient get os: {status}");
    }
    let starts = f64::from(CLIENT_STARTS);
    Ok(Row::time(
        "apiclient get os",
        (ended_children() - cpu) / starts,
        started.elapsed().as_secs_f64() / starts,
    ))
}

/// The same with a hundredth of a processor, the median of some.
fn start_slowed_clients(quota: &Quota, image: &Path, socket: &Path) -> Result<Row> {
    let (cpu, mut walls) = (ended_children(), Vec::new());
    for _ in 0..SLOWED_STARTS {
        let started = Instant::now();
        let child = quota.within(|| {
            Command::new(image.join("apiclient"))
                .arg("--socket-path")
                .arg(socket)
                .args(["get", "os"])
                .stdout(Stdio::null())
                .spawn()
        })?;
        let status = child
            .and_then(|mut child| child.wait())
            .context("cannot start the image's apiclient")?;
        ensure!(status.success(), "apiclient get os: {status}");
        walls.push(started.elapsed().as_secs_f64());
    }
    walls.sort_by(f64::total_cmp);
    let median = walls.get(walls.len() / 2).copied().unwrap_or_default();
    let cpu = (ended_children() - cpu) / f64::from(SLOWED_STARTS);
    Ok(Row::time(SLOWED, cpu, median))
}

/// Fills the document with settings of the user.
fn fill(api: &Api) -> Result<()> {
    let value = "x".repeat(200);
    let variables: serde_json::Map<String, Value> = (0..FULL / 250)
        .map(|number| {
            (
                format!("net.bench.variable-{number}"),
                Value::from(value.as_str()),
            )
        })
        .collect();
    let settings = json!({ "kernel": { "sysctl": variables } });
    api.json("PATCH", "/settings?tx=bench", Some(&settings))?;
    api.json("POST", "/tx/commit?tx=bench", None)?;
    Ok(())
}
