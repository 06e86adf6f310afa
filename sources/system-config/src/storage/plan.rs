//! What has to be done to the disk, decided from facts alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use boot_slots::gpt::{SECTOR_SIZE, Table};
use boot_slots::layout::{ALIGNMENT, Architecture, Role, find};

use super::ext4::Content;

/// Where the data partition is mounted.
pub const DATA_MOUNT: &str = "/local";
/// Where the state partition is mounted.
pub const STATE_MOUNT: &str = "/var/lib/bulkhead";

/// What is known before anything is changed.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The disk that the root lies on, unless it could not be read.
    pub disk: Option<Disk>,
    /// The state partition.
    pub state: Option<Volume>,
    /// The data partition of that disk.
    pub data: Option<Volume>,
    /// A volume that takes the place of the data partition.
    pub data_volume: Option<Volume>,
    /// Where something is mounted already.
    pub mounted: BTreeSet<PathBuf>,
}

/// The disk of the running system.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its device node.
    pub device: PathBuf,
    /// Its partition table.
    pub table: Table,
    /// Its size.
    pub sectors: u64,
}

/// A partition that gets a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its device node.
    pub device: PathBuf,
    /// Its size in bytes, as the kernel knows it.
    pub size: u64,
    /// What it holds.
    pub content: Content,
}

/// A disk that the root does not lie on, and that is not one of the machine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherDisk {
    /// The disk as a whole.
    pub volume: Volume,
    /// The name that it was attached under, where the platform gives one.
    pub name: Option<String>,
    /// It holds the data of a host.
    pub is_data: bool,
}

/// The names under which EC2's launchers attach a node's data volume.
const DATA_VOLUME_NAMES: [&str; 2] = ["xvdb", "sdb"];

/// The disk that is a host's data volume, if there is one; an error says why a disk that
/// could be is not.
///
/// Where disks have names, the name decides: no other volume is taken, whatever a pod has
/// written to it. Elsewhere it is the disk that holds data of a host, or the only blank
/// one.
pub fn choose_data_volume(disks: &[OtherDisk]) -> Result<Option<&Volume>, String> {
    let has_names = disks.iter().any(|disk| disk.name.is_some());
    let among = disks.iter().filter(|disk| match &disk.name {
        Some(name) => DATA_VOLUME_NAMES.contains(&name.as_str()),
        None => !has_names,
    });
    let (data, others): (Vec<_>, Vec<_>) = among.partition(|disk| disk.is_data);
    let (blank, foreign): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|disk| disk.volume.content == Content::Blank);
    match (&data[..], &blank[..], &foreign[..]) {
        ([disk], ..) | ([], [disk], _) => Ok(Some(&disk.volume)),
        ([], [], []) => Ok(None),
        ([], [], _) => Err(format!(
            "{} could be the data volume, but holds {}, which is left alone",
            names(&foreign),
            what(&foreign[0].volume.content)
        )),
        ([], several, _) => Err(format!(
            "{} are all blank, so that none is taken for the data volume",
            names(several)
        )),
        (several, ..) => Err(format!(
            "{} all hold data of a host, so that none is taken for the data volume",
            names(several)
        )),
    }
}

fn names(disks: &[&OtherDisk]) -> String {
    let names = disks
        .iter()
        .map(|disk| disk.volume.device.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}

/// What the console calls the content of a disk that is not a host's data.
fn what(content: &Content) -> &'static str {
    match content {
        Content::Blank => "nothing",
        Content::Ext4(_) | Content::DamagedExt4(_) => "an ext4 file system",
        Content::Foreign(what) => what,
        Content::Unknown => "something unknown",
    }
}

/// A step, to be taken in the order of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write a partition table to a disk.
    WriteTable { disk: PathBuf, table: Box<Table> },
    /// Tell the kernel that a partition has another size.
    ResizePartition {
        disk: PathBuf,
        number: u32,
        start: u64,
        length: u64,
    },
    /// Mount a volume; a file system in memory when nothing else works.
    Mount(Mount),
    /// Mount a file system in memory.
    MountMemory { target: PathBuf },
    /// Make a folder, or give it the mode and label that it should have.
    Folder {
        path: PathBuf,
        mode: u32,
        label: &'static str,
    },
    /// Make a symbolic link.
    Link { path: PathBuf, target: &'static str },
    /// Show a folder at a second place, where mounts made on one side appear
    /// on every copy (containers rely on it).
    Bind { source: PathBuf, target: PathBuf },
}

/// How a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which volume.
    pub purpose: Purpose,
    /// The partition, when there is one.
    pub device: Option<PathBuf>,
    /// Where.
    pub target: PathBuf,
    /// What to try before mounting, one after the other until it works.
    pub attempts: Vec<Preparation>,
    /// How many blocks the file system can have, when that is more than it has.
    pub grow_to: Option<u64>,
}

/// The two partitions whose content is the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Settings and identity. Small; made again rather than missed.
    State,
    /// Everything else. Never made again over something that is not blank.
    Data,
}

impl Purpose {
    /// What the console calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state partition",
            Self::Data => "data partition",
        }
    }

    /// The partition of the layout.
    pub fn role(self) -> Role {
        match self {
            Self::State => Role::State,
            Self::Data => Role::Data,
        }
    }
}

/// What is done to a partition before it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparation {
    /// Nothing.
    None,
    /// Repair everything, at the price of what is beyond repair.
    Repair,
    /// Make a new file system, because of what the text says.
    Make(String),
}

/// The steps from what is to what should be. Nothing is left to do when it is
/// computed again afterwards, but for folders and links, which are cheap.
pub fn plan(facts: &Facts) -> Vec<Action> {
    let mut actions = Vec::new();
    let (data, data_size) = match &facts.data_volume {
        Some(volume) => (Some(volume), Some(volume.size)),
        None => (
            facts.data.as_ref(),
            grow_data_partition(facts, &mut actions),
        ),
    };

    let mounted = |path: &str| facts.mounted.contains(Path::new(path));
    if !mounted("/tmp") {
        actions.push(Action::MountMemory {
            target: "/tmp".into(),
        });
    }
    if !mounted(DATA_MOUNT) {
        actions.push(mount(Purpose::Data, data, DATA_MOUNT, data_size));
    }
    actions.extend(skeleton());
    for name in ["var", "opt", "mnt"] {
        let target = Path::new("/").join(name);
        if !facts.mounted.contains(&target) {
            actions.push(Action::Bind {
                source: Path::new(DATA_MOUNT).join(name),
                target,
            });
        }
    }
    if !mounted(STATE_MOUNT) {
        let size = facts.state.as_ref().map(|volume| volume.size);
        actions.push(mount(
            Purpose::State,
            facts.state.as_ref(),
            STATE_MOUNT,
            size,
        ));
    }
    actions.push(Action::Folder {
        path: STATE_MOUNT.into(),
        mode: 0o755,
        label: STATE_LABEL,
    });
    actions
}

/// Extends the data partition to the end of its disk, when it is the last one
/// there. Returns the size in bytes that it has afterwards.
fn grow_data_partition(facts: &Facts, actions: &mut Vec<Action>) -> Option<u64> {
    let volume = facts.data.as_ref()?;
    let Some(disk) = &facts.disk else {
        return Some(volume.size);
    };
    let data_of = |table: &Table| find(table, Role::Data, Architecture::current()).cloned();
    let Some(current) = data_of(&disk.table) else {
        return Some(volume.size);
    };
    let is_last = disk
        .table
        .partitions
        .iter()
        .all(|other| other.last_lba <= current.last_lba);
    let grown = disk
        .table
        .grown(disk.sectors, ALIGNMENT)
        .filter(|_| is_last);
    let partition = grown.as_ref().and_then(data_of).unwrap_or(current);
    if let Some(table) = grown {
        actions.push(Action::WriteTable {
            disk: disk.device.clone(),
            table: Box::new(table),
        });
    }
    // Also when only the kernel has yet to learn of it.
    if partition.size() > volume.size {
        actions.push(Action::ResizePartition {
            disk: disk.device.clone(),
            number: partition.number,
            start: partition.first_lba * SECTOR_SIZE,
            length: partition.size(),
        });
    }
    Some(partition.size())
}

fn mount(purpose: Purpose, volume: Option<&Volume>, target: &str, size: Option<u64>) -> Action {
    let grow_to = match (volume.map(|volume| &volume.content), size) {
        (Some(Content::Ext4(geometry)), Some(size)) => {
            let room = size / geometry.block_size;
            (room > geometry.blocks).then_some(room)
        }
        _ => None,
    };
    Action::Mount(Mount {
        purpose,
        device: volume.map(|volume| volume.device.clone()),
        target: target.into(),
        attempts: volume
            .map(|volume| attempts(purpose, &volume.content))
            .unwrap_or_default(),
        grow_to,
    })
}

/// What is tried, in turn, to get a partition mounted. State is worth a repair,
/// and made again when that fails, for a node without identity is better than
/// none. Data may be somebody's: what is there is repaired if it is ours, and
/// otherwise left alone.
fn attempts(purpose: Purpose, content: &Content) -> Vec<Preparation> {
    use Preparation::{Make, None, Repair};
    let mut attempts = match content {
        Content::Blank => return vec![Make("it is blank".to_owned())],
        Content::Ext4(geometry) if geometry.has_errors => vec![Repair],
        Content::Ext4(_) => vec![None, Repair],
        Content::DamagedExt4(_) => vec![Repair],
        Content::Foreign(_) | Content::Unknown => vec![],
    };
    if purpose == Purpose::State {
        attempts.push(Make(match content {
            Content::Foreign(name) => format!("it holds {name}"),
            Content::Unknown => "it holds no file system".to_owned(),
            Content::DamagedExt4(flaw) => format!("its file system is broken: {flaw}"),
            Content::Blank | Content::Ext4(_) => "its file system is broken".to_owned(),
        }));
    }
    attempts
}

const DATA_LABEL: &str = "system_u:object_r:var_t:s0";
const LOG_LABEL: &str = "system_u:object_r:log_t:s0";
const STATE_LABEL: &str = "system_u:object_r:state_t:s0";
const HOST_CONTAINER_LABEL: &str = "system_u:object_r:host_container_file_t:s0";
const SUPPORT_LABEL: &str = "system_u:object_r:support_t:s0";

/// The folders that everything else expects on the data partition. Files made
/// in them inherit their label, so the few that differ are enough.
fn skeleton() -> Vec<Action> {
    const FOLDERS: [(&str, u32, &str); 17] = [
        ("", 0o755, DATA_LABEL),
        ("host-containers", 0o700, HOST_CONTAINER_LABEL),
        ("bootstrap-containers", 0o700, HOST_CONTAINER_LABEL),
        ("mnt", 0o755, DATA_LABEL),
        ("opt", 0o755, DATA_LABEL),
        ("var", 0o755, DATA_LABEL),
        ("var/cache", 0o755, DATA_LABEL),
        ("var/empty", 0o755, DATA_LABEL),
        ("var/lib", 0o755, DATA_LABEL),
        ("var/lib/bulkhead", 0o755, STATE_LABEL),
        ("var/lib/private", 0o700, DATA_LABEL),
        ("var/lib/systemd", 0o755, DATA_LABEL),
        ("var/log", 0o755, LOG_LABEL),
        ("var/log/journal", 0o755, LOG_LABEL),
        ("var/log/support", 0o700, SUPPORT_LABEL),
        ("var/spool", 0o755, DATA_LABEL),
        ("var/tmp", 0o1777, DATA_LABEL),
    ];
    const LINKS: [(&str, &str); 3] = [
        ("var/lib/bottlerocket", "bulkhead"),
        ("var/lock", "/run/lock"),
        ("var/run", "/run"),
    ];
    let below = |path: &str| Path::new(DATA_MOUNT).join(path);
    let folders = FOLDERS
        .into_iter()
        .map(|(path, mode, label)| Action::Folder {
            path: below(path),
            mode,
            label,
        });
    let links = LINKS.into_iter().map(|(path, target)| Action::Link {
        path: below(path),
        target,
    });
    folders.chain(links).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ext4::{self, Geometry};
    use super::*;
    use boot_slots::layout::{DATA_SIZE_MIN, STATE_SIZE, fresh_table};

    const MIB: u64 = 1024 * 1024;

    fn volume(device: &str, size: u64, content: Content) -> Volume {
        Volume {
            device: device.into(),
            size,
            content,
        }
    }

    fn fresh_facts() -> Facts {
        let table = fresh_table(Architecture::current(), DATA_SIZE_MIN);
        Facts {
            disk: Some(Disk {
                device: "/dev/vda".into(),
                sectors: table.disk_sectors(),
                table,
            }),
            state: Some(volume("/dev/vda6", STATE_SIZE, Content::Blank)),
            data: Some(volume("/dev/vda7", DATA_SIZE_MIN, Content::Blank)),
            data_volume: None,
            mounted: BTreeSet::new(),
        }
    }

    #[test]
    fn a_data_volume_takes_the_place_of_the_partition_and_grows_as_a_whole() {
        let mut facts = fresh_facts();
        facts.disk.as_mut().expect("disk").sectors *= 2;
        for (content, attempts, grow_to) in [
            (
                Content::Blank,
                vec![Preparation::Make("it is blank".to_owned())],
                None,
            ),
            (
                sound(1000),
                vec![Preparation::None, Preparation::Repair],
                Some(20 * MIB / 4096),
            ),
        ] {
            facts.data_volume = Some(volume("/dev/vdb", 20 * MIB, content));
            let actions = plan(&facts);
            let mounts = mounts(&actions);
            assert_eq!(mounts[0].device, Some("/dev/vdb".into()));
            assert_eq!(mounts[0].target, Path::new(DATA_MOUNT));
            assert_eq!(mounts[0].attempts, attempts);
            assert_eq!(mounts[0].grow_to, grow_to);
            let grows = |action: &Action| matches!(action, Action::WriteTable { .. });
            assert!(
                !actions.iter().any(grows),
                "the first disk is left as it is"
            );
        }
    }

    #[test]
    fn the_data_volume_is_the_one_that_is_meant() {
        let disk = |device: &str, name: Option<&str>, content: Content, is_data: bool| OtherDisk {
            volume: volume(device, 20 * MIB, content),
            name: name.map(str::to_owned),
            is_data,
        };
        let blank = |device, name| disk(device, name, Content::Blank, false);
        let data = |device, name| disk(device, name, sound(9), true);
        let foreign = |device, name| disk(device, name, Content::Foreign("swap space"), false);
        let check = |disks: &[OtherDisk], expected: Result<Option<&str>, &str>| match (
            choose_data_volume(disks),
            expected,
        ) {
            (Ok(found), Ok(expected)) => {
                let found = found.map(|volume| volume.device.to_str().expect("text"));
                assert_eq!(found, expected, "{disks:?}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, _) => panic!("{disks:?}: {found:?}"),
        };
        check(&[], Ok(None));
        // By content, where disks have no names.
        check(&[blank("/dev/b", None)], Ok(Some("/dev/b")));
        check(&[data("/dev/b", None)], Ok(Some("/dev/b")));
        let both = [blank("/dev/b", None), data("/dev/c", None)];
        check(&both, Ok(Some("/dev/c")));
        let both = [foreign("/dev/b", None), blank("/dev/c", None)];
        check(&both, Ok(Some("/dev/c")));
        let both = [blank("/dev/b", None), blank("/dev/c", None)];
        check(&both, Err("/dev/b, /dev/c are all blank"));
        let both = [data("/dev/b", None), data("/dev/c", None)];
        check(&both, Err("/dev/b, /dev/c all hold data"));
        check(
            &[foreign("/dev/b", None)],
            Err("/dev/b could be the data volume, but holds swap space"),
        );
        check(
            &[disk("/dev/b", None, sound(9), false)],
            Err("holds an ext4 file system, which is left alone"),
        );
        // By name, where they have: what a pod wrote to its volume does not count.
        let all = [
            data("/dev/b", Some("xvdaa")),
            blank("/dev/c", Some("xvdc")),
            blank("/dev/d", Some("xvdb")),
        ];
        check(&all, Ok(Some("/dev/d")));
        check(&all[..2], Ok(None));
        check(&[blank("/dev/b", Some("sdb"))], Ok(Some("/dev/b")));
        check(&[foreign("/dev/b", Some("xvdb"))], Err("holds swap space"));
        let unnamed = [data("/dev/b", Some("xvdaa")), blank("/dev/c", None)];
        check(&unnamed, Ok(None));
    }

    fn sound(blocks: u64) -> Content {
        Content::Ext4(Geometry {
            blocks,
            block_size: 4096,
            has_errors: false,
        })
    }

    fn mounts(actions: &[Action]) -> Vec<&Mount> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Mount(mount) => Some(mount),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_is_tried_depends_on_whose_it_is() {
        use Preparation::{Make, None, Repair};
        let make = |why: &str| Make(why.to_owned());
        let hurt = Content::Ext4(Geometry {
            blocks: 1,
            block_size: 4096,
            has_errors: true,
        });
        let damaged = Content::DamagedExt4("x");
        let foreign = Content::Foreign("y");
        for (purpose, content, expected) in [
            (Purpose::State, &Content::Blank, vec![make("it is blank")]),
            (Purpose::Data, &Content::Blank, vec![make("it is blank")]),
            (
                Purpose::State,
                &sound(1),
                vec![None, Repair, make("its file system is broken")],
            ),
            (Purpose::Data, &sound(1), vec![None, Repair]),
            (
                Purpose::State,
                &hurt,
                vec![Repair, make("its file system is broken")],
            ),
            (Purpose::Data, &hurt, vec![Repair]),
            (
                Purpose::State,
                &damaged,
                vec![Repair, make("its file system is broken: x")],
            ),
            (Purpose::Data, &damaged, vec![Repair]),
            (Purpose::State, &foreign, vec![make("it holds y")]),
            (Purpose::Data, &foreign, vec![]),
            (
                Purpose::State,
                &Content::Unknown,
                vec![make("it holds no file system")],
            ),
            (Purpose::Data, &Content::Unknown, vec![]),
        ] {
            assert_eq!(
                attempts(purpose, content),
                expected,
                "{purpose:?} {content:?}"
            );
        }
    }

    #[test]
    fn data_is_never_made_over_something() {
        for content in [
            sound(1),
            Content::DamagedExt4("x"),
            Content::Foreign("y"),
            Content::Unknown,
            ext4::examine(&ext4::example(5, true)),
        ] {
            let attempts = attempts(Purpose::Data, &content);
            assert!(
                !attempts
                    .iter()
                    .any(|attempt| matches!(attempt, Preparation::Make(_))),
                "{content:?}"
            );
        }
    }

    #[test]
    fn first_boot_makes_and_mounts_both_in_order() {
        let actions = plan(&fresh_facts());
        let found: Vec<_> = mounts(&actions)
            .iter()
            .map(|mount| {
                (
                    mount.purpose,
                    mount.target.to_string_lossy().into_owned(),
                    mount.grow_to,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (Purpose::Data, DATA_MOUNT.to_owned(), None),
                (Purpose::State, STATE_MOUNT.to_owned(), None),
            ]
        );
        let place = |wanted: &dyn Fn(&Action) -> bool| {
            actions.iter().position(wanted).expect("the step is there")
        };
        let data = place(&|a| matches!(a, Action::Mount(m) if m.purpose == Purpose::Data));
        let folder = place(
            &|a| matches!(a, Action::Folder { path, .. } if path.ends_with("var/lib/bulkhead")),
        );
        let bind =
            place(&|a| matches!(a, Action::Bind { target, .. } if target == Path::new("/var")));
        let state = place(&|a| matches!(a, Action::Mount(m) if m.purpose == Purpose::State));
        assert!(data < folder && folder < bind && bind < state);
        assert!(
            !actions
                .iter()
                .any(|a| matches!(a, Action::WriteTable { .. }))
        );
    }

    #[test]
    fn a_larger_disk_grows_table_partition_and_file_system() {
        let mut facts = fresh_facts();
        facts.disk.as_mut().expect("disk").sectors += 1024 * MIB / SECTOR_SIZE;
        facts.data = Some(volume(
            "/dev/vda7",
            DATA_SIZE_MIN,
            sound(DATA_SIZE_MIN / 4096),
        ));
        let actions = plan(&facts);
        let Action::WriteTable { table, .. } = &actions[0] else {
            panic!("{actions:?}")
        };
        let data = find(table, Role::Data, Architecture::current()).expect("data");
        assert_eq!(data.size(), DATA_SIZE_MIN + 1024 * MIB);
        assert_eq!(
            actions[1],
            Action::ResizePartition {
                disk: "/dev/vda".into(),
                number: 7,
                start: data.offset(),
                length: data.size(),
            }
        );
        assert_eq!(mounts(&actions)[0].grow_to, Some(data.size() / 4096));

        // A cut after the table was written: the kernel has read it at boot.
        let disk = facts.disk.as_mut().expect("disk");
        disk.table = (**table).clone();
        facts.data = Some(volume(
            "/dev/vda7",
            data.size(),
            sound(DATA_SIZE_MIN / 4096),
        ));
        let actions = plan(&facts);
        assert!(!actions.iter().any(|a| matches!(
            a,
            Action::WriteTable { .. } | Action::ResizePartition { .. }
        )));
        assert_eq!(mounts(&actions)[0].grow_to, Some(data.size() / 4096));
    }

    #[test]
    fn only_the_last_partition_grows() {
        let mut facts = fresh_facts();
        let disk = facts.disk.as_mut().expect("disk");
        let mut foreign = disk.table.partitions[6].clone();
        foreign.number = 8;
        foreign.name = "SOMEBODY".to_owned();
        foreign.first_lba = foreign.last_lba + 1;
        foreign.last_lba = foreign.first_lba + 2047;
        let mut partitions = disk.table.partitions.clone();
        partitions.push(foreign);
        disk.sectors += 4096 * MIB / SECTOR_SIZE;
        disk.table = Table::new(
            disk.table.disk_guid,
            disk.table.disk_sectors() + 2048,
            partitions,
        );
        assert!(!plan(&facts).iter().any(|a| matches!(
            a,
            Action::WriteTable { .. } | Action::ResizePartition { .. }
        )));
    }

    #[test]
    fn a_second_run_mounts_nothing() {
        let mut facts = fresh_facts();
        facts.mounted = ["/tmp", DATA_MOUNT, "/var", "/opt", "/mnt", STATE_MOUNT]
            .into_iter()
            .map(PathBuf::from)
            .collect();
        let actions = plan(&facts);
        assert!(
            actions
                .iter()
                .all(|a| matches!(a, Action::Folder { .. } | Action::Link { .. }))
        );
    }

    #[test]
    fn without_partitions_the_mounts_are_still_planned() {
        let facts = Facts {
            disk: None,
            state: None,
            data: None,
            data_volume: None,
            mounted: BTreeSet::new(),
        };
        let actions = plan(&facts);
        for mount in mounts(&actions) {
            assert_eq!((mount.device.as_ref(), mount.attempts.len()), (None, 0));
        }
        assert_eq!(mounts(&actions).len(), 2);
    }
}
