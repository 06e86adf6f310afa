//! `/run/resolv.conf`: what the leases say, overlaid field by field by the
//! settings that the API server renders to `/etc/bulkhead/dns.toml`. Beside it, what
//! programs look for below `/run/netdog`.

mod lease;
mod outage;
mod primary;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use sysutil::fs::read_text_if_present;

use crate::online::is_online;
use lease::Lease;
use outage::Outage;

/// Where networkd keeps its state, which it replaces by renaming.
const STATE_FOLDER: &str = "run/systemd/netif";
const STATE: &str = "state";
const SETTINGS: &str = "etc/bulkhead/dns.toml";
const OUTPUT: &str = "run/resolv.conf";

const SIZE_LIMIT: u64 = 1024 * 1024;

/// The settings, each of which replaces what the leases say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    name_servers: Option<Vec<IpAddr>>,
    search_list: Option<Vec<String>>,
}

/// Writes the file now and whenever networkd's state changes. Changed settings
/// come with a restart.
pub fn run() -> Result<()> {
    let root = Path::new("/");
    let folder = root.join(STATE_FOLDER);
    // Before the first look, so that no change falls between the two.
    let changes = Inotify::init(InitFlags::IN_CLOEXEC).context("asking for events of files")?;
    changes
        .add_watch(
            &folder,
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE,
        )
        .with_context(|| format!("watching {}: is networkd running?", folder.display()))?;
    let mut outage = Outage::new(Instant::now());
    update_all(root, &mut outage)?;
    sysutil::notify::ready()?;
    loop {
        let patience = outage.next_look(Instant::now());
        // Without end, too, should it ever be more than the call takes.
        let patience = patience.map_or(PollTimeout::NONE, |patience| {
            PollTimeout::try_from(patience).unwrap_or(PollTimeout::NONE)
        });
        let watching = || format!("watching {}", folder.display());
        let mut descriptor = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
        let is_due = match poll(&mut descriptor, patience) {
            Ok(0) => true,
            Ok(_) => changes
                .read_events()
                .with_context(watching)?
                .iter()
                .any(|event| event.name.as_deref().is_none_or(|name| name == STATE)),
            Err(Errno::EINTR) => false,
            Err(error) => return Err(error).with_context(watching),
        };
        if is_due {
            update_all(root, &mut outage)?;
        }
    }
}

fn update_all(root: &Path, outage: &mut Outage) -> Result<()> {
    let state = networkd_state(root)?;
    update(root, &state)?;
    let interfaces = primary::interfaces()?;
    primary::update(root, &interfaces)?;
    let cards = || outage::cards(root, &interfaces);
    for line in outage.look(is_online(&state), Instant::now(), cards) {
        sysutil::console::say(&line);
    }
    Ok(())
}

/// networkd's summary of all interfaces; empty before there is one.
pub fn networkd_state(root: &Path) -> Result<String> {
    let state = read_text_if_present(&root.join(STATE_FOLDER).join(STATE), SIZE_LIMIT)?;
    Ok(state.unwrap_or_default())
}

/// Brings the file below `root` up to date with networkd's summary. Returns whether it
/// changed.
fn update(root: &Path, state: &str) -> Result<bool> {
    let read = |path: PathBuf| read_text_if_present(&path, SIZE_LIMIT);
    let settings = read(root.join(SETTINGS))?.unwrap_or_default();
    let settings: Settings =
        toml::from_str(&settings).with_context(|| format!("reading /{SETTINGS}"))?;
    let text = render(&Lease::parse(state), &settings);
    let output = root.join(OUTPUT);
    if read(output.clone())?.as_deref() == Some(&text) {
        return Ok(false);
    }
    sysutil::fs::write_atomic(&output, text.as_bytes(), 0o644)?;
    tracing::info!("resolver configuration written");
    Ok(true)
}

/// The text of resolv.conf(5).
fn render(lease: &Lease, settings: &Settings) -> String {
    let servers: Vec<String> = match &settings.name_servers {
        Some(servers) => servers.iter().map(IpAddr::to_string).collect(),
        None => lease.name_servers.clone(),
    };
    let search = settings.search_list.as_ref().unwrap_or(&lease.search_list);
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `update` does with what networkd has written.
    fn update(root: &Path) -> Result<bool> {
        super::update(root, &networkd_state(root)?)
    }

    fn root(state: &str, settings: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for (path, text) in [
            (&*format!("{STATE_FOLDER}/{STATE}"), state),
            (SETTINGS, settings),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        root
    }

    #[test]
    fn settings_replace_the_lease_field_by_field() {
        let state = "OPER_STATE=routable\nDNS=10.0.2.3 10.0.2.4\nDOMAINS=lease.example\n";
        for (settings, expected) in [
            (
                "",
                "search lease.example\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n",
            ),
            (
                "name-servers = [\"1.1.1.1\"]",
                "search lease.example\nnameserver 1.1.1.1\n",
            ),
            (
                "search-list = [\"a.example\", \"b.example\"]",
                "search a.example b.example\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n",
            ),
            ("name-servers = []\nsearch-list = []", ""),
            (
                "name-servers = [\"2001:db8::1\"]\nsearch-list = [\"a.example\"]",
                "search a.example\nnameserver 2001:db8::1\n",
            ),
        ] {
            let root = root(state, settings);
            assert!(update(root.path()).expect("updated"), "{settings}");
            let output = root.path().join(OUTPUT);
            assert_eq!(
                std::fs::read_to_string(&output).expect("read"),
                expected,
                "{settings}"
            );
            assert!(!update(root.path()).expect("same"), "{settings}");
        }
    }

    #[test]
    fn without_state_or_settings_the_file_is_empty() {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(root.path().join("run")).expect("folder");
        assert!(update(root.path()).expect("updated"));
        assert_eq!(std::fs::read(root.path().join(OUTPUT)).expect("read"), b"");
    }

    #[test]
    fn wrong_settings_are_named() {
        for settings in ["name-servers = [\"x\"]", "name-server = []", "["] {
            let root = root("", settings);
            let error = format!("{:#}", update(root.path()).expect_err("wrong"));
            assert!(error.contains("/etc/bulkhead/dns.toml"), "{error}");
        }
    }
}
