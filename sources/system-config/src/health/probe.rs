//! Looking at the system's health.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sysutil::fs::read_text_if_present;

const API_SOCKET: &str = "/run/api.sock";
/// The API server's mark; `preconfigured.target` insists that it is not there.
const STOPPED_BY_USER_DATA: &str = "/run/bulkhead/stopped-by-user-data";
/// How long somebody who is asked may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
const KUBELET: &str = "kubelet.service";
/// What its unit wants to be there, and not empty.
const KUBELET_ENVIRONMENT: &str = "/etc/kubernetes/kubelet/env";
/// Where kubelet says how it is: its default, which no setting changes.
const KUBELET_HEALTH: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10248);
/// Settings of updates, as the API server renders them.
const SETTINGS: &str = "/etc/bulkhead/updates.toml";

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Why the API does not answer.
    pub api: Option<String>,
    /// Units that failed.
    pub failed_units: Vec<String>,
    /// What is wrong with the storage.
    pub storage: Option<String>,
    /// Why kubelet is not healthy, if that is waited for.
    pub kubelet: Option<String>,
    /// Whether user data stops the boot.
    pub stopped_by_user_data: bool,
}

impl Probe {
    /// Whether only kubelet is not healthy yet.
    pub fn waits_for_kubelet(&self) -> bool {
        let others = Self {
            kubelet: None,
            ..self.clone()
        };
        self.kubelet.is_some() && others.complaint().is_none()
    }

    /// Whether nothing is wrong but what waiting does not help, nor another image if this
    /// one has proved itself.
    pub fn is_blameless(&self) -> bool {
        let are_tasks = self.failed_units.iter().all(|unit| is_task(unit));
        self.is_hopeless() && self.api.is_none() && self.kubelet.is_none() && are_tasks
    }

    /// Whether something is wrong that waiting does not help.
    pub fn is_hopeless(&self) -> bool {
        self.storage.is_some()
            || self.stopped_by_user_data
            || self.failed_units.iter().any(|unit| is_task(unit))
    }

    /// What is wrong, if anything is.
    pub fn complaint(&self) -> Option<String> {
        let mut complaints = Vec::new();
        if self.stopped_by_user_data {
            complaints.push("user data stops it".to_owned());
        }
        if let Some(storage) = &self.storage {
            complaints.push(storage.clone());
        }
        if let Some(api) = &self.api {
            complaints.push(format!("the API does not answer: {api}"));
        }
        if let Some(kubelet) = &self.kubelet {
            complaints.push(format!("kubelet is not healthy: {kubelet}"));
        }
        if !self.failed_units.is_empty() {
            complaints.push(format!("failed: {}", self.failed_units.join(", ")));
        }
        (!complaints.is_empty()).then(|| complaints.join("; "))
    }
}

/// Looks once. systemd's own "is the system running, wait until it is" would
/// wait for the very job that asks, so only failed units are counted; the unit's
/// place behind all others in the boot says the rest. A unit that systemd is
/// about to start once more has failed too.
pub fn probe() -> Result<Probe> {
    let storage = read_text_if_present(Path::new(crate::storage::DEGRADED), 64 * 1024)?
        .map(|text| text.trim_end().replace('\n', "; "));
    let api = ask_api(Path::new(API_SOCKET))
        .err()
        .map(|error| format!("{error:#}"));
    let mut failed_units = failed_units()?;
    // What it says itself counts.
    failed_units.retain(|unit| !is_of_its_user(unit) && unit != KUBELET);
    let settings = read_text_if_present(Path::new(SETTINGS), 64 * 1024)?;
    let kubelet = match is_kubelet_waited_for(&settings.unwrap_or_default())? && kubelet_has_work()
    {
        true => ask_kubelet(KUBELET_HEALTH).err(),
        false => None,
    };
    Ok(Probe {
        api,
        failed_units,
        storage,
        kubelet: kubelet.map(|error| format!("{error:#}")),
        stopped_by_user_data: Path::new(STOPPED_BY_USER_DATA).exists(),
    })
}

/// Units that failed, whether or not they are tried again.
pub fn failed_units() -> Result<Vec<String>> {
    let list = sysutil::process::stdout(Command::new("/usr/bin/systemctl").args([
        "list-units",
        "--state=failed,auto-restart,auto-restart-queued",
        "--plain",
        "--no-legend",
        "--no-pager",
        "--full",
    ]))?;
    Ok(unit_names(&list))
}

/// Whether a unit runs what the user chose from elsewhere: an image that no registry has,
/// or a program in it that fails, is no fault of the host. What a boot cannot do without
/// fails `bootstrap-containers.service`, too, which counts.
fn is_of_its_user(unit: &str) -> bool {
    ["host-containers@", "bootstrap-containers@"]
        .iter()
        .any(|prefix| unit.starts_with(prefix))
}

/// Whether a unit does once in a boot what the settings ask for; it fails where that is
/// essential.
fn is_task(unit: &str) -> bool {
    ["bootstrap-commands.service", "bootstrap-containers.service"].contains(&unit)
}

/// The first word of each line.
fn unit_names(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// What a boot is judged by, of the settings of updates. Without the file there are none,
/// and so no cluster.
fn is_kubelet_waited_for(settings: &str) -> Result<bool> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Settings {
        #[serde(default)]
        wait_for_kubelet: bool,
    }
    let settings: Settings =
        toml::from_str(settings).with_context(|| format!("parsing {SETTINGS}"))?;
    Ok(settings.wait_for_kubelet)
}

/// Whether the image has kubelet, and the settings give it something to do. It is not asked
/// whether its unit was started: one whose runtime fails never is.
fn kubelet_has_work() -> bool {
    fs::metadata(KUBELET_ENVIRONMENT).is_ok_and(|file| file.len() > 0)
}

/// Asks the API what system it runs on.
fn ask_api(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    ask(stream, "/os")
}

/// Asks kubelet how it is, which it answers whether or not it reaches its cluster.
fn ask_kubelet(at: SocketAddr) -> Result<()> {
    let stream =
        TcpStream::connect_timeout(&at, ANSWER).with_context(|| format!("connecting to {at}"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    ask(stream, "/healthz")
}

/// Whether the answer is a good one.
fn ask(mut stream: impl Read + Write, path: &str) -> Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .context("sending a request")?;
    let mut answer = Vec::new();
    stream
        .take(64)
        .read_to_end(&mut answer)
        .context("reading the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("GET {path} was answered with {status:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn containers_of_the_user_do_not_count_against_the_boot() {
        for (unit, expected) in [
            ("host-containers@admin.service", true),
            ("bootstrap-containers@disks.service", true),
            ("bootstrap-containers.service", false),
            ("host-containers.service", false),
            ("host-containerd.service", false),
            ("kubelet.service", false),
        ] {
            assert_eq!(is_of_its_user(unit), expected, "{unit}");
        }
    }

    #[test]
    fn complaints_name_everything() {
        let healthy = Probe::default();
        assert_eq!((healthy.complaint(), healthy.is_blameless()), (None, false));
        let stopped = Probe {
            stopped_by_user_data: true,
            ..Probe::default()
        };
        assert_eq!(
            (stopped.complaint(), stopped.is_blameless()),
            (Some("user data stops it".into()), true)
        );
        let cramped = Probe {
            storage: Some("no data".to_owned()),
            ..healthy
        };
        assert_eq!(
            (cramped.complaint(), cramped.is_blameless()),
            (Some("no data".into()), true)
        );
        for (units, blameless, hopeless) in [
            (&["bootstrap-containers.service"][..], true, true),
            (&["bootstrap-commands.service", "a.service"], false, true),
            (&["a.service"], false, false),
        ] {
            let probe = Probe {
                failed_units: units.iter().map(|unit| unit.to_string()).collect(),
                ..Probe::default()
            };
            let found = (probe.is_blameless(), probe.is_hopeless());
            assert_eq!(found, (blameless, hopeless), "{units:?}");
        }
        let sick = Probe {
            api: Some("refused".to_owned()),
            failed_units: vec!["a.service".to_owned(), "b.service".to_owned()],
            storage: Some("no data".to_owned()),
            kubelet: Some("silent".to_owned()),
            stopped_by_user_data: true,
        };
        let expected = "user data stops it; no data; the API does not answer: refused; \
                        kubelet is not healthy: silent; failed: a.service, b.service";
        assert_eq!(sick.complaint().as_deref(), Some(expected));
        assert!(!sick.is_blameless());
    }

    #[test]
    fn more_time_is_for_kubelet_alone() {
        let unwell = || Some("silent".to_owned());
        for (probe, expected) in [
            (Probe::default(), false),
            (
                Probe {
                    kubelet: unwell(),
                    ..Probe::default()
                },
                true,
            ),
            (
                Probe {
                    kubelet: unwell(),
                    api: unwell(),
                    ..Probe::default()
                },
                false,
            ),
        ] {
            assert_eq!(probe.waits_for_kubelet(), expected, "{probe:?}");
        }
        // It is no matter of storage that kubelet does not come up.
        let both = Probe {
            kubelet: unwell(),
            storage: unwell(),
            ..Probe::default()
        };
        assert!(both.is_hopeless() && !both.is_blameless());
    }

    #[test]
    fn kubelet_is_waited_for_where_settings_say_so() {
        for (settings, expected) in [
            ("seed = 5\nwait-for-kubelet = true\n", Some(true)),
            ("wait-for-kubelet = false\n", Some(false)),
            ("", Some(false)),
            ("wait-for-kubelet = 1\n", None),
        ] {
            let found = is_kubelet_waited_for(settings).ok();
            assert_eq!(found, expected, "{settings:?}");
        }
    }

    #[test]
    fn kubelet_is_asked_over_loopback() {
        for (answer, good) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nok"[..], true),
            (
                b"HTTP/1.1 500 Internal Server Error\r\n\r\n[-]syncloop failed",
                false,
            ),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
            let at = listener.local_addr().expect("an address");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("connection");
                let mut request = [0; 256];
                let length = stream.read(&mut request).expect("request");
                assert!(request[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer).expect("answer");
            });
            assert_eq!(ask_kubelet(at).is_ok(), good, "{answer:?}");
            server.join().expect("served");
            assert!(ask_kubelet(at).is_err(), "nobody listens any more");
        }
    }

    #[test]
    fn unit_names_are_the_first_words() {
        let list =
            "a.service loaded failed failed Something\n  b.mount not-found failed failed\n\n";
        assert_eq!(unit_names(list), ["a.service", "b.mount"]);
    }

    #[test]
    fn only_success_counts_as_an_answer() {
        let folder = tempfile::tempdir().expect("folder");
        for (answer, good) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n{}"[..], true),
            (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", false),
            (b"", false),
        ] {
            let path = folder.path().join("socket");
            let listener = UnixListener::bind(&path).expect("bound");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("connection");
                let mut request = [0; 256];
                let length = stream.read(&mut request).expect("request");
                assert!(request[..length].starts_with(b"GET /os HTTP/1.1\r\n"));
                stream.write_all(answer).expect("answer");
            });
            assert_eq!(ask_api(&path).is_ok(), good, "{answer:?}");
            server.join().expect("served");
            std::fs::remove_file(&path).expect("removed");
        }
        assert!(ask_api(&folder.path().join("none")).is_err());
    }
}
