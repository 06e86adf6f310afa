//! `kubelet-managers`: removes what kubelet's CPU and memory managers have kept, when it
//! was made with other settings than those of now, or in an earlier boot.
//!
//! kubelet refuses to start with a state of another policy, other reservations or another
//! machine, and leaves it to somebody with a shell to remove it. Without a state it makes
//! one, and gives the CPUs and the memory anew to the pods that run. So it stays in place
//! where it can: nothing else moves a pod that has CPUs of its own.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

const CONFIGURATION: &str = "etc/kubernetes/kubelet/config";
/// With what the state was made that is there. It is gone after a reboot, in which the
/// machine may have changed; no pod outlives that either.
const MADE_WITH: &str = "run/bulkhead/kubelet-managers.json";
const STATES: [&str; 2] = [
    "var/lib/kubelet/cpu_manager_state",
    "var/lib/kubelet/memory_manager_state",
];
/// The fields of kubelet's configuration that a state depends on.
const FIELDS: [&str; 9] = [
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "evictionHard",
    // Some change the form of the state.
    "featureGates",
    "kubeReserved",
    "memoryManagerPolicy",
    "reservedMemory",
    "reservedSystemCPUs",
    "systemReserved",
];
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// Runs before each start of kubelet.
pub fn run() -> Result<()> {
    remove_stale(Path::new("/"))
}

fn remove_stale(root: &Path) -> Result<()> {
    let path = root.join(CONFIGURATION);
    let text = sysutil::fs::read_limited(&path, SIZE_LIMIT)?;
    let configuration = serde_json::from_slice(&text)
        .with_context(|| format!("kubelet's configuration, {}", path.display()))?;
    let now = relevant(&configuration).to_string();
    let record = root.join(MADE_WITH);
    // One that cannot be read is as good as none.
    let made_with = sysutil::fs::read_text_if_present(&record, SIZE_LIMIT);
    if made_with.is_ok_and(|made_with| made_with.as_deref() == Some(&now)) {
        return Ok(());
    }
    for state in STATES {
        let path = root.join(state);
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(
                path = %path.display(),
                "removed what was made with other settings or in another boot"
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
        }
    }
    // Afterwards, so that a kill in between removes them once more.
    if let Some(folder) = record.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    sysutil::fs::write_atomic(&record, now.as_bytes(), 0o600)
}

/// What of kubelet's configuration a state depends on.
fn relevant(configuration: &Value) -> Value {
    let field = |name: &str| Some((name.to_string(), configuration.get(name)?.clone()));
    Value::Object(FIELDS.into_iter().filter_map(field).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    /// A host whose kubelet has a configuration and has kept two states.
    fn host(configuration: &Value) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for path in [CONFIGURATION, STATES[0]] {
            let folder = root.path().join(path);
            fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
        }
        configure(root.path(), configuration);
        keep_states(root.path());
        root
    }

    fn configure(root: &Path, configuration: &Value) {
        fs::write(root.join(CONFIGURATION), configuration.to_string()).expect("a file");
    }

    fn keep_states(root: &Path) {
        for state in STATES {
            fs::write(root.join(state), "{}").expect("a file");
        }
    }

    /// Whether the states are still there after the next start of kubelet.
    fn are_kept(root: &Path) -> bool {
        remove_stale(root).expect("nothing is in the way");
        let there = STATES.map(|state| root.join(state).exists());
        assert_eq!(there[0], there[1], "one of the states alone");
        let is_kept = there[0];
        keep_states(root);
        is_kept
    }

    #[test]
    fn a_state_is_removed_when_it_was_made_with_something_else() {
        let root = host(&json!({ "cpuManagerPolicy": "none", "maxPods": 110 }));
        let root = root.path();
        assert!(!are_kept(root), "it was made in an earlier boot");
        assert!(are_kept(root), "kubelet starts anew");
        let other = json!({ "cpuManagerPolicy": "none", "maxPods": 29 });
        configure(root, &other);
        assert!(are_kept(root), "it does not depend on what has changed");
        for field in [
            "cpuManagerPolicy",
            "cpuManagerPolicyOptions",
            "evictionHard",
            "featureGates",
            "kubeReserved",
            "memoryManagerPolicy",
            "reservedMemory",
            "reservedSystemCPUs",
            "systemReserved",
        ] {
            let mut changed = other.clone();
            changed[field] = json!("something else");
            configure(root, &changed);
            assert!(!are_kept(root), "{field} has changed");
            assert!(are_kept(root), "{field} stays what it is");
            configure(root, &other);
            assert!(!are_kept(root), "{field} is what it was before");
        }
        fs::remove_file(root.join(MADE_WITH)).expect("a record");
        assert!(!are_kept(root), "the machine was started anew");
    }

    #[test]
    fn a_state_that_is_not_there_is_not_missed() {
        let root = host(&json!({}));
        for state in STATES {
            fs::remove_file(root.path().join(state)).expect("a state");
        }
        remove_stale(root.path()).expect("nothing is in the way");
    }

    #[test]
    fn without_a_configuration_it_says_which_file_it_wanted() {
        let root = host(&json!({}));
        fs::write(root.path().join(CONFIGURATION), "{").expect("a file");
        let error = remove_stale(root.path()).expect_err("no JSON");
        assert!(format!("{error:#}").contains(CONFIGURATION), "{error:#}");
    }
}
