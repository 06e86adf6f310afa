//! `hugepages`: reserves huge pages and sets how transparent ones are used.
//!
//! Everything is a value in a file below `/sys`. What a file said before is kept
//! in `/run`, so that a setting that is taken back leaves what the kernel's
//! command line had asked for. A reservation may come out short, for it takes
//! memory in one piece; when the settings call it essential, the boot ends here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

const SETTINGS: &str = "etc/bulkhead/hugepages.toml";
/// What was there before the settings, by path. The unit asks whether it exists.
const BEFORE: &str = "run/bulkhead/hugepages.toml";
const POOLS: &str = "sys/kernel/mm/hugepages";
const NODES: &str = "sys/devices/system/node";
const TRANSPARENT: &str = "sys/kernel/mm/transparent_hugepage";
const COMPACT: &str = "proc/sys/vm/compact_memory";
const SIZE_LIMIT: u64 = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    essential: bool,
    /// Counts by size, such as `2Mi = "512"` or `1Gi = "0:2,1:2"`.
    pages: BTreeMap<String, String>,
    /// Values by the name of their file.
    transparent: BTreeMap<String, String>,
}

/// Values by path below the root.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
struct Values(BTreeMap<String, String>);

/// Applies the settings. An essential reservation that comes out short fails,
/// and during a boot the system goes no further.
pub fn run() -> Result<()> {
    let shortfalls = apply(Path::new("/"))?;
    if shortfalls.missing.is_empty() {
        return Ok(());
    }
    let text = shortfalls.missing.join("; ");
    sysutil::console::say(&format!("huge pages: {text}"));
    if !shortfalls.essential {
        return Ok(());
    }
    let mut is_booting = Command::new("/usr/bin/systemctl");
    is_booting.args(["is-active", "--quiet", "preconfigured.target"]);
    if !sysutil::process::output(&mut is_booting)?.status.success() {
        let mut emergency = Command::new("/usr/bin/systemctl");
        emergency.args(["start", "--no-block", "emergency.service"]);
        sysutil::process::run(&mut emergency)?;
    }
    bail!("essential huge pages could not be reserved: {text}")
}

/// What could not be reserved.
#[derive(Debug, PartialEq, Eq)]
struct Shortfalls {
    essential: bool,
    missing: Vec<String>,
}

fn apply(root: &Path) -> Result<Shortfalls> {
    let settings: Settings = read_toml(root, SETTINGS)?;
    let before: Values = read_toml(root, BEFORE)?;
    let mut wanted = Values::default();
    for (size, counts) in &settings.pages {
        let file = format!("hugepages-{}kB/nr_hugepages", kibibytes(size)?);
        for (node, count) in parse_counts(counts)
            .with_context(|| format!("the count of huge pages of {size}, {counts:?}"))?
        {
            let path = match node {
                None => format!("{POOLS}/{file}"),
                Some(node) => format!("{NODES}/node{node}/hugepages/{file}"),
            };
            wanted.0.insert(path, count.to_string());
        }
    }
    for (name, value) in &settings.transparent {
        ensure!(
            ["enabled", "defrag"].contains(&name.as_str()),
            "{name:?} is nothing that transparent huge pages have"
        );
        wanted
            .0
            .insert(format!("{TRANSPARENT}/{name}"), value.clone());
    }
    let missing = change(root, &wanted, before)?;
    Ok(Shortfalls {
        essential: settings.essential,
        missing,
    })
}

/// Writes the values, and those from before where none is wanted any more. Says
/// what the kernel did not take.
fn change(root: &Path, wanted: &Values, mut before: Values) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut back = Vec::new();
    for (path, value) in &before.0 {
        if !wanted.0.contains_key(path) {
            if let Err(error) = write(root, path, value) {
                tracing::warn!("{error:#}");
            }
            back.push(path.clone());
        }
    }
    for path in back {
        before.0.remove(&path);
    }
    for (path, value) in &wanted.0 {
        let there = match current(root, path) {
            Ok(there) => there,
            Err(error) => {
                missing.push(format!("this machine does not have it: {error:#}"));
                continue;
            }
        };
        before
            .0
            .entry(path.clone())
            .or_insert_with(|| there.clone());
        if there == *value {
            continue;
        }
        let attempt = || -> Result<String> {
            write(root, path, value)?;
            current(root, path)
        };
        let mut reached = attempt();
        if reached.as_ref().is_ok_and(|reached| reached != value) {
            // Free memory in pieces that are too small becomes larger ones.
            if write(root, COMPACT, "1").is_ok() {
                reached = attempt();
            }
        }
        match reached {
            Ok(reached) if reached == *value => {}
            Ok(reached) => missing.push(format!("/{path}: wanted {value}, got {reached}")),
            Err(error) => missing.push(format!("{error:#}")),
        }
    }
    let path = root.join(BEFORE);
    if before.0.is_empty() {
        // The unit has nothing to do any more.
        let _ = std::fs::remove_file(&path);
    } else {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let text = toml::to_string(&before).context("writing down what was there before")?;
        sysutil::fs::write_atomic(&path, text.as_bytes(), 0o644)?;
    }
    Ok(missing)
}

/// The value in a file: a number, or the word in brackets of a choice.
fn current(root: &Path, path: &str) -> Result<String> {
    let bytes = sysutil::fs::read_limited(&root.join(path), 4096)?;
    let text = String::from_utf8_lossy(&bytes);
    let chosen = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Ok(chosen.unwrap_or(text.trim()).to_string())
}

fn write(root: &Path, path: &str, value: &str) -> Result<()> {
    std::fs::write(root.join(path), value).with_context(|| format!("writing {value} to /{path}"))
}

fn read_toml<T: Default + for<'de> Deserialize<'de>>(root: &Path, name: &str) -> Result<T> {
    let text = sysutil::fs::read_text_if_present(&root.join(name), SIZE_LIMIT)?;
    toml::from_str(&text.unwrap_or_default()).with_context(|| format!("reading /{name}"))
}

/// `2Mi` as 2048.
fn kibibytes(size: &str) -> Result<u64> {
    let units = [("Ki", 0), ("Mi", 10), ("Gi", 20), ("Ti", 30)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number: u64 = size.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << shift)
    });
    parsed
        .filter(|kibibytes| *kibibytes > 0)
        .with_context(|| format!("{size:?} is no size of a page, such as 2Mi or 1Gi"))
}

/// A count for the whole machine, or one for each of some NUMA nodes.
fn parse_counts(text: &str) -> Result<Vec<(Option<u32>, u64)>> {
    let number = |text: &str| text.trim().parse().context("expected a number of pages");
    if !text.contains(':') {
        return Ok(vec![(None, number(text)?)]);
    }
    let mut counts: Vec<(Option<u32>, u64)> = Vec::new();
    for part in text.split(',') {
        let (node, count) = part.split_once(':').context("expected NODE:COUNT")?;
        let node = node
            .trim()
            .parse()
            .context("expected the number of a NUMA node")?;
        ensure!(
            counts.iter().all(|(there, _)| *there != Some(node)),
            "node {node} is named twice"
        );
        counts.push((Some(node), number(count)?));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for (path, text) in [
            (
                "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
                "0\n",
            ),
            (
                "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages",
                "1\n",
            ),
            (
                "sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages",
                "0\n",
            ),
            (
                "sys/kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
            ),
            (COMPACT, ""),
            ("etc/bulkhead/hugepages.toml", ""),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        root
    }

    fn configure(root: &Path, settings: &str) -> Result<Shortfalls> {
        std::fs::write(root.join(SETTINGS), settings).expect("file");
        apply(root)
    }

    #[test]
    fn values_are_written_and_taken_back() {
        let machine = machine();
        let root = machine.path();
        let read = |path: &str| current(root, path).expect(path);
        let two = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
        let node = |n| format!("{NODES}/node{n}/hugepages/hugepages-1048576kB/nr_hugepages");
        let enabled = "sys/kernel/mm/transparent_hugepage/enabled";
        let nothing_missing = |essential| Shortfalls {
            essential,
            missing: Vec::new(),
        };
        let all = "essential = true\n[pages]\n\"2Mi\" = \"512\"\n\"1Gi\" = \"0:2,1:3\"\n\
                   [transparent]\nenabled = \"never\"\n";
        assert_eq!(
            configure(root, all).expect("applied"),
            nothing_missing(true)
        );
        assert_eq!(
            [read(two), read(&node(0)), read(&node(1)), read(enabled)],
            ["512", "2", "3", "never"]
        );
        let fewer = "[pages]\n\"2Mi\" = \"100\"\n";
        assert_eq!(
            configure(root, fewer).expect("applied"),
            nothing_missing(false)
        );
        assert_eq!(
            [read(two), read(&node(0)), read(&node(1)), read(enabled)],
            ["100", "1", "0", "madvise"]
        );
        assert_eq!(
            configure(root, "").expect("applied"),
            nothing_missing(false)
        );
        assert_eq!(read(two), "0");
        assert!(!root.join(BEFORE).exists());
        // Nothing of it is touched without settings.
        assert_eq!(
            configure(root, "").expect("applied"),
            nothing_missing(false)
        );
    }

    #[test]
    fn what_is_not_reached_is_named() {
        let machine = machine();
        let root = machine.path();
        for (settings, named) in [
            ("[pages]\n\"512Mi\" = \"1\"", "hugepages-524288kB"),
            ("[pages]\n\"1Gi\" = \"7:1\"", "node7"),
            ("[transparent]\ndefrag = \"defer\"", "defrag"),
        ] {
            let missing = configure(root, settings).expect(settings).missing;
            assert!(
                missing.join("; ").contains(named),
                "{settings}: {missing:?}"
            );
        }
        // A kernel that takes less than it is asked for.
        let pool = root.join("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
        std::fs::remove_file(&pool).expect("removed");
        std::os::unix::fs::symlink("/dev/null", &pool).expect("link");
        let short = configure(root, "essential = true\n[pages]\n\"2Mi\" = \"5\"").expect("read");
        assert!(short.essential);
        assert_eq!(
            short.missing,
            ["/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages: wanted 5, got "]
        );
        // It was tried again with memory put together.
        let compacted = std::fs::read_to_string(root.join(COMPACT)).expect("read");
        assert_eq!(compacted, "1");
    }

    #[test]
    fn sizes_and_counts() {
        for (size, expected) in [
            ("64Ki", Some(64)),
            ("2Mi", Some(2048)),
            ("1Gi", Some(1_048_576)),
            ("1Ti", Some(1 << 30)),
            ("2M", None),
            ("Mi", None),
            ("0Mi", None),
            ("99999999999999999999Ti", None),
            ("18446744073709551615Gi", None),
        ] {
            assert_eq!(kibibytes(size).ok(), expected, "{size}");
        }
        for (text, expected) in [
            ("5", Some(vec![(None, 5)])),
            ("0:1,1:2", Some(vec![(Some(0), 1), (Some(1), 2)])),
            ("0:1, 1:2", Some(vec![(Some(0), 1), (Some(1), 2)])),
            ("", None),
            ("0:", None),
            ("0:1,0:2", None),
            ("0:1,2", None),
            ("-1", None),
        ] {
            assert_eq!(parse_counts(text).ok(), expected, "{text:?}");
        }
    }
}
