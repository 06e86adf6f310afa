//! Settings that the host computes while nobody has set them.
//!
//! The model names a generator beside the setting; [`run`] knows it by that
//! name. A generator has a few seconds, and one that fails leaves its setting
//! as it was generated before, or unset.

use serde_json::Value;
use settings::{Document, Generator, Model, Settings};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long one generator may take.
const BUDGET: Duration = Duration::from_secs(5);

/// The generated settings that hold from now on: for every setting with a
/// generator that the user has not set, what the generator says. Settings that
/// the host generated otherwise stay in `before` as they are.
pub fn generate(root: &Path, user: &Document, before: &Document) -> Document {
    let mut generated = before.clone();
    for Generator { key, name } in Settings::schema().generators() {
        if user.get(&key).is_some() {
            generated.unset(&key);
            continue;
        }
        match within_budget(name, root.to_path_buf()) {
            Ok(Some(value)) => match Document::from_value(&Document::single(&key, value)) {
                Ok(value) => generated.merge(&value),
                Err(faults) => tracing::error!("generator {name} gave a wrong value: {faults}"),
            },
            Ok(None) => {}
            Err(reason) => tracing::error!("{key} was not generated: {reason}"),
        }
    }
    generated
}

/// Runs a generator in a thread of its own, which is left behind if it does not
/// come to an end.
fn within_budget(name: &'static str, root: PathBuf) -> Result<Option<Value>, String> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name(format!("generate-{name}"))
        .spawn(move || {
            // Nobody listens any more once the budget is used up.
            let _ = sender.send(run(name, &root));
        })
        .map_err(|error| format!("no thread for generator {name}: {error}"))?;
    receiver.recv_timeout(BUDGET).map_err(|_| {
        format!(
            "generator {name} took longer than {} s or crashed",
            BUDGET.as_secs()
        )
    })
}

/// Runs the generator `name`. `None` if it has nothing to say.
fn run(name: &str, root: &Path) -> Option<Value> {
    match name {
        "hostname" => hostname(root),
        other => {
            tracing::error!("the model names a generator {other:?} that there is not");
            None
        }
    }
}

/// A name made from the machine's identity, so that it stays and no two machines
/// have the same. There is no network yet that could be asked for a better one.
fn hostname(root: &Path) -> Option<Value> {
    let id = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
    let name = match id.trim() {
        "" => "localhost".to_string(),
        id => {
            // The identity itself is not to be shown to the network (machine-id(5)).
            let digest = hex::encode(Sha256::digest(format!("bulkhead hostname {id}")));
            format!("bulkhead-{}", &digest[..8])
        }
    };
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated_hostname(files: &[(&str, &str)], user: &str, before: &str) -> Option<String> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let document = |text: &str| {
            Document::from_toml(text)
                .expect("valid settings")
                .unwrap_or_default()
        };
        let key = "network.hostname".parse().expect("a key");
        generate(root.path(), &document(user), &document(before))
            .get(&key)
            .map(|value| value.as_str().expect("a text").to_string())
    }

    #[test]
    fn every_generator_of_the_model_exists() {
        for Generator { name, .. } in Settings::schema().generators() {
            let root = tempfile::tempdir().expect("a folder");
            assert!(run(name, root.path()).is_some(), "{name}");
        }
    }

    #[test]
    fn host_names() {
        let id = ("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        let by_id = "bulkhead-8a7fff78";
        let before = "[settings.network]\nhostname = \"before\"";
        for (files, user, before, expected) in [
            (vec![], "", "", Some("localhost")),
            (vec![id], "", "", Some(by_id)),
            (vec![id], "", before, Some(by_id)),
            (vec![id], before, before, None),
        ] {
            let name = generated_hostname(&files, user, before);
            assert_eq!(name.as_deref(), expected, "{files:?} {user} {before}");
        }
    }
}
