//! What a scenario works on.

use crate::evidence::Journal;
use anyhow::{Context, Result};
use boot_slots::layout::Role;
use disk_image::authenticode::Signer;
use std::fs;
use std::path::{Path, PathBuf};
use test_vm::api::Api;
use test_vm::cluster::Programs;
use test_vm::disk::{RawDisk, sparse_copy};
use test_vm::{Acceleration, Builder, Disk, Emulator, Machine};

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The variant itself.
    Variant,
    /// Its dev twin, whose API can be reached from outside.
    Twin,
}

/// What scenarios are run with.
pub struct Setup {
    /// The emulator toolchain.
    pub emulator: Emulator,
    /// How guests are executed.
    pub acceleration: Acceleration,
    /// Firmware variables with the keys that the images are signed with.
    pub variables: PathBuf,
    /// What images are signed with.
    pub signer: Signer,
    /// Folder of the variant's image.
    pub variant: PathBuf,
    /// Folder of the dev twin's image.
    pub twin: PathBuf,
    /// Builds the image of the next version of the dev twin, and says where it is.
    pub next_twin: Box<dyn Fn() -> Result<PathBuf>>,
    /// Builds the image of a node's dev twin, and says where it is.
    pub node_twin: Box<dyn Fn() -> Result<PathBuf>>,
    /// Folder of the keys of the update repository that images trust.
    pub update_keys: PathBuf,
    /// What scenarios of a cluster need besides; there only if one is to be run.
    pub cluster: Option<Cluster>,
    /// Where each scenario gets a folder.
    pub folder: PathBuf,
}

/// A cluster's parts.
pub struct Cluster {
    /// Folder of the image of a node's dev twin.
    pub node: PathBuf,
    /// Builds the image of the next version of that twin, and says where it is.
    pub next_node: Box<dyn Fn() -> Result<PathBuf>>,
    /// Builds the image of the dev twin that is the same node on EC2, and says where it
    /// is.
    pub ec2_node: Box<dyn Fn() -> Result<PathBuf>>,
    /// The programs of control plane and registry, and what test images are made of.
    pub programs: Programs,
}

impl Setup {
    /// The folder of an image.
    pub fn image(&self, which: Which) -> &Path {
        match which {
            Which::Variant => &self.variant,
            Which::Twin => &self.twin,
        }
    }
}

/// What a scenario works on: the set-up, and a folder of its own.
pub struct Stage<'a> {
    setup: &'a Setup,
    folder: PathBuf,
    notes: Vec<String>,
    shared: f64,
}

/// Processor seconds within which a machine must power off.
const POWER_OFF: f64 = 25.0;
/// Processor seconds within which a machine must complete its boot. Twice what it
/// takes a node, whose kubelet is waited for, since nothing is learnt from a machine
/// that is given up too early.
pub(crate) const BOOT: f64 = 150.0;

/// The marks that the host prints on its console.
pub(crate) mod marks {
    pub(crate) const ROOT_VERIFIED: &str = "bulkhead: root verified";
    pub(crate) const API_READY: &str = "bulkhead: API ready";
    pub(crate) const BOOT_COMPLETE: &str = "bulkhead: boot complete";
}

impl<'a> Stage<'a> {
    pub(crate) fn new(setup: &'a Setup, folder: PathBuf) -> Self {
        Self {
            setup,
            folder,
            notes: Vec::new(),
            shared: 0.0,
        }
    }

    /// What the scenarios are run with.
    pub fn setup(&self) -> &'a Setup {
        self.setup
    }

    /// The parts of a cluster.
    pub fn cluster(&self) -> Result<&'a Cluster> {
        self.setup
            .cluster
            .as_ref()
            .context("the scenario needs a cluster's parts, but does not say so in the table")
    }

    /// The scenario's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Something measured or seen that whoever reads the result wants to know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Processor seconds spent on what later scenarios use, too.
    pub(crate) fn shared(&self) -> f64 {
        self.shared
    }

    /// A machine with a disk of its own: a copy of the image's, in a folder called
    /// `name` below the scenario's. Asked for again, it is the same machine with
    /// what happened to its disk and firmware since.
    pub fn machine(&self, which: Which, name: &str) -> Result<(Builder, RawDisk)> {
        self.machine_of(self.setup.image(which), name)
    }

    /// Like [`machine`](Self::machine), of any image's folder.
    pub fn machine_of(&self, image: &Path, name: &str) -> Result<(Builder, RawDisk)> {
        const DISK: &str = "disk.img";
        let run = self.folder.join(name);
        fs::create_dir_all(&run).with_context(|| format!("cannot create {}", run.display()))?;
        let path = run.join(DISK);
        let disk = if path.exists() {
            RawDisk::open(&path)?
        } else {
            RawDisk::copy(&image.join(DISK), &path)?
        };
        let mut builder = Builder::new(image, &run, &self.setup.variables, self.setup.acceleration);
        builder.disk = Disk::Raw(DISK.to_string());
        Ok((builder, disk))
    }

    /// Like [`machine_of`](Self::machine_of), with a disk on which images and pods have
    /// room: the data partition grows into it.
    pub(crate) fn roomy_machine_of(&self, image: &Path, name: &str) -> Result<(Builder, RawDisk)> {
        /// In bytes, most of which are never written.
        const SIZE: u64 = 12 << 30;
        let (builder, disk) = self.machine_of(image, name)?;
        disk.enlarge(SIZE)?;
        Ok((builder, disk))
    }

    /// Powers a machine on.
    pub fn start(&self, builder: &Builder) -> Result<Machine> {
        builder.start(&self.setup.emulator)
    }

    /// Powers a machine on and waits until its boot is complete.
    pub fn boot(&mut self, builder: &Builder) -> Result<Machine> {
        let mut machine = self.start(builder)?;
        let complete = machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
        self.note(format!(
            "boot complete after {:.1} CPU s, {:.0} s on the clock",
            complete.cpu, complete.wall
        ));
        Ok(machine)
    }

    /// The dev twin, running since its first boot was completed: a copy of a machine
    /// that was booted once for all scenarios that do not test booting, and saved.
    pub fn booted(&mut self) -> Result<(Builder, RawDisk, Machine)> {
        self.booted_with(|_, _| Ok(()))
    }

    /// The same with something changed that the running system cannot have noticed.
    pub fn booted_with(
        &mut self,
        change: impl FnOnce(&mut Builder, &RawDisk) -> Result<()>,
    ) -> Result<(Builder, RawDisk, Machine)> {
        let saved = self.saved_machine()?;
        let run = self.fresh_folder("machine")?;
        for entry in
            fs::read_dir(&saved).with_context(|| format!("cannot list {}", saved.display()))?
        {
            let entry = entry.with_context(|| format!("cannot list {}", saved.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                sparse_copy(&entry.path(), &run.join(entry.file_name()))?;
            }
        }
        let (mut builder, disk) = self.machine(Which::Twin, "machine")?;
        builder.restore = true;
        change(&mut builder, &disk)?;
        let machine = self.start(&builder)?;
        builder.restore = false;
        Ok((builder, disk, machine))
    }

    /// The folder of the saved machine, which is booted now if the one that is there
    /// has another image.
    fn saved_machine(&mut self) -> Result<PathBuf> {
        const KEY: &str = "key";
        let description = self.setup.twin.join("image.json");
        let description = fs::read_to_string(&description)
            .with_context(|| format!("cannot read {}", description.display()))?;
        let key = format!(
            "{}\n{}\n{}\n{description}",
            self.setup.emulator.key(),
            self.setup.acceleration,
            self.setup.variables.display()
        );
        let saved = self.setup.folder.join("booted");
        if fs::read_to_string(saved.join(KEY)).is_ok_and(|found| found == key) {
            return Ok(saved);
        }
        if saved.exists() {
            fs::remove_dir_all(&saved)
                .with_context(|| format!("cannot remove {}", saved.display()))?;
        }
        let cpu = self.setup.emulator.spent();
        let (builder, _) = self.machine(Which::Twin, "first-boot")?;
        let machine = self.boot(&builder)?;
        let api = Api::at(&machine.api_socket());
        machine.wait_until("the API answers", BOOT, || api.answers())?;
        machine.save()?;
        fs::rename(&builder.run, &saved)
            .with_context(|| format!("cannot move {}", builder.run.display()))?;
        // Written last: a folder without it is one that was not finished.
        fs::write(saved.join(KEY), key)
            .with_context(|| format!("cannot write {}", saved.join(KEY).display()))?;
        self.shared += self.setup.emulator.spent() - cpu;
        Ok(saved)
    }

    /// Powers a machine off by its button.
    pub fn power_off(&self, mut machine: Machine) -> Result<()> {
        machine.power_off(POWER_OFF)
    }

    /// The journal on the disk of a machine that is off.
    pub fn journal(&self, disk: &RawDisk) -> Result<Journal> {
        let folder = self.fresh_folder("journal")?;
        disk.extract(Role::Data, &folder.join("data.img"))?;
        self.journal_in(&folder)
    }

    /// The journal on the data volume of a machine that is off.
    pub fn journal_of_volume(&self, volume: &Path) -> Result<Journal> {
        let folder = self.fresh_folder("journal")?;
        sparse_copy(volume, &folder.join("data.img"))?;
        self.journal_in(&folder)
    }

    /// The journal in the file system `data.img` in `folder`, which is removed.
    fn journal_in(&self, folder: &Path) -> Result<Journal> {
        self.dump(
            folder,
            "data.img",
            &["/var/log/journal", "/log/journal"],
            "journal",
        )?;
        let text = self.setup.emulator.run(
            folder,
            "journalctl",
            &[
                "--directory=journal",
                "--merge",
                "--all",
                "--output=json",
                "--no-pager",
                "--quiet",
            ],
        )?;
        fs::remove_file(folder.join("data.img")).context("cannot remove the copied partition")?;
        Journal::parse(&text)
    }

    /// Copies the first of `candidates`, folders of the ext4 file system in the file
    /// `image`, to `to`. All paths are relative to `folder`, except the candidates.
    pub(crate) fn dump(
        &self,
        folder: &Path,
        image: &str,
        candidates: &[&str],
        to: &str,
    ) -> Result<()> {
        let target = folder.join(to);
        // debugfs copies what lies in the folder to a folder of the same name,
        // which must not be there yet.
        const STAGING: &str = "dumped";
        let staging = folder.join(STAGING);
        for candidate in candidates {
            fs::create_dir_all(&staging)
                .with_context(|| format!("cannot create {}", staging.display()))?;
            let request = format!("rdump {candidate} {STAGING}");
            self.setup
                .emulator
                .run(folder, "debugfs", &["-R", &request, image])?;
            let name = Path::new(candidate).file_name().unwrap_or_default();
            let dumped = staging.join(name);
            let has_files = dumped
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_some());
            if has_files {
                fs::rename(&dumped, &target)
                    .with_context(|| format!("cannot move {}", dumped.display()))?;
            }
            fs::remove_dir_all(&staging)
                .with_context(|| format!("cannot remove {}", staging.display()))?;
            if has_files {
                return Ok(());
            }
        }
        anyhow::bail!("none of {} is on the disk", candidates.join(", "))
    }

    /// An empty folder called `name` below the scenario's.
    pub fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }
}
