//! Block devices, by what the kernel says about them in sysfs, so that nothing
//! has to wait for udev.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What is loaded when every drive that reads discs is there; see
/// `user-data-drivers.service`.
const DISC_DRIVER: &str = "sys/module/sr_mod/initstate";
/// How long that is waited for. A machine with slow controllers takes some seconds.
pub const DISC_PATIENCE: Duration = Duration::from_secs(5);
const DISC_PERIOD: Duration = Duration::from_millis(10);

/// A disk or a partition.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its node in `/dev`.
    pub node: PathBuf,
    /// Its name in the partition table.
    pub label: Option<String>,
    /// The folder in sysfs of the disk that it is a partition of.
    pub disk: Option<PathBuf>,
    /// Whether it reads discs.
    pub is_optical: bool,
    /// Whether it, or the disk that it is a partition of, is made to be plugged in
    /// and out, or its medium is.
    pub is_removable: bool,
    /// Whether nothing but the kernel's memory or other devices is behind it.
    pub is_virtual: bool,
}

/// Waits until the drives that read discs are there, which are looked for while the
/// machine boots. Whoever has none goes on after [`DISC_PATIENCE`].
pub fn await_discs(root: &Path, patience: Duration) {
    let started = Instant::now();
    let is_there = || fs::read_to_string(root.join(DISC_DRIVER)).is_ok_and(|s| s.trim() == "live");
    // A folder without modules is not a machine that boots.
    while root.join("sys/module").exists() && !is_there() {
        if started.elapsed() > patience {
            tracing::warn!("no driver for discs was loaded; none is looked at");
            return;
        }
        thread::sleep(DISC_PERIOD);
    }
}

/// All of them, by name.
pub fn devices(root: &Path) -> Vec<Device> {
    let blocks = root.join("sys/class/block");
    let mut entries: Vec<_> = fs::read_dir(&blocks)
        .map(|entries| entries.flatten().collect())
        .unwrap_or_default();
    entries.sort_by_key(|entry: &fs::DirEntry| entry.file_name());
    entries
        .iter()
        .filter_map(|entry| device(root, &entry.path()))
        .collect()
}

fn device(root: &Path, entry: &Path) -> Option<Device> {
    // A device that goes away meanwhile is none.
    let uevent = fs::read_to_string(entry.join("uevent")).ok()?;
    let field = |name: &str| {
        let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_string());
        uevent.lines().find_map(line)
    };
    let name = field("DEVNAME")?;
    let place = fs::canonicalize(entry).ok();
    let disk = match field("DEVTYPE").as_deref() {
        Some("disk") => None,
        _ => place
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_path_buf),
    };
    let is_set = |folder: &Path| {
        fs::read_to_string(folder.join("removable")).is_ok_and(|flag| flag.trim() == "1")
    };
    Some(Device {
        node: root.join("dev").join(&name),
        label: field("PARTNAME"),
        is_optical: name.starts_with("sr"),
        is_removable: is_set(disk.as_deref().unwrap_or(entry)),
        is_virtual: place.is_some_and(|place| place.starts_with(root.join("sys/devices/virtual"))),
        disk,
    })
}

/// The disks, by their folder in sysfs, below device-mapper devices, of which the
/// root is one.
pub fn disks_of_root(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/block")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_dir(entry.path().join("slaves")).ok())
        .flat_map(|slaves| slaves.flatten())
        .filter_map(|slave| Some(fs::canonicalize(slave.path()).ok()?.parent()?.to_path_buf()))
        .collect()
}

/// What the tests of several sources build their `/sys` from.
#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Adds a device to the `/sys` below `root`: `place` is its folder below
    /// `sys/devices`, `properties` are lines of its uevent file besides the name.
    pub fn add(root: &Path, place: &str, properties: &str, removable: bool) -> PathBuf {
        let name = place.rsplit('/').next().expect("a name");
        let folder = root.join("sys/devices").join(place);
        let blocks = root.join("sys/class/block");
        fs::create_dir_all(&folder).expect("a folder");
        fs::create_dir_all(&blocks).expect("a folder");
        fs::create_dir_all(root.join("dev")).expect("a folder");
        fs::write(
            folder.join("uevent"),
            format!("DEVNAME={name}\n{properties}"),
        )
        .expect("a file");
        if properties.contains("DEVTYPE=disk") {
            fs::write(
                folder.join("removable"),
                format!("{}\n", u8::from(removable)),
            )
            .expect("a file");
        }
        symlink(&folder, blocks.join(name)).expect("a link");
        folder
    }

    #[test]
    fn the_driver_of_discs_is_waited_for() {
        let root = tempfile::tempdir().expect("a folder");
        let long = Duration::from_secs(60);
        // Nothing boots here.
        await_discs(root.path(), long);
        let state = root.path().join(DISC_DRIVER);
        fs::create_dir_all(state.parent().expect("a parent")).expect("a folder");
        fs::write(&state, "coming\n").expect("a file");
        await_discs(root.path(), Duration::from_millis(20));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| await_discs(root.path(), long));
            thread::sleep(Duration::from_millis(30));
            assert!(!waiting.is_finished());
            fs::write(&state, "live\n").expect("a file");
        });
    }

    #[test]
    fn devices_are_what_sysfs_says() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        add(root, "pci0/vda", "DEVTYPE=disk\n", false);
        let part = add(
            root,
            "pci0/vda/vda1",
            "DEVTYPE=partition\nPARTNAME=x\n",
            false,
        );
        add(root, "pci0/usb/sdb", "DEVTYPE=disk\n", true);
        add(root, "pci0/usb/sdb/sdb1", "DEVTYPE=partition\n", false);
        add(root, "pci0/sr0", "DEVTYPE=disk\n", true);
        let mapper = add(root, "virtual/block/dm-0", "DEVTYPE=disk\n", false);
        fs::create_dir_all(mapper.join("slaves")).expect("a folder");
        symlink(&part, mapper.join("slaves/vda1")).expect("a link");
        let seen: Vec<String> = devices(root)
            .iter()
            .map(|device| {
                let flags = [
                    (device.is_optical, " optical"),
                    (device.is_removable, " removable"),
                    (device.is_virtual, " virtual"),
                    (device.disk.is_some(), " part"),
                ];
                let flags = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag);
                let name = device.node.strip_prefix(root).expect("below the root");
                format!("{}{}", name.display(), flags.collect::<String>())
            })
            .collect();
        let expected = [
            "dev/dm-0 virtual",
            "dev/sdb removable",
            "dev/sdb1 removable part",
            "dev/sr0 optical removable",
            "dev/vda",
            "dev/vda1 part",
        ];
        assert_eq!(seen, expected);
        let disk = fs::canonicalize(root.join("sys/devices/pci0/vda")).expect("there");
        assert_eq!(disks_of_root(root), [disk]);
        assert!(devices(Path::new("/does/not/exist")).is_empty());
    }
}
