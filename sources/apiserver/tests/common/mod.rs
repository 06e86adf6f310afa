//! A host in a folder, with a service manager that only takes notes.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "shared by tests, none of which uses all of it"
)]

use anyhow::{Result, bail};
use apiserver::App;
use apiserver::http::{Answer, Request};
use apiserver::server;
use early_boot::Source;
use early_boot::ec2::Metadata;
use early_boot::fake::Given;
use settings_agent::{Host, Units};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use tempfile::TempDir;

pub const CONFIG_FILES: &str = r#"
[[config-file]]
name = "motd"
path = "/etc/motd"
template = "/usr/share/bulkhead/templates/host/motd"
settings = ["motd"]
format = "text"

[[config-file]]
name = "chrony-conf"
path = "/etc/chrony.conf"
template = "/usr/share/bulkhead/templates/chrony/chrony.conf"
settings = ["ntp"]
reload = ["chronyd.service"]
format = "text"
mode = "0600"

[[config-file]]
name = "hosts"
path = "/etc/hosts"
template = "/usr/share/bulkhead/templates/host/hosts"
settings = ["network.hostname", "network.hosts"]
restart = ["resolver.service", "chronyd.service"]
format = "text"
"#;

const TEMPLATES: &[(&str, &str)] = &[
    ("host/motd", "{{ settings.motd }}\n"),
    (
        "chrony/chrony.conf",
        "{% for server in settings.ntp['time-servers'] %}\npool {{ server }}\n{% endfor %}\n",
    ),
    (
        "host/hosts",
        "127.0.0.1 localhost {{ settings.network.hostname }}\n\
         {% for address, names in settings.network.hosts | default([]) %}\n\
         {{ address }} {{ names | join(' ') }}\n{% endfor %}\n",
    ),
];

/// What a service manager was asked for.
#[derive(Default)]
pub struct Notes {
    lines: Mutex<Vec<String>>,
    pub reboot_is_blocked: AtomicBool,
    pub units_fail: AtomicBool,
    /// What starting a unit does.
    pub on_start: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Notes {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    fn add(&self, what: &str, units: &[String]) -> Result<Vec<String>> {
        if self.units_fail.load(Ordering::Relaxed) && !units.is_empty() {
            bail!("{what} {}: no such unit", units.join(", "));
        }
        let mut lines = self.lines.lock().unwrap();
        lines.extend(units.iter().map(|unit| format!("{what} {unit}")));
        Ok(units.to_vec())
    }
}

impl Units for Notes {
    fn restart(&self, units: &[String]) -> Result<Vec<String>> {
        self.add("restart", units)
    }

    fn reload(&self, units: &[String]) -> Result<Vec<String>> {
        self.add("reload", units)
    }

    fn start(&self, unit: &str) -> Result<()> {
        if let Some(work) = &*self.on_start.lock().unwrap() {
            work();
        }
        self.add("start", &[unit.to_string()]).map(|_| ())
    }

    fn reboot(&self) -> Result<()> {
        if self.reboot_is_blocked.load(Ordering::Relaxed) {
            bail!("an inhibitor is in the way");
        }
        self.add("reboot", &["host".to_string()]).map(|_| ())
    }
}

/// A host in a folder.
pub struct Machine {
    pub folder: TempDir,
    pub units: Arc<Notes>,
    pub app: App,
}

impl Machine {
    /// A machine that has just booted for the first time.
    pub fn new() -> Self {
        Self::with_user_data(&[])
    }

    pub fn with_user_data(user_data: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "usr/lib/os-release",
            "ID=bulkhead\nPRETTY_NAME=\"Bulkhead 0.1.0 (test)\"\nVARIANT_ID=test\n\
             VERSION_ID=0.1.0\nBUILD_ID=abcdef12\n",
        );
        put("usr/share/bulkhead/config-files.toml", CONFIG_FILES);
        put(
            "usr/share/bulkhead/defaults.toml",
            "[settings]\nmotd = \"Hello\"\n",
        );
        for (path, text) in TEMPLATES {
            put(&format!("usr/share/bulkhead/templates/{path}"), text);
        }
        let units = Arc::new(Notes::default());
        let app = boot(folder.path(), &units, user_data);
        Self { folder, units, app }
    }

    /// The same machine after a restart.
    pub fn reboot(self, user_data: &[&str]) -> Self {
        fs::remove_dir_all(self.folder.path().join("run")).unwrap();
        let app = boot(self.folder.path(), &self.units, user_data);
        Self { app, ..self }
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    /// Sends a request without a socket.
    pub async fn send(&self, method: &str, uri: &str, body: &str) -> Answer {
        let request = Request::new(method, uri, body.as_bytes().to_vec());
        apiserver::router::route(&self.app, &request).await
    }

    /// The answer as `status body`.
    pub async fn ask(&self, method: &str, uri: &str, body: &str) -> String {
        let answer = self.send(method, uri, body).await;
        format!("{} {}", answer.status, answer.body_text())
            .trim_end()
            .to_string()
    }
}

fn boot(root: &Path, units: &Arc<Notes>, user_data: &[&str]) -> App {
    let host = Host::open(root, Arc::<Notes>::clone(units)).unwrap();
    let sources: Vec<Box<dyn Source>> = user_data
        .iter()
        .map(|text| Box::new(Given::new(*text)) as Box<dyn Source>)
        .collect();
    let booted = settings_agent::boot(&host, &sources, &Metadata::of(root)).unwrap();
    App::new(host, booted.store)
}

/// A machine whose API listens on a socket. It is gone with the process.
pub struct Running {
    pub machine: Machine,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Running {
    pub fn start() -> Self {
        Self::with(server::Limits::default())
    }

    pub fn with(limits: server::Limits) -> Self {
        Self::of(Machine::new(), limits)
    }

    pub fn of(machine: Machine, limits: server::Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let (app, path) = (machine.app.clone(), socket.clone());
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = server::listen(&path, None, Vec::new()).unwrap();
                tokio::spawn(app.clone().apply_as_wanted());
                sender.send(()).unwrap();
                server::serve(listener, app, limits, std::future::pending()).await;
            });
        });
        ready.recv().unwrap();
        Self {
            machine,
            socket,
            _folder: folder,
        }
    }
}
