//! What updates fetch and take, and how long a node is away for one.

use super::Row;
use super::node::{self, Candidate, Node, STEP};
use crate::diff::Image;
use crate::vm::Emulation;
use anyhow::{Context, Result};
use boot_slots::verity;
use buildsys::image::description::Description;
use std::fs;
use std::path::Path;
use test_vm::Emulator;
use test_vm::api::Api;
use test_vm::cluster::{Programs, has_condition};
use test_vm::services::FILES_PORT;
use update_metadata::Waves;
use update_repository::{Keys, Release, Repository};

/// An update with another release of kubelet, by far the largest program of a node. None of
/// its blocks is believed to be in the release before, so that it fetches no more than this.
pub fn kubelet(emulator: &Emulator, image: &Path, folder: &Path) -> Result<Row> {
    const IMAGE: &str = "/image";
    let root = format!("{IMAGE}/root.erofs");
    let arguments = ["--path=/usr/bin/kubelet", &root];
    let shown = emulator.run_with(folder, &[(image, IMAGE)], "dump.erofs", &arguments)?;
    let size = size_on_disk(&shown)
        .with_context(|| format!("dump.erofs does not say how large kubelet is: {shown}"))?;
    let image = Image::read(image)?;
    Ok(Row::size(
        "update to another kubelet: fetched",
        // What every update fetches, even one to the same release.
        image.fetched_for(&image) + size,
    ))
}

/// The bytes of a file system that the file takes of which this was printed.
fn size_on_disk(shown: &str) -> Option<u64> {
    let (_, rest) = shown.split_once("On-disk size:")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Updates a node of `image` to its next version, in the folder `next`, and then puts an
/// image into its other slot that has nothing in common with what it runs. It restarts once
/// without an update before, to compare with.
pub fn measure(
    emulation: &Emulation,
    (image, next): (&Path, &Path),
    keys: &Keys,
    programs: &Programs,
    folder: &Path,
) -> Result<Vec<Row>> {
    let about = Description::read(image)?;
    let served = folder.join("repository");
    fs::create_dir_all(&served).with_context(|| format!("cannot create {}", served.display()))?;
    let repository = Repository::new(&served, &about.variant, &about.arch);
    let at = |path: &str| format!("http://10.0.2.2:{FILES_PORT}/{path}");
    let settings = format!(
        "[settings.updates]\nmetadata-base-url = \"{}\"\ntargets-base-url = \"{}\"\n",
        at(&format!("{}/{}", about.variant, about.arch)),
        at("targets"),
    );
    let candidate = Candidate {
        name: "updated",
        image,
        variables: &emulation.variables,
        join: &|cluster, builder| {
            let user_data = cluster.node_user_data(node::NODE) + &settings;
            builder.user_data = Some(user_data.into_bytes());
            builder.services.files = Some(served.clone());
            Ok(())
        },
        memory: &node::memory_in_use,
    };
    let mut node = Node::start(emulation, &candidate, programs, folder)?;
    let api = Api::at(&node.machine.api_socket());
    let first = ready(&node, None)?;
    let (restarted, second) = restart(&node, &api, &first, "restart: until the node is ready")?;
    let mut rows = vec![restarted.clone()];

    repository.add(keys, &release(next)?)?;
    rows.push(prepare(&mut node, &api, "update to the same: prepared")?);
    let (old, new) = (Image::read(image)?, Image::read(next)?);
    let fetched = Row::size("update to the same: fetched", old.fetched_for(&new));
    rows.push(fetched);
    scenarios::update_command(&mut node.machine, &api, "activate", STEP)?;
    let name = "update to the same: restart until the node is ready";
    let (row, _) = restart(&node, &api, &second, name)?;
    let times = row.cpu.zip(restarted.cpu).map(|(own, other)| own / other);
    rows.push(Row { times, ..row });

    repository.add(keys, &unlike(next, &folder.join("unlike"))?)?;
    rows.push(prepare(
        &mut node,
        &api,
        "update to everything new: prepared",
    )?);
    rows.push(Row::size("update to everything new: fetched", new.size()));
    node.machine.power_off(STEP)?;
    Ok(rows)
}

/// Waits until the node is ready in another boot than `before`; which one that is.
fn ready(node: &Node, before: Option<&str>) -> Result<String> {
    let mut boot = None;
    node.machine.wait_until("the node is ready", STEP, || {
        let object = node.object().unwrap_or_default();
        let id = object["status"]["nodeInfo"]["bootID"].as_str();
        boot = id.filter(|id| Some(*id) != before).map(str::to_string);
        boot.is_some() && has_condition(&object, "Ready")
    })?;
    boot.context("the node has no identity of its boot")
}

/// Restarts the machine as an agent in the cluster would.
fn restart(node: &Node, api: &Api, before: &str, name: &str) -> Result<(Row, String)> {
    let asked = node.now();
    api.json("POST", "/actions/reboot", None)?;
    let boot = ready(node, Some(before))?;
    Ok((asked.until(node.now(), name), boot))
}

/// Has the update that is offered found, and put into the other slot.
fn prepare(node: &mut Node, api: &Api, name: &str) -> Result<Row> {
    scenarios::update_command(&mut node.machine, api, "refresh", STEP)?;
    let before = node.now();
    scenarios::update_command(&mut node.machine, api, "prepare", STEP)?;
    Ok(before.until(node.now(), name))
}

/// The image in a folder, for all hosts at once.
fn release(folder: &Path) -> Result<Release> {
    let about = Description::read(folder)?;
    Release::in_folder(folder, &about.version, about.root_hash, Waves::default())
}

/// A later version than the image in the folder `image`, as large, and with no block in
/// common with it. It passes as an image until it is booted.
fn unlike(image: &Path, folder: &Path) -> Result<Release> {
    let read = |path: &Path| {
        let mut bytes =
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        Ok::<_, anyhow::Error>(bytes)
    };
    let about = Description::read(image)?;
    let old = Release::in_folder(image, &about.version, about.root_hash, Waves::default())?;
    let (mut boot, root) = (read(&old.boot)?, read(&old.root)?);
    let tree = verity::build(&root)?;
    let version = scenarios::next_version(&about.version)?;
    let root_hash = tree.root_hash.to_string();
    boot.extend(format!(" bulkhead.root={root_hash} bulkhead.version={version} ").into_bytes());
    let new = Release::in_folder(folder, &version, root_hash, Waves::default())?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (path, bytes) in [
        (&new.boot, boot),
        (&new.root, root),
        (&new.hash, tree.bytes),
    ] {
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_on_disk_is_found() {
        let shown = "Path : /usr/bin/x\nSize: 92635438  On-disk size: 31764480  regular file\n";
        assert_eq!(size_on_disk(shown), Some(31_764_480));
        assert_eq!(size_on_disk("Size: 1"), None);
    }
}
