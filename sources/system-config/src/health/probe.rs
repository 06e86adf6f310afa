//! Looking at the system's health.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sysutil::fs::read_text_if_present;

const API_SOCKET: &str = "/run/api.sock";
/// The API server's mark; `preconfigured.target` insists that it is not there.
const STOPPED_BY_USER_DATA: &str = "/run/bulkhead/stopped-by-user-data";
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Why the API does not answer.
    pub api: Option<String>,
    /// Units that failed.
    pub failed_units: Vec<String>,
    /// What is wrong with the storage.
    pub storage: Option<String>,
    /// Whether user data stops the boot.
    pub stopped_by_user_data: bool,
}

impl Probe {
    /// Whether nothing is wrong but what waiting does not help, nor another image if this
    /// one has proved itself.
    pub fn is_blameless(&self) -> bool {
        let are_tasks = self.failed_units.iter().all(|unit| is_task(unit));
        self.is_hopeless() && self.api.is_none() && are_tasks
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
    failed_units.retain(|unit| !is_of_its_user(unit));
    Ok(Probe {
        api,
        failed_units,
        storage,
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

/// Asks the API what system it runs on.
fn ask_api(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(API_TIMEOUT))?;
    stream.set_write_timeout(Some(API_TIMEOUT))?;
    stream
        .write_all(b"GET /os HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .context("sending a request")?;
    let mut answer = Vec::new();
    stream
        .take(64)
        .read_to_end(&mut answer)
        .context("reading the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("GET /os was answered with {status:?}");
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
        let healthy = Probe {
            api: None,
            failed_units: vec![],
            storage: None,
            stopped_by_user_data: false,
        };
        assert_eq!((healthy.complaint(), healthy.is_blameless()), (None, false));
        let stopped = Probe {
            api: None,
            failed_units: vec![],
            storage: None,
            stopped_by_user_data: true,
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
            stopped_by_user_data: true,
        };
        let expected = "user data stops it; no data; the API does not answer: refused; failed: a.service, b.service";
        assert_eq!(sick.complaint().as_deref(), Some(expected));
        assert!(!sick.is_blameless());
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
