//! Carrying a plan out. The order of attempts and what happens when all of
//! them fail is here, above the [`Machine`] trait, so that it is tested without
//! a disk; [`Host`] is the machine that it really happens to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use boot_slots::gpt;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use sysutil::sys;

use super::ext4::BOOT_RECORD_SIZE;
use super::plan::{Action, Mount, Preparation, Purpose};

/// What a mounted partition allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// To be read: the file system says that it must not be changed, or the disk
    /// takes no writes. The kernel mounts it then without being asked to.
    ReadOnly,
}

/// What the steps of a plan do to the world.
pub trait Machine {
    /// Takes one step; a [`Action::Mount`] does not come here.
    fn act(&mut self, action: &Action) -> Result<()>;
    /// Prepares a partition for being mounted.
    fn prepare(&mut self, purpose: Purpose, device: &Path, how: &Preparation) -> Result<()>;
    /// Mounts a prepared partition.
    fn mount(&mut self, purpose: Purpose, device: &Path, target: &Path) -> Result<Access>;
    /// Mounts a file system in memory in place of a partition.
    fn mount_memory(&mut self, target: &Path) -> Result<()>;
    /// Grows a mounted file system.
    fn grow(&mut self, target: &Path, blocks: u64) -> Result<()>;
    /// Tells whoever watches the console.
    fn say(&mut self, line: &str);
}

/// Takes all steps, whatever fails on the way: a machine with half of its
/// storage can at least be asked what is wrong. Returns what went wrong.
pub fn execute(actions: &[Action], machine: &mut dyn Machine) -> Vec<String> {
    let mut problems = Vec::new();
    for action in actions {
        let result = match action {
            Action::Mount(mount) => mount_volume(mount, machine),
            other => machine.act(other),
        };
        if let Err(error) = result {
            let problem = format!("{error:#}");
            machine.say(&problem);
            problems.push(problem);
        }
    }
    problems
}

fn mount_volume(mount: &Mount, machine: &mut dyn Machine) -> Result<()> {
    let name = mount.purpose.name();
    let mut failures: Vec<String> = Vec::new();
    if let Some(device) = &mount.device {
        for attempt in &mount.attempts {
            match attempt {
                Preparation::None => {}
                Preparation::Repair => {
                    machine.say(&format!(
                        "repairing the {name}, which cannot be used as it is"
                    ));
                }
                Preparation::Make(why) => {
                    machine.say(&format!("making the file system of the {name} anew: {why}"));
                }
            }
            let result = machine
                .prepare(mount.purpose, device, attempt)
                .and_then(|()| machine.mount(mount.purpose, device, &mount.target));
            match result {
                Ok(Access::ReadOnly) => return read_only(mount, machine),
                Ok(Access::Full) => {
                    let made = matches!(attempt, Preparation::Make(_));
                    return match mount.grow_to {
                        Some(blocks) if !made => machine.grow(&mount.target, blocks),
                        _ => Ok(()),
                    };
                }
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
    }
    machine.mount_memory(&mount.target)?;
    let why = match (&mount.device, failures.is_empty()) {
        (None, _) => "there is none that can be read".to_owned(),
        (Some(device), true) => format!("{} holds something that is not ours", device.display()),
        (Some(_), false) => failures.join("; then "),
    };
    bail!("the {name} cannot be used, what is written is lost at reboot: {why}")
}

/// What can be read of a partition is worth more than a new one: the machine keeps the
/// settings that it has. Where everything is written to, that does not help.
fn read_only(mount: &Mount, machine: &mut dyn Machine) -> Result<()> {
    let name = mount.purpose.name();
    match mount.purpose {
        Purpose::State => bail!("the {name} can only be read, nothing in it can be changed"),
        Purpose::Data => {
            machine.mount_memory(&mount.target)?;
            bail!("the {name} can only be read, what is written is lost at reboot")
        }
    }
}

/// The machine that this program runs on.
pub struct Host;

impl Machine for Host {
    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Mount(_) => unreachable!("mounts have methods of their own"),
            Action::WriteTable { disk, table } => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(disk)
                    .with_context(|| format!("opening {}", disk.display()))?;
                gpt::write(&file, table)
                    .with_context(|| format!("growing the partition table of {}", disk.display()))
            }
            Action::ResizePartition {
                disk,
                number,
                start,
                length,
            } => {
                let file =
                    File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
                sys::resize_partition(&file, *number, *start, *length)
            }
            Action::MountMemory { target } => mount_memory(
                target,
                MsFlags::MS_NOEXEC,
                "mode=1777,size=50%,nr_inodes=100k",
            ),
            Action::Folder { path, mode, label } => make_folder(path, *mode, label),
            Action::Link { path, target } => match std::os::unix::fs::symlink(target, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(error).with_context(|| format!("making the link {}", path.display()))
                }
                _ => Ok(()),
            },
            Action::Bind { source, target } => bind(source, target),
        }
    }

    fn prepare(&mut self, purpose: Purpose, device: &Path, how: &Preparation) -> Result<()> {
        match how {
            Preparation::None => Ok(()),
            Preparation::Repair => check(device, "-p").or_else(|_| check(device, "-y")),
            Preparation::Make(_) => make_file_system(purpose, device),
        }
    }

    fn mount(&mut self, purpose: Purpose, device: &Path, target: &Path) -> Result<Access> {
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        if purpose == Purpose::State {
            flags |= MsFlags::MS_NOEXEC;
        }
        let options = match purpose {
            Purpose::State => "errors=remount-ro".to_string(),
            Purpose::Data => format!("errors=remount-ro,resuid={KEEPER},resgid={KEEPER}"),
        };
        mount(
            Some(device),
            target,
            Some("ext4"),
            flags,
            Some(options.as_str()),
        )
        .with_context(|| format!("mounting {} at {}", device.display(), target.display()))?;
        let mounted = statvfs(target)
            .with_context(|| format!("asking what {} allows", target.display()))?
            .flags();
        Ok(match mounted.contains(FsFlags::ST_RDONLY) {
            true => Access::ReadOnly,
            false => Access::Full,
        })
    }

    fn mount_memory(&mut self, target: &Path) -> Result<()> {
        mount_memory(target, MsFlags::empty(), "mode=755,size=50%")
    }

    fn grow(&mut self, target: &Path, blocks: u64) -> Result<()> {
        sys::grow_ext4(target, blocks)
    }

    fn say(&mut self, line: &str) {
        sysutil::console::say(line);
    }
}

/// Number of the user and of the group, `disk-reserve`, for whom the last percent of the data partition is
/// kept, instead of root, who may be in a pod. No pod can have it: kubelet takes numbers up to
/// 2³¹ − 1. The host writes there by its capability `CAP_SYS_RESOURCE`, which counts for
/// nothing in an overlay; the runtime of host containers, by this group.
const KEEPER: u32 = u32::MAX - 1;

/// Runs e2fsck. Its exit status is a sum of bits, of which 1 and 2 mean that
/// everything is well now.
fn check(device: &Path, mode: &str) -> Result<()> {
    let mut command = Command::new("/usr/sbin/e2fsck");
    command.arg(mode).arg(device);
    let output = sysutil::process::output(&mut command)?;
    match output.status.code() {
        Some(status) if status < 4 => Ok(()),
        _ => bail!(
            "checking {} failed ({}): {}",
            device.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        ),
    }
}

/// Makes an ext4. The first sector of the state partition is the boot record,
/// which counts failed boots across whatever happens to the file system;
/// mke2fs clears it.
fn make_file_system(purpose: Purpose, device: &Path) -> Result<()> {
    let mut record = [0; BOOT_RECORD_SIZE];
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .with_context(|| format!("opening {}", device.display()))?;
    file.read_exact_at(&mut record, 0)
        .context("reading the boot record")?;
    sysutil::process::run(
        Command::new("/usr/sbin/mke2fs")
            .args(make_arguments(purpose))
            .arg(device),
    )?;
    if purpose == Purpose::State {
        file.write_all_at(&record, 0)
            .and_then(|()| file.sync_all())
            .context("writing the boot record back")?;
    }
    Ok(())
}

/// Little is written when the file system is made: inode tables and journal
/// are cleared by the kernel later, and nothing is discarded.
///
/// State has blocks of 1 KiB. Larger ones would put boot record and superblock
/// into one block, the journal would hold copies of it, and the replay after a
/// crash would bring an old count of failed boots back.
fn make_arguments(purpose: Purpose) -> Vec<&'static str> {
    let mut arguments = vec!["-q", "-F", "-t", "ext4", "-L", purpose.role().name()];
    arguments.extend(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    arguments.extend(match purpose {
        Purpose::State => ["-b", "1024", "-m", "0", "-J", "size=4"],
        Purpose::Data => ["-b", "4096", "-m", "1", "-J", "size=16"],
    });
    arguments
}

fn mount_memory(target: &Path, flags: MsFlags, options: &str) -> Result<()> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .with_context(|| format!("mounting a file system in memory at {}", target.display()))
}

/// Shows a folder at a second place. Both ends are shared, so that containers see mounts
/// of the host there, and the host theirs; but not with each other, or every mount below
/// one would show below the other, too.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(
        Some(source),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .and_then(|()| {
        mount(
            none,
            target,
            none,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            none,
        )
    })
    .and_then(|()| {
        mount(
            none,
            target,
            none,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            none,
        )
    })
    .with_context(|| format!("showing {} at {}", source.display(), target.display()))
}

/// Makes a folder and its parents, or corrects it.
pub fn make_folder(path: &Path, mode: u32, label: &str) -> Result<()> {
    std::fs::create_dir_all(path)
        .and_then(|()| {
            let permissions = std::fs::metadata(path)?.permissions();
            if permissions.mode() & 0o7777 == mode {
                return Ok(());
            }
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        })
        .with_context(|| format!("making the folder {}", path.display()))?;
    // Writing it again would be a write to the disk in every boot.
    match sys::selinux_label(path) {
        Ok(Some(current)) if current == label => Ok(()),
        _ => sys::set_selinux_label(path, label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails what it is told to, and writes down what it was asked.
    #[derive(Default)]
    struct Recorder {
        failing: Vec<&'static str>,
        read_only: bool,
        done: Vec<String>,
        said: Vec<String>,
    }

    impl Recorder {
        fn record(&mut self, what: String) -> Result<()> {
            let fails = self
                .failing
                .iter()
                .position(|failing| what.starts_with(failing));
            self.done.push(what);
            match fails {
                Some(index) => bail!("{} failed", self.failing.remove(index)),
                None => Ok(()),
            }
        }
    }

    impl Machine for Recorder {
        fn act(&mut self, action: &Action) -> Result<()> {
            match action {
                Action::Folder { path, .. } => self.record(format!("folder {}", path.display())),
                other => self.record(format!("{other:?}")),
            }
        }
        fn prepare(&mut self, _: Purpose, _: &Path, how: &Preparation) -> Result<()> {
            self.record(match how {
                Preparation::None => return Ok(()),
                Preparation::Repair => "repair".to_owned(),
                Preparation::Make(_) => "make".to_owned(),
            })
        }
        fn mount(&mut self, _: Purpose, device: &Path, _: &Path) -> Result<Access> {
            self.record(format!("mount {}", device.display()))?;
            Ok(match self.read_only {
                true => Access::ReadOnly,
                false => Access::Full,
            })
        }
        fn mount_memory(&mut self, target: &Path) -> Result<()> {
            self.record(format!("memory {}", target.display()))
        }
        fn grow(&mut self, _: &Path, blocks: u64) -> Result<()> {
            self.record(format!("grow {blocks}"))
        }
        fn say(&mut self, line: &str) {
            self.said.push(line.to_owned());
        }
    }

    fn check(
        attempts: &[Preparation],
        failing: &[&'static str],
        expected: &[&str],
    ) -> (Vec<String>, Vec<String>) {
        let mount = Mount {
            purpose: Purpose::State,
            device: Some("/dev/x6".into()),
            target: "/t".into(),
            attempts: attempts.to_vec(),
            grow_to: Some(9),
        };
        let mut machine = Recorder {
            failing: failing.to_vec(),
            ..Recorder::default()
        };
        let problems = execute(&[Action::Mount(mount)], &mut machine);
        assert_eq!(machine.done, expected);
        (problems, machine.said)
    }

    #[test]
    fn attempts_follow_each_other_until_one_works() {
        let make = Preparation::Make("broken".to_owned());
        let all = [Preparation::None, Preparation::Repair, make.clone()];
        check(&all, &[], &["mount /dev/x6", "grow 9"]);
        check(
            &all,
            &["mount"],
            &["mount /dev/x6", "repair", "mount /dev/x6", "grow 9"],
        );
        let (problems, said) = check(
            &all,
            &["mount", "repair"],
            &["mount /dev/x6", "repair", "make", "mount /dev/x6"],
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            said.last().map(String::as_str),
            Some("making the file system of the state partition anew: broken")
        );
        check(&[make], &[], &["make", "mount /dev/x6"]);
    }

    #[test]
    fn memory_is_the_last_resort_and_is_told() {
        let (problems, said) = check(
            &[Preparation::None, Preparation::Repair],
            &["mount", "repair"],
            &["mount /dev/x6", "repair", "memory /t"],
        );
        let expected = "the state partition cannot be used, what is written is lost at reboot: \
                        mount failed; then repair failed";
        assert_eq!(problems, [expected]);
        assert_eq!(said.last().map(String::as_str), Some(expected));

        let (problems, _) = check(&[], &[], &["memory /t"]);
        assert!(problems[0].contains("/dev/x6 holds something that is not ours"));
    }

    #[test]
    fn what_can_only_be_read_is_not_made_again() {
        let make = Preparation::Make("broken".to_owned());
        for (purpose, expected) in [
            (Purpose::State, &["mount /dev/x6"][..]),
            (Purpose::Data, &["mount /dev/x6", "memory /t"]),
        ] {
            let mount = Mount {
                purpose,
                device: Some("/dev/x6".into()),
                target: "/t".into(),
                attempts: vec![Preparation::None, make.clone()],
                grow_to: Some(9),
            };
            let mut machine = Recorder {
                read_only: true,
                ..Recorder::default()
            };
            let problems = execute(&[Action::Mount(mount)], &mut machine);
            assert_eq!(machine.done, expected);
            assert!(problems[0].contains("can only be read"), "{problems:?}");
        }
    }

    #[test]
    fn a_failed_step_does_not_keep_the_others_back() {
        let folder = |path: &str| Action::Folder {
            path: path.into(),
            mode: 0o755,
            label: "",
        };
        let mut machine = Recorder {
            failing: vec!["folder /a"],
            ..Recorder::default()
        };
        let problems = execute(&[folder("/a"), folder("/b")], &mut machine);
        assert_eq!(machine.done, ["folder /a", "folder /b"]);
        assert_eq!(problems, ["folder /a failed"]);
    }

    #[test]
    fn folders_get_their_mode_even_when_they_exist() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("a/b");
        std::fs::create_dir_all(&path).expect("folder");
        // Without the right to set labels only that part fails.
        let _ = make_folder(&path, 0o1777, "system_u:object_r:local_t:s0");
        let mode = std::fs::metadata(&path).expect("stat").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o1777);
    }
}
