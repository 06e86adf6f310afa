//! The node report: why a node of a cluster is not ready, or does not run what it is
//! given, by what kubelet has said lately, by whether the container runtime answers, and by
//! the room on the data partition.
//!
//! A unit makes it when somebody asks, and once a minute; nothing stays in memory. What
//! is new since the last report, and what is over, is said on the console, since the API
//! may be out of reach just when the node is.

mod causes;

pub use causes::Cause;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// Where the report lies, below the root.
const REPORT: &str = "run/bulkhead/node-report.json";
/// More than any report takes, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// How old a message may be to count, in microseconds. kubelet repeats what it cannot do
/// after half a minute at the latest.
const LATELY: u64 = 90_000_000;
/// How many messages are looked at: what kubelet says in that time when much is wrong.
const MESSAGES: &str = "--lines=2000";
/// Characters of a message that are shown.
const SHOWN: usize = 400;
/// The share of the data partition in percent below which it counts as full whatever
/// kubelet says, which by then may have no room to say it in.
const FULL: u64 = 1;
/// kubelet's environment, which is empty where there is no cluster.
const KUBELET_ENVIRONMENT: &str = "/etc/kubernetes/kubelet/env";

/// Where the container runtime listens.
const RUNTIME: &str = "/run/containerd/containerd.sock";

/// Why a node is not ready, or does not run what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// All that kubelet has complained of lately, the gravest first.
    pub troubles: Vec<Trouble>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The kind.
    pub cause: Cause,
    /// What was said of it last, where anything was.
    pub message: String,
    /// How long ago, in seconds.
    pub seconds_ago: u64,
}

/// The report that the unit has made last of the node below `root`.
pub fn node_report(root: &Path) -> Result<NodeReport> {
    let bytes = sysutil::fs::read_limited(&root.join(REPORT), LIMIT)?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading /{REPORT}"))
}

impl Trouble {
    fn now(cause: Cause, message: &str) -> Self {
        Self {
            cause,
            message: message.to_string(),
            seconds_ago: 0,
        }
    }
}

/// Makes the report of this node, and says on the console what has changed.
pub fn check() -> Result<()> {
    let path = Path::new("/").join(REPORT);
    let uptime = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    let mut report = compose(&journal()?, parse_uptime(&uptime)?, free("/var")?);
    let configured = std::fs::metadata(KUBELET_ENVIRONMENT).is_ok_and(|file| file.len() > 0);
    let first = match configured {
        false => Some(Trouble::now(Cause::NoCluster, "")),
        true => UnixStream::connect(RUNTIME)
            .err()
            .map(|error| Trouble::now(Cause::Runtime, &format!("{RUNTIME}: {error}"))),
    };
    report.troubles.splice(0..0, first);
    let before = sysutil::fs::read_text_if_present(&path, LIMIT)?.unwrap_or_default();
    // None, or a damaged one: all that is wrong is said once more.
    let before: NodeReport = serde_json::from_str(&before).unwrap_or_default();
    for line in report.changes_since(&before) {
        sysutil::console::say(&line);
    }
    let text = serde_json::to_vec(&report).context("writing down the report")?;
    sysutil::fs::write_atomic(&path, &text, 0o644)
}

/// What kubelet has said in this boot, the last of it.
fn journal() -> Result<String> {
    sysutil::process::stdout(Command::new("/usr/bin/journalctl").args([
        "--boot=0",
        "--output=json",
        "--output-fields=MESSAGE",
        "--quiet",
        MESSAGES,
        "_SYSTEMD_UNIT=kubelet.service",
    ]))
}

/// The share of a file system in percent that is free.
fn free(path: &str) -> Result<u64> {
    let space = nix::sys::statvfs::statvfs(path).with_context(|| format!("looking at {path}"))?;
    Ok(100 * space.blocks_available() / space.blocks().max(1))
}

/// The first number of `/proc/uptime` in microseconds.
fn parse_uptime(text: &str) -> Result<u64> {
    let parse = || {
        let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
        let whole = seconds.parse::<u64>().ok()?;
        Some(whole * 1_000_000 + hundredths.parse::<u64>().ok()? * 10_000)
    };
    parse().with_context(|| format!("/proc/uptime says {text:?}"))
}

/// A line of the journal. Its clock is that which no correction of time changes.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    at: String,
    /// Bytes that are no text come as a list of numbers.
    #[serde(rename = "MESSAGE")]
    message: serde_json::Value,
}

/// The report from what the journal prints, `now` microseconds after the kernel's start
/// and with `free` percent of the data partition left.
fn compose(journal: &str, now: u64, free: u64) -> NodeReport {
    let mut troubles: Vec<Trouble> = Vec::new();
    if free < FULL {
        let message = format!("less than {FULL} % of /var are free");
        troubles.push(Trouble::now(Cause::DataPartition, &message));
    }
    // The last message of a kind is the one that holds.
    for line in journal.lines().rev() {
        // The journal may hold a line that is damaged.
        let Ok(entry) = serde_json::from_str::<Entry>(line) else {
            continue;
        };
        let (Ok(at), Some(message)) = (entry.at.parse::<u64>(), entry.message.as_str()) else {
            continue;
        };
        let age = now.saturating_sub(at);
        if age > LATELY {
            break;
        }
        let Some(cause) = Cause::of(message) else {
            continue;
        };
        if troubles.iter().all(|trouble| trouble.cause != cause) {
            troubles.push(Trouble {
                cause,
                message: shorten(message),
                seconds_ago: age / 1_000_000,
            });
        }
    }
    troubles.sort_by_key(|trouble| trouble.cause);
    NodeReport { troubles }
}

fn shorten(message: &str) -> String {
    let mut text: String = message.chars().take(SHOWN).collect();
    if text.len() < message.len() {
        text.push('…');
    }
    text
}

impl NodeReport {
    fn has(&self, cause: Cause) -> bool {
        self.troubles.iter().any(|trouble| trouble.cause == cause)
    }

    /// Lines for the console: what has come up since `before`, and what is over.
    fn changes_since(&self, before: &Self) -> Vec<String> {
        let new = self
            .troubles
            .iter()
            .filter(|trouble| !before.has(trouble.cause))
            .map(|trouble| {
                let cause = trouble.cause;
                format!("node: {} ({})", cause.about(), cause.remedy())
            });
        let over = before
            .troubles
            .iter()
            .filter(|trouble| !self.has(trouble.cause))
            .map(|trouble| format!("node: no more of this: {}", trouble.cause.about()));
        new.chain(over).collect()
    }
}

impl fmt::Display for NodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.troubles.is_empty() {
            return writeln!(f, "kubelet complains of nothing");
        }
        for trouble in &self.troubles {
            let Trouble {
                cause,
                message,
                seconds_ago,
            } = trouble;
            writeln!(f, "{}", cause.about())?;
            writeln!(f, "  {}", cause.remedy())?;
            if !message.is_empty() {
                writeln!(f, "  {seconds_ago} s ago: {message}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The journal's lines of messages, each so many seconds after the kernel's start.
    fn journal(messages: &[(u64, &str)]) -> String {
        let line = |(at, message): &(u64, &str)| {
            let at = (at * 1_000_000).to_string();
            let entry = serde_json::json!({ "__MONOTONIC_TIMESTAMP": at, "MESSAGE": message });
            format!("{entry}\n")
        };
        messages.iter().map(line).collect()
    }

    fn report(messages: &[(u64, &str)], now: u64) -> NodeReport {
        compose(&journal(messages), now * 1_000_000, 50)
    }

    const REFUSED: &str = "E1 run.go:72] \"command failed\" err=\"failed to run Kubelet: \
                           cannot create certificate signing request: Unauthorized\"";
    const NO_NETWORK: &str = "Container runtime network not ready: cni plugin not initialized";

    #[test]
    fn what_is_said_last_of_each_cause_counts_and_only_lately() {
        let told = report(
            &[
                (1, REFUSED),
                (100, NO_NETWORK),
                (105, "nothing bad"),
                (110, NO_NETWORK),
            ],
            120,
        );
        let trouble = Trouble {
            cause: Cause::PodNetwork,
            message: NO_NETWORK.into(),
            seconds_ago: 10,
        };
        assert_eq!(told.troubles, [trouble]);
        assert_eq!(report(&[(100, NO_NETWORK)], 191), NodeReport::default());
        // The gravest first, whatever was said last.
        let both = report(&[(9, REFUSED), (10, NO_NETWORK)], 10);
        let causes: Vec<Cause> = both.troubles.iter().map(|trouble| trouble.cause).collect();
        assert_eq!(causes, [Cause::Credentials, Cause::PodNetwork]);
    }

    #[test]
    fn damaged_lines_and_bytes_that_are_no_text_are_passed_over() {
        let text = format!(
            "{}{{\"__MONOTONIC_TIMESTAMP\":\"2000000\",\"MESSAGE\":[255,0]}}\n{{\"MESS",
            journal(&[(1, NO_NETWORK)])
        );
        assert_eq!(compose(&text, 3_000_000, 50).troubles.len(), 1);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = format!("{NO_NETWORK}{}", "ü".repeat(SHOWN));
        let told = report(&[(1, &long)], 1);
        let message = &told.troubles[0].message;
        assert_eq!(message.chars().count(), SHOWN + 1);
        assert!(message.ends_with("ü…"), "{message}");
    }

    #[test]
    fn a_full_partition_counts_whatever_kubelet_says() {
        let told = compose("", 0, 0);
        assert_eq!(told.troubles[0].cause, Cause::DataPartition);
        assert_eq!(compose("", 0, FULL), NodeReport::default());
    }

    #[test]
    fn the_console_gets_what_is_new_and_what_is_over() {
        let nothing = NodeReport::default();
        let refused = report(&[(9, REFUSED)], 10);
        let later = report(&[(20, REFUSED)], 30);
        assert_eq!(
            refused.changes_since(&nothing),
            ["node: the API server refuses the node's credentials (see \
              settings.kubernetes.bootstrap-token and when it ends, or the role's access)"]
        );
        assert!(later.changes_since(&refused).is_empty());
        assert_eq!(
            nothing.changes_since(&later),
            ["node: no more of this: the API server refuses the node's credentials"]
        );
    }

    #[test]
    fn for_people() {
        assert_eq!(
            NodeReport::default().to_string(),
            "kubelet complains of nothing\n"
        );
        assert_eq!(
            report(&[(9, NO_NETWORK)], 12).to_string(),
            "no network plugin is installed\n  install the cluster's network plugin\n  \
             3 s ago: Container runtime network not ready: cni plugin not initialized\n"
        );
    }

    #[test]
    fn uptime() {
        assert_eq!(parse_uptime("12.34 99.00\n").expect("a time"), 12_340_000);
        for bad in ["", "12", "a.b c"] {
            assert!(parse_uptime(bad).is_err(), "{bad:?}");
        }
    }
}
