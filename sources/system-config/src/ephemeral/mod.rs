//! `ephemeral-storage`: makes one file system of the disks that last only as long as
//! the machine, and puts directories on it.
//!
//! The API server writes down what is asked for and starts the unit; the answer is a
//! file, too. [`choose`], [`existing`] and [`to_make`] decide, from what disks there
//! are and what they hold; [`array`] joins several.

mod array;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use api_types::{
    EPHEMERAL_STORAGE_DONE, EPHEMERAL_STORAGE_WORK, EphemeralStorageBind, EphemeralStorageDone,
    EphemeralStorageInit, EphemeralStorageWork, FileSystem,
};
use boot_slots::ReadAt;
use nix::libc::O_EXCL;
use nix::mount::{MsFlags, mount};
use sysutil::fs::mount_points;

use crate::disks::{self, Disk, Kind};
use crate::storage::ext4::{self, Content};
use crate::storage::{bind, make_folder};
use array::Member;

/// Where the file system is mounted.
const MOUNT: &str = "/mnt/.ephemeral";
/// The file system's name, by which it is found again.
const LABEL: &str = "ephemeral";
/// Directories that packages of the image keep what may be lost in, a file for each
/// package and a directory on each line.
const DIRECTORIES: &str = "/usr/share/bulkhead/ephemeral-directories";
/// Names that EBS volumes are attached under which are to be taken for ephemeral.
const EBS_NAMES: std::ops::RangeInclusive<char> = 'a'..='x';
const EBS_PREFIX: &str = "xvdd";

/// Does what the API server has written down.
pub fn run() -> Result<()> {
    let root = Path::new("/");
    let work = sysutil::fs::read_limited(&root.join(EPHEMERAL_STORAGE_WORK), 1024 * 1024)?;
    let work = serde_json::from_slice(&work).context("what the API server asks for")?;
    let done = match work_on(work) {
        Ok(list) => EphemeralStorageDone::Done(list),
        Err(error) => {
            tracing::error!("ephemeral storage: {error:#}");
            EphemeralStorageDone::Refused(format!("{error:#}"))
        }
    };
    let done = serde_json::to_vec(&done).context("writing the answer down")?;
    sysutil::fs::write_atomic(&root.join(EPHEMERAL_STORAGE_DONE), &done, 0o600)
}

fn work_on(work: EphemeralStorageWork) -> Result<Vec<String>> {
    let nothing = |()| Vec::new();
    match work {
        EphemeralStorageWork::Init(init) => self::init(&init).map(nothing),
        EphemeralStorageWork::Bind(bind) => bind_all(&bind).map(nothing),
        EphemeralStorageWork::ListDisks => {
            let ephemeral = disks::all()?.into_iter().filter(is_ephemeral);
            Ok(ephemeral
                .map(|disk| disk.device.to_string_lossy().into_owned())
                .collect())
        }
        EphemeralStorageWork::ListEbsVolumes => {
            let disks = disks::all()?;
            let names = disks.iter().filter_map(ebs_name);
            Ok(names.map(str::to_owned).collect())
        }
        EphemeralStorageWork::ListDirs => {
            let directories = directories(Path::new(DIRECTORIES))?;
            let text = |path: PathBuf| path.to_string_lossy().into_owned();
            Ok(directories.into_iter().map(text).collect())
        }
    }
}

fn is_ephemeral(disk: &Disk) -> bool {
    disk.kind == Kind::Ephemeral
}

/// The name of an EBS volume that is to be taken for an ephemeral disk.
fn ebs_name(disk: &Disk) -> Option<&str> {
    match &disk.kind {
        Kind::Ebs(name) if is_ebs_name(name) => Some(name),
        _ => None,
    }
}

fn is_ebs_name(name: &str) -> bool {
    let mut rest = name.strip_prefix(EBS_PREFIX).unwrap_or_default().chars();
    rest.next().is_some_and(|c| EBS_NAMES.contains(&c)) && rest.next().is_none()
}

/// A disk and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    device: PathBuf,
    size: u64,
    holds: Holds,
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// Nothing that anybody knows.
    Nothing,
    /// A file system that was made for ephemeral storage.
    Ours(FileSystem),
    /// A part of an array that was made for ephemeral storage.
    Part(Member),
    /// Something else, which may be somebody's.
    Foreign(&'static str),
}

/// Makes one file system of disks, unless there is one.
fn init(wanted: &EphemeralStorageInit) -> Result<()> {
    let chosen = choose(disks::all()?, wanted)?;
    if chosen.is_empty() {
        tracing::info!("the machine has no disk for ephemeral storage");
        return Ok(());
    }
    if mount_points(Path::new("/proc/self/mountinfo"))?.contains(Path::new(MOUNT)) {
        return Ok(());
    }
    let candidates = examine(&chosen)?;
    let kind = wanted.filesystem.unwrap_or(FileSystem::Xfs);
    let device = match existing(&candidates) {
        Some(Existing::Disk(_)) if candidates.len() == 1 => return Ok(()),
        Some(Existing::Array(parts)) if parts.len() == candidates.len() => {
            array::assemble(Path::new("/sys"), &parts)?;
            let device = PathBuf::from(array::DEVICE);
            if let Holds::Ours(_) = holds(&open(&device)?, 0)? {
                return Ok(());
            }
            device
        }
        _ => {
            let parts = to_make(&candidates)?;
            for (device, _) in &parts {
                // Refused while somebody uses the disk.
                let exclusive = OpenOptions::new()
                    .read(true)
                    .custom_flags(O_EXCL)
                    .open(device);
                exclusive.with_context(|| format!("{} is in use", device.display()))?;
            }
            match &parts[..] {
                [(device, _)] => device.clone(),
                _ => {
                    array::create(&parts)?;
                    let devices: Vec<PathBuf> =
                        parts.into_iter().map(|(device, _)| device).collect();
                    array::assemble(Path::new("/sys"), &devices)?;
                    PathBuf::from(array::DEVICE)
                }
            }
        }
    };
    tracing::info!("making a file system on {}", device.display());
    sysutil::process::run(make_command(kind).arg(&device)).map(|_| ())
}

/// Neither clears what a disk had before: a disk of terabytes would take minutes.
fn make_command(kind: FileSystem) -> Command {
    match kind {
        FileSystem::Xfs => {
            let mut command = Command::new("/usr/sbin/mkfs.xfs");
            command.args(["-q", "-f", "-K", "-L", LABEL]);
            command
        }
        FileSystem::Ext4 => {
            let mut command = Command::new("/usr/sbin/mke2fs");
            command.args([
                "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-L", LABEL,
            ]);
            command.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
            command
        }
    }
}

/// The disks that are asked for.
fn choose(disks: Vec<Disk>, wanted: &EphemeralStorageInit) -> Result<Vec<Disk>> {
    let named = wanted.disks.iter().flatten();
    let volumes = wanted.ebs_volumes.iter().flatten();
    let mut chosen: Vec<Disk> = Vec::new();
    let mut take = |found: Option<&Disk>, refusal: String| -> Result<()> {
        let disk = found.context(refusal)?;
        if !chosen.contains(disk) {
            chosen.push(disk.clone());
        }
        Ok(())
    };
    for path in named {
        let device = Path::new(path)
            .canonicalize()
            .unwrap_or_else(|_| path.into());
        let found = disks
            .iter()
            .find(|disk| is_ephemeral(disk) && disk.device == device);
        take(
            found,
            format!("{path} is no ephemeral disk of this machine"),
        )?;
    }
    for name in volumes {
        ensure!(
            is_ebs_name(name),
            "an EBS volume for ephemeral storage is called {EBS_PREFIX}a to {EBS_PREFIX}x, not {name:?}"
        );
        let found = disks
            .iter()
            .find(|disk| ebs_name(disk) == Some(name.as_str()));
        take(found, format!("no EBS volume is attached as {name}"))?;
    }
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let Some(preferences) = &wanted.prefer else {
        return Ok(disks.into_iter().filter(is_ephemeral).collect());
    };
    let mut preferred = preferences.iter().map(|preference| {
        let is_wanted = |disk: &&Disk| {
            (preference.ephemeral_disk && is_ephemeral(disk))
                || (preference.ebs_volume && ebs_name(disk).is_some())
        };
        disks.iter().filter(is_wanted).cloned().collect::<Vec<_>>()
    });
    Ok(preferred
        .find(|disks| !disks.is_empty())
        .unwrap_or_default())
}

/// Ephemeral storage that was made before.
#[derive(Debug, PartialEq, Eq)]
enum Existing {
    Disk(PathBuf),
    Array(Vec<PathBuf>),
}

/// What of ephemeral storage there is on disks.
fn existing(candidates: &[Candidate]) -> Option<Existing> {
    let single = candidates
        .iter()
        .find(|candidate| matches!(candidate.holds, Holds::Ours(_)));
    if let Some(candidate) = single {
        return Some(Existing::Disk(candidate.device.clone()));
    }
    let part = |candidate: &Candidate| match candidate.holds {
        Holds::Part(member) => Some(member),
        _ => None,
    };
    let arrays: BTreeSet<[u8; 16]> = candidates
        .iter()
        .filter_map(|candidate| Some(part(candidate)?.array))
        .collect();
    arrays.into_iter().find_map(|array| {
        let parts: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| part(candidate).is_some_and(|member| member.array == array))
            .collect();
        let members: Vec<Member> = parts.iter().filter_map(|disk| part(disk)).collect();
        let devices = || parts.iter().map(|disk| disk.device.clone()).collect();
        array::is_complete(&members).then(|| Existing::Array(devices()))
    })
}

/// The disks, with their sizes, when nothing is lost by making a file system of them.
/// What is left of an array that lacks a disk is lost already.
fn to_make(candidates: &[Candidate]) -> Result<Vec<(PathBuf, u64)>> {
    for candidate in candidates {
        let what = match candidate.holds {
            Holds::Nothing | Holds::Part(_) => continue,
            Holds::Ours(_) => "ephemeral storage by itself",
            Holds::Foreign(what) => what,
        };
        bail!(
            "{} holds {what}, which is left alone; blank the beginning of the disk to have it used",
            candidate.device.display()
        );
    }
    Ok(candidates
        .iter()
        .map(|candidate| (candidate.device.clone(), candidate.size))
        .collect())
}

fn examine(disks: &[Disk]) -> Result<Vec<Candidate>> {
    let candidates = disks.iter().map(|disk| {
        Ok(Candidate {
            device: disk.device.clone(),
            size: disk.size,
            holds: holds(&open(&disk.device)?, disk.size)
                .with_context(|| format!("reading {}", disk.device.display()))?,
        })
    });
    candidates.collect()
}

fn open(device: &Path) -> Result<File> {
    File::open(device).with_context(|| format!("opening {}", device.display()))
}

/// What a disk of `size` bytes holds; as many as the device says if 0 is given.
fn holds(disk: &impl ReadAt, size: u64) -> Result<Holds> {
    let size = if size == 0 { disk.size()? } else { size };
    let mut start = vec![0; size.min(ext4::EXAMINED as u64) as usize];
    disk.read_exact_at(&mut start, 0)?;
    let is_named_xfs = || {
        let name = start.get(108..120).unwrap_or_default();
        start.starts_with(b"XFSB") && name.split(|byte| *byte == 0).next() == Some(LABEL.as_bytes())
    };
    let part = start.get(array::OFFSET as usize..).and_then(array::parse);
    Ok(match (part, ext4::examine(&start)) {
        (Some(member), _) => Holds::Part(member),
        (_, Content::Blank | Content::Unknown) => Holds::Nothing,
        (_, Content::Ext4(_)) if ext4::is_superblock_of(&start[ext4::SUPERBLOCK..], LABEL) => {
            Holds::Ours(FileSystem::Ext4)
        }
        (_, Content::Ext4(_) | Content::DamagedExt4(_)) => Holds::Foreign("an ext4 file system"),
        (_, Content::Foreign(_)) if is_named_xfs() => Holds::Ours(FileSystem::Xfs),
        (_, Content::Foreign(what)) => Holds::Foreign(what),
    })
}

/// Puts directories on the file system that [`init`] has made.
fn bind_all(wanted: &EphemeralStorageBind) -> Result<()> {
    let allowed = directories(Path::new(DIRECTORIES))?;
    let targets = targets(&allowed, &wanted.targets)?;
    let mounted = mount_points(Path::new("/proc/self/mountinfo"))?;
    if !mounted.contains(Path::new(MOUNT)) && !mount_existing()? {
        tracing::info!(
            "the machine has no disk for ephemeral storage: directories stay where they are"
        );
        return Ok(());
    }
    for target in targets {
        put_on_storage(&target, mounted.contains(&target))
            .with_context(|| format!("putting {} on ephemeral storage", target.display()))?;
    }
    Ok(())
}

/// Mounts the file system; `false` if the machine has no disk for one.
fn mount_existing() -> Result<bool> {
    let disks: Vec<Disk> = disks::all()?
        .into_iter()
        .filter(|disk| is_ephemeral(disk) || ebs_name(disk).is_some())
        .collect();
    let device = match existing(&examine(&disks)?) {
        None if disks.is_empty() => return Ok(false),
        None => bail!("there is no file system on it yet: run `apiclient ephemeral-storage init`"),
        Some(Existing::Disk(device)) => device,
        Some(Existing::Array(parts)) => {
            array::assemble(Path::new("/sys"), &parts)?;
            array::DEVICE.into()
        }
    };
    let kind = match holds(&open(&device)?, 0)? {
        Holds::Ours(FileSystem::Xfs) => "xfs",
        Holds::Ours(FileSystem::Ext4) => "ext4",
        _ => bail!(
            "{} has no file system of ephemeral storage: run `apiclient ephemeral-storage init`",
            device.display()
        ),
    };
    make_folder(Path::new(MOUNT), 0o755, VAR_LABEL)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some(&device), MOUNT, Some(kind), flags, None::<&str>)
        .with_context(|| format!("mounting {} at {MOUNT}", device.display()))?;
    // The root of a new file system has no label.
    make_folder(Path::new(MOUNT), 0o755, VAR_LABEL)?;
    Ok(true)
}

const VAR_LABEL: &str = "system_u:object_r:var_t:s0";

/// Shows a folder of the file system in the place of `target`, with the mode and label
/// that `target` has; the policy gives one that is made here its own.
fn put_on_storage(target: &Path, is_mounted: bool) -> Result<()> {
    let source = Path::new(MOUNT).join(folder_of(target));
    std::fs::create_dir_all(target)?;
    let metadata = target.metadata()?;
    if is_mounted {
        let is_ours = source
            .metadata()
            .is_ok_and(|source| (source.dev(), source.ino()) == (metadata.dev(), metadata.ino()));
        ensure!(is_ours, "something else is mounted there");
        return Ok(());
    }
    let label = sysutil::sys::selinux_label(target)?;
    let mode = metadata.permissions().mode() & 0o7777;
    make_folder(&source, mode, label.as_deref().unwrap_or(VAR_LABEL))?;
    bind(&source, target)
}

/// The folder on the file system that stands for a directory.
fn folder_of(target: &Path) -> String {
    format!(".{}", target.to_string_lossy().replace('/', "_"))
}

/// The directories that are asked for, all of `allowed` if none is.
fn targets(allowed: &BTreeSet<PathBuf>, wanted: &[String]) -> Result<Vec<PathBuf>> {
    let text = |paths: &BTreeSet<PathBuf>| {
        let all = paths.iter().map(|path| format!("{}, ", path.display()));
        all.collect::<String>()
    };
    if wanted.is_empty() {
        ensure!(
            !allowed.is_empty(),
            "this variant has no directories for ephemeral storage: name one below /mnt"
        );
        return Ok(allowed.iter().cloned().collect());
    }
    let targets = wanted.iter().map(|name| {
        // Without a slash at the end, or several together.
        let path: PathBuf = Path::new(name).components().collect();
        let mut below_mnt = path.strip_prefix("/mnt").ok().into_iter().flatten();
        let is_below_mnt = below_mnt
            .clone()
            .next()
            .is_some_and(|first| first != ".ephemeral")
            && below_mnt.all(|part| part != "..");
        ensure!(
            is_below_mnt || allowed.contains(&path),
            "{name} cannot be on ephemeral storage: there are {}and what is below /mnt",
            text(allowed)
        );
        ensure!(
            path.components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_))),
            "{name} is no plain path"
        );
        Ok(path)
    });
    targets.collect()
}

/// The directories that packages name.
fn directories(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut directories = BTreeSet::new();
    if !folder.exists() {
        return Ok(directories);
    }
    let listing = || format!("listing {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let bytes = sysutil::fs::read_limited(&path, 64 * 1024)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim);
        directories.extend(
            lines
                .filter(|line| line.starts_with('/'))
                .map(PathBuf::from),
        );
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::StoragePreference;

    fn disk(device: &str, kind: Kind) -> Disk {
        Disk {
            device: device.into(),
            size: 1 << 30,
            kind,
        }
    }

    fn machine() -> Vec<Disk> {
        let ebs = |name: &str| Kind::Ebs(name.to_owned());
        vec![
            disk("/dev/nvme0n1", ebs("xvda")),
            disk("/dev/nvme1n1", ebs("xvdb")),
            disk("/dev/nvme2n1", Kind::Ephemeral),
            disk("/dev/nvme3n1", Kind::Ephemeral),
            disk("/dev/nvme4n1", ebs("xvddb")),
            disk("/dev/sda", Kind::Other),
        ]
    }

    #[test]
    fn disks_are_chosen() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let check = |wanted: EphemeralStorageInit, expected: Result<&[&str], &str>| {
            let chosen = choose(machine(), &wanted).map_err(|error| error.to_string());
            match (chosen, expected) {
                (Ok(chosen), Ok(expected)) => {
                    let names: Vec<_> = chosen.iter().map(|disk| &disk.device).collect();
                    assert_eq!(names, expected.iter().map(Path::new).collect::<Vec<_>>());
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (chosen, _) => panic!("{wanted:?}: {chosen:?}"),
            }
        };
        let disks = |list: &[&str]| EphemeralStorageInit {
            disks: Some(words(list)),
            ..EphemeralStorageInit::default()
        };
        let volumes = |list: &[&str]| EphemeralStorageInit {
            ebs_volumes: Some(words(list)),
            ..EphemeralStorageInit::default()
        };
        let prefer = |list: &[(bool, bool)]| EphemeralStorageInit {
            prefer: Some(
                list.iter()
                    .map(|&(ephemeral_disk, ebs_volume)| StoragePreference {
                        ephemeral_disk,
                        ebs_volume,
                    })
                    .collect(),
            ),
            ..EphemeralStorageInit::default()
        };
        let both = &["/dev/nvme2n1", "/dev/nvme3n1"];
        check(EphemeralStorageInit::default(), Ok(both));
        check(disks(&["/dev/nvme3n1"]), Ok(&["/dev/nvme3n1"]));
        check(
            disks(&["/dev/nvme3n1", "/dev/nvme3n1"]),
            Ok(&["/dev/nvme3n1"]),
        );
        for name in ["/dev/nvme0n1", "/dev/nvme4n1", "/dev/sda", "/dev/none", ""] {
            check(disks(&[name]), Err("is no ephemeral disk of this machine"));
        }
        check(volumes(&["xvddb"]), Ok(&["/dev/nvme4n1"]));
        check(
            volumes(&["xvddc"]),
            Err("no EBS volume is attached as xvddc"),
        );
        for name in ["xvdb", "xvddy", "xvddbb", "xvdd", "/dev/xvddb"] {
            check(volumes(&[name]), Err("is called xvdda to xvddx"));
        }
        check(prefer(&[(true, false), (false, true)]), Ok(both));
        check(
            prefer(&[(false, true), (true, false)]),
            Ok(&["/dev/nvme4n1"]),
        );
        let all = &["/dev/nvme2n1", "/dev/nvme3n1", "/dev/nvme4n1"];
        check(prefer(&[(true, true)]), Ok(all));
        check(prefer(&[]), Ok(&[]));
        let none = choose(Vec::new(), &EphemeralStorageInit::default()).expect("none");
        assert!(none.is_empty());
    }

    fn candidate(device: &str, holds: Holds) -> Candidate {
        Candidate {
            device: device.into(),
            size: 1 << 30,
            holds,
        }
    }

    fn part(array: u8, disks: u32, number: u32) -> Holds {
        Holds::Part(Member {
            array: [array; 16],
            disks,
            number,
        })
    }

    #[test]
    fn what_was_made_before_is_found() {
        let ours = Holds::Ours(FileSystem::Xfs);
        let array = |devices: &[&str]| {
            Some(Existing::Array(
                devices.iter().map(PathBuf::from).collect::<Vec<_>>(),
            ))
        };
        for (holds, expected) in [
            (vec![], None),
            (vec![Holds::Nothing, Holds::Foreign("x")], None),
            (
                vec![Holds::Nothing, ours.clone()],
                Some(Existing::Disk("1".into())),
            ),
            (vec![part(1, 2, 1), part(1, 2, 0)], array(&["0", "1"])),
            (vec![part(1, 2, 1), Holds::Nothing], None),
            (
                vec![part(1, 2, 1), part(2, 2, 0), part(2, 2, 1)],
                array(&["1", "2"]),
            ),
        ] {
            let candidates: Vec<Candidate> = holds
                .into_iter()
                .enumerate()
                .map(|(number, holds)| candidate(&number.to_string(), holds))
                .collect();
            assert_eq!(existing(&candidates), expected, "{candidates:?}");
        }
    }

    #[test]
    fn nothing_of_others_is_overwritten() {
        for (holds, refusal) in [
            (Holds::Nothing, None),
            (part(1, 2, 0), None),
            (
                Holds::Foreign("an XFS file system"),
                Some("/dev/b holds an XFS file system"),
            ),
            (
                Holds::Ours(FileSystem::Ext4),
                Some("/dev/b holds ephemeral storage by itself"),
            ),
        ] {
            let made = to_make(&[
                candidate("/dev/a", Holds::Nothing),
                candidate("/dev/b", holds),
            ]);
            match (made, refusal) {
                (Ok(parts), None) => assert_eq!(parts.len(), 2),
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
                (made, _) => panic!("{made:?}"),
            }
        }
    }

    #[test]
    fn disks_are_looked_at() {
        let size = 2 * ext4::EXAMINED;
        let with = |at: usize, bytes: &[u8]| {
            let mut disk = vec![0; size];
            disk[at..at + bytes.len()].copy_from_slice(bytes);
            disk
        };
        let mut xfs = with(108, b"ephemeral");
        xfs[..4].copy_from_slice(b"XFSB");
        for (disk, expected) in [
            (vec![0; size], Holds::Nothing),
            (vec![0; 600], Holds::Nothing),
            (with(700_000, b"rest of something"), Holds::Nothing),
            (xfs, Holds::Ours(FileSystem::Xfs)),
            (with(0, b"XFSB"), Holds::Foreign("an XFS file system")),
            (
                ext4::example(9, false),
                Holds::Foreign("an ext4 file system"),
            ),
            (with(512, b"EFI PART"), Holds::Foreign("a partition table")),
            (
                with(4096, &0xa92b_4efc_u32.to_le_bytes()),
                Holds::Foreign("a part of a disk array"),
            ),
        ] {
            assert_eq!(holds(&disk, 0).expect("read"), expected);
        }
    }

    #[test]
    fn directories_are_those_of_packages_and_below_mnt() {
        let folder = tempfile::tempdir().expect("folder");
        let none = directories(&folder.path().join("none")).expect("none");
        assert!(none.is_empty());
        std::fs::write(folder.path().join("a"), "/var/lib/a\n\n/var/log/a\n").expect("file");
        std::fs::write(folder.path().join("b"), "/var/lib/b\n").expect("file");
        let allowed = directories(folder.path()).expect("read");
        let check = |wanted: &[&str], expected: Result<&[&str], &str>| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            let found = targets(&allowed, &wanted).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(
                        found,
                        expected.iter().map(PathBuf::from).collect::<Vec<_>>()
                    );
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (found, _) => panic!("{wanted:?}: {found:?}"),
            }
        };
        check(&[], Ok(&["/var/lib/a", "/var/lib/b", "/var/log/a"]));
        check(
            &["/var/lib/b/", "/mnt/fast//x"],
            Ok(&["/var/lib/b", "/mnt/fast/x"]),
        );
        for bad in [
            "/var/lib",
            "/var/lib/a/b",
            "/mnt",
            "/mnt/",
            "/mnt/.ephemeral",
            "/mnt/.ephemeral/x",
            "/mnt/../etc",
            "/mnt/x/../../etc",
            "var/lib/a",
            "mnt/x",
            "",
        ] {
            check(&[bad], Err("cannot be on ephemeral storage"));
        }
        assert!(targets(&BTreeSet::new(), &[]).is_err());
    }

    #[test]
    fn folders_have_the_names_that_others_know() {
        for (target, folder) in [
            ("/var/lib/containerd", "._var_lib_containerd"),
            ("/mnt/x", "._mnt_x"),
        ] {
            assert_eq!(folder_of(Path::new(target)), folder);
        }
    }
}
