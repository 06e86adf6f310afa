//! What a tree of processes has cost, read from `/proc`.
//!
//! The emulator runs in a process namespace of its own, but is seen from outside
//! like any other process, so its processor time can be followed while it runs.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::path::Path;

/// One process as `/proc/<pid>/stat` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) parent: u32,
    /// Clock ticks in user and system mode, those of children that were waited
    /// for included.
    pub(crate) ticks: u64,
}

/// Parses the text of a `stat` file. The name may hold blanks and parentheses,
/// so the fields are counted from the last parenthesis on.
pub(crate) fn parse_stat(text: &str) -> Option<Stat> {
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(start + 1..end)?.to_string();
    let fields: Vec<&str> = text.get(end + 1..)?.split_ascii_whitespace().collect();
    // proc_pid_stat(5): field 3 is the first after the name; ppid is field 4,
    // utime to cstime are fields 14 to 17.
    let ticks = (11..=14)
        .map(|index| fields.get(index)?.parse::<u64>().ok())
        .sum::<Option<u64>>()?;
    Some(Stat {
        name,
        parent: fields.get(1)?.parse().ok()?,
        ticks,
    })
}

fn stat(proc: &Path, pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?)
}

/// Processor seconds that the process `pid` has used so far; nothing when there
/// is no such process any more.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    stat(Path::new("/proc"), pid).map(|stat| to_seconds(stat.ticks))
}

/// Processor seconds of `pid` and everything below it.
pub fn tree_cpu_seconds(pid: u32) -> f64 {
    let ticks = tree(Path::new("/proc"), pid)
        .iter()
        .map(|(_, stat)| stat.ticks)
        .sum();
    to_seconds(ticks)
}

/// Processor seconds of this process's children that have ended, theirs included.
pub fn ended_children() -> f64 {
    // It fails for a bad argument only.
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

/// The first process at or below `pid` whose name starts with `name`.
pub(crate) fn find_below(pid: u32, name: &str) -> Option<u32> {
    tree(Path::new("/proc"), pid)
        .into_iter()
        .find(|(_, stat)| stat.name.starts_with(name))
        .map(|(pid, _)| pid)
}

/// `root` and its descendants, parents before children.
fn tree(proc: &Path, root: u32) -> Vec<(u32, Stat)> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let all: Vec<(u32, Stat)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(proc, pid)?)))
        .collect();
    let mut found: Vec<(u32, Stat)> = all
        .iter()
        .filter(|(pid, _)| *pid == root)
        .cloned()
        .collect();
    let mut next = 0;
    while let Some((parent, _)) = found.get(next).cloned() {
        found.extend(
            all.iter()
                .filter(|(_, stat)| stat.parent == parent)
                .cloned(),
        );
        next += 1;
    }
    found
}

fn to_seconds(ticks: u64) -> f64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    ticks as f64 / per_second as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "12 (qemu-system-x86) S 7 12 12 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 9 1 1";

    #[test]
    fn reads_stat() {
        let check = |text: &str, expected: Option<(&str, u32, u64)>| {
            let found = parse_stat(text);
            let found = found
                .as_ref()
                .map(|stat| (stat.name.as_str(), stat.parent, stat.ticks));
            assert_eq!(found, expected, "{text}");
        };
        check(PLAIN, Some(("qemu-system-x86", 7, 127)));
        check(
            &PLAIN.replace("qemu-system-x86", "a b) (c"),
            Some(("a b) (c", 7, 127)),
        );
        check("12 (x) S 7", None);
        check(") 12 (", None);
        check("", None);
    }

    #[test]
    fn a_tree_is_followed_from_parent_to_child() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, parent) in [
            (9, "leaf", 5),
            (5, "middle", 2),
            (2, "top", 1),
            (3, "other", 1),
        ] {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(
                folder.join("stat"),
                format!("{pid} ({name}) S {parent} 0 0 0 0 0 0 0 0 0 1 1 0 0 20 0"),
            )
            .unwrap();
        }
        fs::create_dir(proc.path().join("self")).unwrap();
        let names: Vec<u32> = tree(proc.path(), 2)
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(names, [2, 5, 9]);
        assert!(tree(proc.path(), 77).is_empty());
    }
}
