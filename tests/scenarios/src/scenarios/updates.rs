//! Updates over the network, from a repository in which images of the build are released.

use super::set;
use super::slots::{kernel_for, next_version};
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use boot_slots::bless::FOLDER;
use boot_slots::layout::{Role, Slot};
use boot_slots::verity;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use test_vm::api::Api;
use test_vm::probe::Probe;
use test_vm::services::FILES_PORT;
use test_vm::{Disk, Machine, Wait};
use update_metadata::Waves;
use update_repository::{Keys, Release, Repository};

/// Processor seconds within which the repository's metadata is read.
const REFRESH: f64 = 60.0;
/// Processor seconds within which an image is fetched, written and checked.
const PREPARE: f64 = 180.0;
/// Bytes of memory that the updater may have resident.
const MEMORY: u64 = 64_000_000;
/// Where the host says what it has.
const UPDATER_MEMORY: &str =
    "/sys/fs/cgroup/system.slice/system-update.slice/update@prepare.service/memory.stat";
/// Processor seconds of three boots that fail: firmware, loader, kernel, `init`.
const FAILED_BOOTS: f64 = 3.0 * 45.0;

/// A repository from which a scenario's machine is updated, and what can be released in it.
pub(super) struct Updates {
    repository: Repository,
    keys: Keys,
    folder: PathBuf,
    address: String,
    /// What the machine runs at first; it is not released.
    pub(super) old: Image,
    /// The next version of it.
    pub(super) new: Image,
    /// The version after that, whose root is no file system: it does not boot.
    pub(super) bad: Image,
}

/// An image: what identifies it, and its files.
pub(super) struct Image {
    pub(super) version: String,
    root_hash: String,
    pub(super) boot: PathBuf,
    pub(super) root: PathBuf,
    pub(super) hash: PathBuf,
}

impl Image {
    /// Reads `image.json` in the folder of a built image.
    fn read(folder: &Path) -> Result<(Self, Value)> {
        let path = folder.join("image.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let json: Value = serde_json::from_slice(&text)
            .with_context(|| format!("cannot parse {}", path.display()))?;
        let image = Self {
            version: field(&json, "version")?,
            root_hash: field(&json, "root-hash")?,
            boot: folder.join("bulkhead.efi"),
            root: folder.join("root.erofs"),
            hash: folder.join("root.verity"),
        };
        Ok((image, json))
    }

    /// An image like the one in the folder `like`, whose root has no file system.
    fn bad(stage: &Stage<'_>, like: &Path, good: &Self) -> Result<Self> {
        let version = next_version(&good.version)?;
        let content: Vec<u8> = (0..64 * verity::BLOCK_SIZE as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let tree = verity::build(&content)?;
        let signer = &stage.setup().signer;
        let versions = (good.version.as_str(), version.as_str());
        let kernel = kernel_for(like, versions, &tree.root_hash, signer)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = stage.folder().join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self {
            version,
            root_hash: tree.root_hash.to_string(),
            boot: write("bad.efi", &kernel)?,
            root: write("bad.erofs", &content)?,
            hash: write("bad.verity", &tree.bytes)?,
        })
    }
}

fn field(json: &Value, name: &str) -> Result<String> {
    let text = json[name].as_str().map(str::to_string);
    text.with_context(|| format!("image.json has no {name}"))
}

impl Updates {
    /// Of the host by itself, whose next version is built.
    pub(super) fn new(stage: &Stage<'_>) -> Result<Self> {
        let setup = stage.setup();
        Self::between(stage, setup.image(Which::Twin), &(setup.next_twin)()?)
    }

    /// From the image in one folder to that in another. The repository has nothing yet.
    pub(super) fn between(stage: &Stage<'_>, old: &Path, next: &Path) -> Result<Self> {
        let (old, described) = Image::read(old)?;
        let (new, _) = Image::read(next)?;
        let bad = Image::bad(stage, next, &new)?;
        let folder = stage.fresh_folder("repository")?;
        let (variant, arch) = (field(&described, "variant")?, field(&described, "arch")?);
        Ok(Self {
            repository: Repository::new(&folder, &variant, &arch),
            keys: Keys::load(&stage.setup().update_keys)?,
            folder,
            address: format!("{variant}/{arch}"),
            old,
            new,
            bad,
        })
    }

    /// What a machine has to serve, for its host to find the repository.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings by which a host finds it, by `http` or `https`.
    pub(super) fn settings(&self, scheme: &str) -> Value {
        let at = |path: &str| format!("{scheme}://10.0.2.2:{FILES_PORT}/{path}");
        json!({ "updates": {
            "metadata-base-url": at(&self.address),
            "targets-base-url": at("targets"),
        } })
    }

    pub(super) fn release(&self, image: &Image) -> Result<()> {
        let version = image.version.clone().try_into();
        let release = Release {
            version: version.map_err(anyhow::Error::msg)?,
            root_hash: image.root_hash.clone(),
            waves: Waves::default(),
            boot: image.boot.clone(),
            root: image.root.clone(),
            hash: image.hash.clone(),
        };
        self.repository.add(&self.keys, &release)
    }
}

/// An update by the API boots, and settings are kept. The next one does not boot: the
/// host goes back by itself, says so, and does not take it again.
pub(crate) fn forward_and_back(stage: &mut Stage<'_>) -> Result<()> {
    let updates = Updates::new(stage)?;
    let (new, bad) = (&updates.new, &updates.bad);
    let whole = [&new.boot, &new.root, &new.hash]
        .into_iter()
        .map(|path| Ok(fs::metadata(path)?.len()))
        .sum::<Result<u64>>()?;
    updates.release(new)?;

    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.services.files = Some(updates.folder().to_path_buf());
    let mut machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    let mut settings = updates.settings("http");
    settings["motd"] = json!("kept by the update");
    set(&api, &settings)?;

    let status = api.request("GET", "/updates/status", None)?.status;
    ensure!(status == 404, "a status before anybody asked: {status}");
    let prepare = api.request("POST", "/actions/prepare-update", None)?.status;
    ensure!(
        prepare == 409,
        "there is nothing to prepare, but the answer is {prepare}"
    );
    let status = command(&mut machine, &api, "refresh", REFRESH)?;
    ensure!(
        status["update_state"] == "Available"
            && status["chosen_update"]["version"] == new.version.as_str(),
        "the update is not chosen: {status}"
    );
    let before = machine.cpu_seconds();
    let mut probe = Probe::connect(&machine.probe_socket())?;
    let mut memory = 0;
    let status = command_while(&mut machine, &api, "prepare", PREPARE, || {
        // There only while it is at work.
        let stat = probe.read(UPDATER_MEMORY).unwrap_or_default();
        memory = memory.max(resident(&stat));
    })?;
    drop(probe);
    ensure!(status["update_state"] == "Staged", "not staged: {status}");
    let spent = machine.cpu_seconds() - before;
    stage.note(format!(
        "prepared in {spent:.0} CPU s and {memory} bytes of memory; the whole update has {whole} bytes"
    ));
    ensure!(
        (1..MEMORY).contains(&memory),
        "the updater has taken {memory} bytes of memory"
    );
    activate_and_reboot(&mut machine, &api, BOOT + 30.0)?;
    runs(&api, &new.version)?;
    let motd = api.get("/settings")?["motd"].clone();
    ensure!(motd == "kept by the update", "settings.motd is {motd}");
    let status = settled(&mut machine, &api, "refresh")?;
    ensure!(
        status["update_state"] == "Idle",
        "the update is not done: {status}"
    );

    updates.release(bad)?;
    command(&mut machine, &api, "refresh", REFRESH)?;
    command(&mut machine, &api, "prepare", PREPARE)?;
    activate_and_reboot(&mut machine, &api, FAILED_BOOTS + BOOT)?;
    runs(&api, &new.version)?;
    ensure!(machine.resets() >= 4, "only {} resets", machine.resets());
    let status = settled(&mut machine, &api, "activate")?;
    let last = &status["most_recent_command"];
    let why = last["stderr"].as_str().unwrap_or_default();
    ensure!(
        last["cmd_status"] == "Failed" && why.contains(&bad.version),
        "the status does not say why: {status}"
    );
    stage.note(format!("given up: {why}"));
    let status = command(&mut machine, &api, "refresh", REFRESH)?;
    ensure!(
        status["update_state"] == "Idle" && status["available_updates"][0] == bad.version.as_str(),
        "what did not boot is chosen again: {status}"
    );
    let why = status["given_up"][&bad.version].as_str();
    ensure!(why.is_some(), "nobody knows any more why: {status}");
    stage.power_off(machine)
}

/// A disk that does not write a sector of the other slot, and then one that does not read
/// another back, cost the update and nothing else. The status says why.
pub(crate) fn bad_disk(stage: &mut Stage<'_>) -> Result<()> {
    let updates = Updates::new(stage)?;
    updates.release(&updates.new)?;
    let other = Role::Root(Slot::B);
    let (_, disk, mut machine) = stage.booted_with(|builder, disk| {
        let first = disk.partition(other)?.first_lba;
        builder.services.files = Some(updates.folder().to_path_buf());
        builder.disk = Disk::Failing {
            disk: "disk.img".to_string(),
            unwritable: first + 4_000,
            unreadable: first + 8_000,
        };
        Ok(())
    })?;
    let api = Api::at(&machine.api_socket());
    set(&api, &updates.settings("http"))?;
    command(&mut machine, &api, "refresh", REFRESH)?;
    for fault in ["writing", "reading"] {
        let status = ended_while(&mut machine, &api, "prepare", PREPARE, || {})?;
        let last = &status["most_recent_command"];
        let why = last["stderr"].as_str().unwrap_or_default();
        stage.note(format!("{fault}: {why}"));
        ensure!(
            last["cmd_status"] == "Failed"
                && why.contains("slot B")
                && why.contains("Input/output error"),
            "{fault}: the status does not say why: {status}"
        );
        ensure!(
            status["update_state"] == "Available" && status["staging_partition"].is_null(),
            "{fault}: something is staged: {status}"
        );
    }
    machine.quit()?;
    let start = disk.read(Role::Verity(Slot::B), 0, verity::SUPERBLOCK_SIZE)?;
    ensure!(
        start.iter().all(|byte| *byte == 0),
        "slot B says that it holds an image"
    );
    let kernels = disk.esp()?.list(FOLDER)?;
    ensure!(
        kernels.len() == 1 && kernels[0].contains(&updates.old.version),
        "there are kernel images: {kernels:?}"
    );
    Ok(())
}

/// The bytes of memory that a group of processes has resident, by its `memory.stat`.
fn resident(stat: &str) -> u64 {
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    let own = lines.filter(|(name, _)| ["anon", "file_mapped"].contains(name));
    own.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()
}

/// Runs a command to its end, which must be good, within `budget` processor seconds; the
/// status then.
pub fn command(machine: &mut Machine, api: &Api, kind: &str, budget: f64) -> Result<Value> {
    command_while(machine, api, kind, budget, || {})
}

/// The same, and something else as often as it is looked whether it has ended.
fn command_while(
    machine: &mut Machine,
    api: &Api,
    kind: &str,
    budget: f64,
    meanwhile: impl FnMut(),
) -> Result<Value> {
    let status = ended_while(machine, api, kind, budget, meanwhile)?;
    let last = &status["most_recent_command"];
    ensure!(last["cmd_status"] == "Success", "{kind} failed: {last}");
    Ok(status)
}

/// The same, whatever the command comes to.
fn ended_while(
    machine: &mut Machine,
    api: &Api,
    kind: &str,
    budget: f64,
    mut meanwhile: impl FnMut(),
) -> Result<Value> {
    let action = match kind {
        "refresh" => "refresh-updates".to_string(),
        kind => format!("{kind}-update"),
    };
    let before = time_of_last(api);
    api.json("POST", &format!("/actions/{action}"), None)?;
    machine.wait_until(&format!("{kind} ends"), budget, || {
        meanwhile();
        let last = time_of_last(api);
        last.is_some() && last != before
    })?;
    let status = api.get("/updates/status")?;
    let last = &status["most_recent_command"];
    ensure!(
        last["cmd_type"] == kind,
        "not what became of {kind}: {last}"
    );
    Ok(status)
}

/// When the last command ended; nothing while one is at work.
pub(super) fn time_of_last(api: &Api) -> Option<String> {
    let answer = api.request("GET", "/updates/status", None).ok()?;
    let status: Value = serde_json::from_str(&answer.text()).ok()?;
    status["most_recent_command"]["timestamp"]
        .as_str()
        .map(str::to_string)
}

pub(super) fn activate_and_reboot(machine: &mut Machine, api: &Api, budget: f64) -> Result<()> {
    let status = command(machine, api, "activate", REFRESH)?;
    ensure!(
        status["update_state"] == "Ready" && status["staging_partition"]["next_to_boot"] == true,
        "not ready: {status}"
    );
    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&Wait::line(marks::BOOT_COMPLETE, budget).across_resets())?;
    machine.wait_until("the API answers", BOOT, || api.answers())
}

fn runs(api: &Api, version: &str) -> Result<()> {
    let os = api.get("/os")?;
    if os["version_id"] != version {
        bail!("{} runs instead of {version}", os["version_id"]);
    }
    Ok(())
}

/// The status once the boot is over and what became of the update is known.
pub(super) fn settled(machine: &mut Machine, api: &Api, kind: &str) -> Result<Value> {
    let mut status = Value::Null;
    machine
        .wait_until("the update is settled", BOOT, || {
            status = api.get("/updates/status").unwrap_or_default();
            status["update_state"] == "Idle" && status["staging_partition"].is_null()
        })
        .with_context(|| format!("after {kind}"))?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_what_is_its_own_and_what_it_has_mapped() {
        let stat = "anon 30\nfile 5000\nkernel 7\nfile_mapped 12\nanon_thp 1\n";
        assert_eq!(resident(stat), 42);
        assert_eq!(resident(""), 0);
    }
}
