//! The dev twin compared with its variant, without booting either.

use crate::stage::{Stage, Which};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Everything that the door adds is named for it.
const DOOR: &str = "dev-door";
/// Files that name the variant or list what it is made from.
const TELLING: [&str; 2] = [
    "usr/lib/os-release",
    "usr/share/bulkhead/application-inventory.json",
];

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// The dev twin differs from its variant by the door alone.
pub(crate) fn differs_by_the_door(stage: &mut Stage<'_>) -> Result<()> {
    let variant = tree(stage, Which::Variant, "variant")?;
    let twin = tree(stage, Which::Twin, "twin")?;
    ensure!(
        variant.len() > 100,
        "the variant's root has only {} files",
        variant.len()
    );
    let found = differences(&variant, &twin);
    let expected = |path: &str, kind: Difference| match kind {
        Difference::Added => path
            .split('/')
            .next_back()
            .is_some_and(|name| name.starts_with(DOOR)),
        Difference::Changed => TELLING.contains(&path),
        Difference::Missing => false,
    };
    let odd: Vec<String> = found
        .iter()
        .filter(|(path, kind)| !expected(path, *kind))
        .map(|(path, kind)| format!("{path} ({kind:?})"))
        .collect();
    if !odd.is_empty() {
        bail!("the twin differs in more than the door: {}", odd.join(", "));
    }
    ensure!(
        found.contains(&("usr/bin/dev-door".to_string(), Difference::Added)),
        "the twin has no door"
    );
    stage.note(format!(
        "{} files compared, {} differ",
        variant.len(),
        found.len()
    ));
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Added,
    Changed,
    Missing,
}

fn differences(
    variant: &BTreeMap<String, Node>,
    twin: &BTreeMap<String, Node>,
) -> BTreeSet<(String, Difference)> {
    let paths: BTreeSet<&String> = variant.keys().chain(twin.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let kind = match (variant.get(path), twin.get(path)) {
                (None, _) => Difference::Added,
                (_, None) => Difference::Missing,
                (ours, theirs) if ours != theirs => Difference::Changed,
                _ => return None,
            };
            Some((path.clone(), kind))
        })
        .collect()
}

/// All files of an image's root.
fn tree(stage: &Stage<'_>, which: Which, name: &str) -> Result<BTreeMap<String, Node>> {
    let folder = stage.fresh_folder(name)?;
    let image = stage.setup().image(which);
    stage.setup().emulator.run_with(
        &folder,
        &[(image, "/image")],
        "fsck.erofs",
        // The sandbox has one user only, so owners cannot be restored.
        &["--extract=root", "--no-preserve-owner", "/image/root.erofs"],
    )?;
    let mut found = BTreeMap::new();
    walk(&folder.join("root"), "", &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Node>) -> Result<()> {
    let listing = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let inside = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let path = entry.path();
        let reading = || format!("cannot read {}", path.display());
        let data = fs::symlink_metadata(&path).with_context(reading)?;
        let mode = data.permissions().mode() & 0o7777;
        let node = if data.is_dir() {
            walk(&path, &inside, found)?;
            Node::Folder { mode }
        } else if data.is_symlink() {
            let target = fs::read_link(&path).with_context(reading)?;
            Node::Link {
                target: target.to_string_lossy().into_owned(),
            }
        } else {
            Node::File {
                mode,
                content: fs::read(&path).with_context(reading)?,
            }
        };
        found.insert(inside, node);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let file = |content: &str, mode| Node::File {
            mode,
            content: content.into(),
        };
        let tree = |nodes: &[(&str, Node)]| {
            nodes
                .iter()
                .map(|(path, node)| (path.to_string(), node.clone()))
                .collect()
        };
        let variant = tree(&[
            ("same", file("x", 0o644)),
            ("text", file("x", 0o644)),
            ("mode", file("x", 0o644)),
            ("gone", Node::Folder { mode: 0o755 }),
            (
                "link",
                Node::Link {
                    target: "a".to_string(),
                },
            ),
        ]);
        let twin = tree(&[
            ("same", file("x", 0o644)),
            ("text", file("y", 0o644)),
            ("mode", file("x", 0o755)),
            (
                "link",
                Node::Link {
                    target: "b".to_string(),
                },
            ),
            ("new", file("", 0o644)),
        ]);
        let found: Vec<_> = differences(&variant, &twin).into_iter().collect();
        let expected = [
            ("gone", Difference::Missing),
            ("link", Difference::Changed),
            ("mode", Difference::Changed),
            ("new", Difference::Added),
            ("text", Difference::Changed),
        ];
        assert_eq!(found, expected.map(|(path, kind)| (path.to_string(), kind)));
    }
}
