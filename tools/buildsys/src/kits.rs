//! Kits of other repositories.
//!
//! A project names a kit by the folder of the repository that defines it and by a hash
//! of all that a build reads there: what is built is what was meant, wherever the folder
//! came from. Of such a repository a project gets
//!
//! - the kits that it names, and every package that they or it may need,
//! - `variants/shared`, where its own `variants/` has no such file,
//! - what its own `Bulkhead.toml` says nothing about: suites, toolchains, Go's hashes,
//! - the lock, until it has one of its own.

use crate::project::{INPUTS, KitPin};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use toml::Table;

/// Those of a repository's variants that a build reads which uses its kits.
const VARIANTS: &str = "variants/shared";

/// What each project says for itself.
const OWN: [&str; 3] = ["kits", "release", "store"];

/// The table `kits` of a `Bulkhead.toml`.
pub(crate) fn pins(document: &Table) -> Result<BTreeMap<String, KitPin>> {
    match document.get("kits") {
        None => Ok(BTreeMap::new()),
        Some(kits) => Ok(kits.clone().try_into()?),
    }
}

/// The repositories of kits, each checked to be what its hash says and to have the kit.
pub(crate) fn repositories(root: &Path, pins: &BTreeMap<String, KitPin>) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (name, pin) in pins {
        let place = root.join(&pin.path);
        let folder = place.canonicalize().with_context(|| {
            format!("kits.{name}: there is no repository at {}", place.display())
        })?;
        ensure!(folder != root, "kits.{name} is said to come from here");
        let manifest = folder.join("kits").join(name).join("kit.toml");
        ensure!(
            manifest.is_file(),
            "kits.{name}: there is no {}",
            manifest.display()
        );
        let hash = match found.get(&folder) {
            Some(hash) => hash.clone(),
            None => hash(&folder)?,
        };
        ensure!(
            hash == pin.sha256,
            "kits.{name}: {} has sha256 {hash:?}, and not {:?}; if that is what you want to \
             build with, write it down",
            folder.display(),
            pin.sha256
        );
        found.insert(folder, hash);
    }
    Ok(found.into_keys().collect())
}

/// Adds what a repository's `Bulkhead.toml` says and `document` does not.
pub(crate) fn inherit(document: &mut Table, theirs: Table) -> Result<()> {
    if theirs.contains_key("kits") {
        bail!("it uses kits of others itself; name those in your own Bulkhead.toml");
    }
    for (name, value) in theirs {
        if OWN.contains(&name.as_str()) {
            continue;
        }
        match (document.get_mut(&name), value) {
            (None, value) => {
                document.insert(name, value);
            }
            (Some(toml::Value::Table(ours)), toml::Value::Table(theirs)) => {
                for (key, value) in theirs {
                    ours.entry(key).or_insert(value);
                }
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

/// Hash of what a build reads of the repository in `folder`.
pub fn hash(folder: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for input in INPUTS.into_iter().chain([VARIANTS]) {
        add(&mut hash, folder, Path::new(input))?;
    }
    Ok(hex::encode(hash.finalize()))
}

/// Adds a file, a link or a folder, with names in byte order. What a build leaves in
/// folders of sources does not count.
fn add(hash: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    let place = root.join(path);
    let reading = || format!("cannot read {}", place.display());
    let metadata = match fs::symlink_metadata(&place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(reading),
    };
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&place)
            .with_context(reading)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<std::io::Result<_>>()
            .with_context(reading)?;
        names.sort();
        for name in names {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                add(hash, root, &path.join(name))?;
            }
        }
        return Ok(());
    }
    let (kind, content) = if metadata.is_symlink() {
        let target = fs::read_link(&place).with_context(reading)?;
        ("link", target.into_os_string().into_encoded_bytes())
    } else if metadata.permissions().mode() & 0o100 != 0 {
        ("program", fs::read(&place).with_context(reading)?)
    } else {
        ("file", fs::read(&place).with_context(reading)?)
    };
    // Each part with its length, so that no two trees read the same.
    let name = path.to_string_lossy();
    hash.update(format!("{kind} {} {} ", name.len(), content.len()));
    hash.update(name.as_bytes());
    hash.update(content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Definitions;
    use crate::project::Project;

    const KIT: &str =
        "[kit]\nname = \"k\"\nversion = \"1\"\ndescription = \"d\"\npackages = [\"p\"]\n";
    const THEIRS: &str = "[release]\nversion = \"9.9.9\"\ndefault-variant = \"theirs\"\n\
        [debian]\nsuites = [\"s\"]\ncomponents = [\"main\"]\n\
        [toolchains.sdk]\npackages = [\"gcc\"]\n";

    fn package(name: &str) -> String {
        format!("[package]\nname = \"{name}\"\ndescription = \"d\"\n")
    }

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    /// A repository with the kit `k`, and a project beside it that uses it.
    fn neighbours() -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        put(
            &theirs,
            &[
                ("Bulkhead.toml", THEIRS),
                ("kits/k/kit.toml", KIT),
                ("packages/p/package.toml", &package("p")),
                ("packages/q/package.toml", &package("q")),
                ("variants/shared/kernel.toml", "arguments = [\"quiet\"]\n"),
                ("variants/theirs/variant.toml", "not looked at"),
            ],
        );
        let ours = folder.path().join("ours");
        let hash = hash(&theirs).unwrap();
        put(
            &ours,
            &[
                ("Bulkhead.toml", &config(&hash)),
                ("packages/mine/package.toml", &package("mine")),
                (
                    "variants/v/variant.toml",
                    "[variant]\nname = \"v\"\ndescription = \"d\"\nkits = [\"k\"]\n\
                     packages = [\"mine\"]\n[kernel]\nshared = [\"shared/kernel.toml\"]\n",
                ),
            ],
        );
        (folder, ours, hash)
    }

    fn config(hash: &str) -> String {
        format!(
            "[release]\nversion = \"1.2.3\"\ndefault-variant = \"v\"\n\
             [kits.k]\npath = \"../theirs\"\nsha256 = \"{hash}\"\n"
        )
    }

    fn fault(ours: &Path) -> String {
        match Project::open(ours) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_project_has_the_kits_that_it_names() {
        let (_folder, ours, _) = neighbours();
        let project = Project::open(&ours).unwrap();
        assert_eq!(project.config.release.version, "1.2.3");
        assert_eq!(project.config.debian.suites, ["s"]);
        assert_eq!(project.config.toolchains["sdk"].packages, ["gcc"]);
        let definitions = Definitions::load(&project).unwrap();
        assert_eq!(definitions.variant_names(), ["v", "v-dev"]);
        let variant = definitions.variant("v").unwrap();
        let packages: Vec<_> = variant.packages.iter().map(|name| name.as_str()).collect();
        assert_eq!(packages, ["mine", "p"]);
        assert_eq!(variant.manifest.kernel.arguments, ["quiet"]);
    }

    #[test]
    fn what_is_built_is_what_was_meant() {
        let (folder, ours, hash) = neighbours();
        let theirs = folder.path().join("theirs");
        // What no build reads changes nothing.
        put(&theirs, &[("README.md", "x"), ("sources/a/target/x", "x")]);
        assert_eq!(fault(&ours), "");
        put(&theirs, &[("packages/q/file", "x")]);
        let changed = fault(&ours);
        assert!(
            changed.contains("kits.k: ")
                && changed.contains(&hash)
                && changed.contains("write it down"),
            "{changed}"
        );
        let now = super::hash(&theirs).unwrap();
        put(&ours, &[("Bulkhead.toml", &config(&now))]);
        assert_eq!(fault(&ours), "");

        for (old, new, expected) in [
            ("../theirs", "../nobody", "there is no repository at"),
            ("../theirs", ".", "come from here"),
            ("[kits.k]", "[kits.other]", "there is no "),
        ] {
            put(&ours, &[("Bulkhead.toml", &config(&now).replace(old, new))]);
            let fault = fault(&ours);
            assert!(fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn names_are_given_once() {
        let (_folder, ours, _) = neighbours();
        put(&ours, &[("packages/q/package.toml", &package("q"))]);
        let project = Project::open(&ours).unwrap();
        let fault = format!("{:#}", Definitions::load(&project).unwrap_err());
        assert!(
            fault.contains("package q") && fault.contains("twice"),
            "{fault}"
        );
    }

    #[test]
    fn parts_of_a_tree_are_told_apart() {
        let of = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            put(folder.path(), files);
            hash(folder.path()).unwrap()
        };
        let all = [
            of(&[]),
            of(&[("kits/a", "b")]),
            of(&[("kits/b", "a")]),
            of(&[("kits/ab", "")]),
            of(&[("kits/a", ""), ("kits/b", "")]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
    }
}
