//! A hundredth of a processor, as a container may have it: a control group of our own,
//! where we may make one.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The share, as the two versions of control groups want it written: microseconds, of
/// each period of as many.
const SHARE: (u32, u32) = (1_000, 100_000);

/// A control group with that share. It is gone when this is.
pub struct Quota {
    group: PathBuf,
    /// The group that this process is from.
    home: PathBuf,
}

impl Quota {
    /// Makes one beside this process's own group or further up.
    pub fn new() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let name = format!("bulkhead-bench-{}", std::process::id());
        let (top, own) = groups(&text, Path::new("/sys/fs/cgroup"))
            .into_iter()
            .find(|(top, _)| {
                // The first version has the file in every group, the second where its
                // controller is switched on.
                top.join("cpu.cfs_quota_us").exists() || top.join("cgroup.controllers").exists()
            })
            .context("no control groups for processors are mounted")?;
        let home = top.join(&own);
        let mut last = None;
        for above in own.ancestors() {
            let group = top.join(above).join(&name);
            let made = fs::create_dir(&group).and_then(|()| {
                let (share, period) = SHARE;
                if group.join("cpu.cfs_quota_us").exists() {
                    fs::write(group.join("cpu.cfs_period_us"), period.to_string())?;
                    fs::write(group.join("cpu.cfs_quota_us"), share.to_string())
                } else {
                    fs::write(group.join("cpu.max"), format!("{share} {period}"))
                }
            });
            let quota = Self {
                group,
                home: home.clone(),
            };
            match made {
                Ok(()) => return Ok(quota),
                // Dropped, it goes again if it is there.
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("there is no group"), Into::into))
            .with_context(|| format!("make a control group in {}", home.display()))
    }

    /// Runs `start`, whose children are in the group.
    pub fn within<T>(&self, start: impl FnOnce() -> T) -> Result<T> {
        enter(&self.group)?;
        let started = start();
        enter(&self.home)?;
        Ok(started)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // What was never made, or has somebody in it, stays as it is.
        let _ = fs::remove_dir(&self.group);
    }
}

/// Puts this process into a group.
fn enter(group: &Path) -> Result<()> {
    let path = group.join("cgroup.procs");
    fs::write(&path, std::process::id().to_string())
        .with_context(|| format!("write {}", path.display()))
}

/// Where groups for processors may be mounted, and this process's own below: what
/// `/proc/self/cgroup` says in `text`.
fn groups(text: &str, mounts: &Path) -> Vec<(PathBuf, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, own) = (fields.next()?, fields.next()?, fields.next()?);
            let top = match controllers {
                "" => mounts.to_path_buf(),
                some if some.split(',').any(|one| one == "cpu") => mounts.join(some),
                _ => return None,
            };
            Some((top, own.trim_start_matches('/').into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        for (text, expected) in [
            ("0::/user.slice/a\n", vec![("/m", "user.slice/a")]),
            (
                "4:cpu,cpuacct:/b\n3:cpuset:/\n0::/\n",
                vec![("/m/cpu,cpuacct", "b"), ("/m", "")],
            ),
            ("1:cpu:/\n", vec![("/m/cpu", "")]),
            ("3:memory:/\n", vec![]),
        ] {
            let expected: Vec<(PathBuf, PathBuf)> = expected
                .into_iter()
                .map(|(top, own)| (top.into(), own.into()))
                .collect();
            assert_eq!(groups(text, Path::new("/m")), expected, "{text}");
        }
    }
}
