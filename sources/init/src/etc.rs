//! `/etc`: in memory, filled from the verified root before systemd starts.

use crate::mounts::mount_new;
use crate::outcome::Failure;
use nix::mount::MsFlags;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::Path;

/// What `/etc` is filled with, below the root.
const FACTORY: &str = "usr/share/factory/etc";
/// Files that systemd labels once it has loaded the policy: until then what is
/// made here has no label of its own.
const RELABEL: &str = "systemd/relabel-extra.d";
const RANDOM: &str = "/dev/random";

const OPTIONS: &str = "mode=0755,size=64m,nr_inodes=16k";

/// Mounts and fills `<root>/etc`, and asks for it to be labelled.
pub fn prepare(root: &Path, run: &Path, machine_id: &[u8; 16]) -> Result<(), Failure> {
    let etc = root.join("etc");
    if !etc.is_dir() {
        return Err(Failure::plain("the root has no folder /etc"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("etc", "tmpfs", &etc, flags, OPTIONS)?;
    fill(&root.join(FACTORY), &etc)?;
    write_machine_id(&etc.join("machine-id"), machine_id)?;
    request_labels(run)
}

/// A new identity: a random UUID of version 4, as systemd makes it.
pub fn new_machine_id() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    // The device waits until the kernel has gathered enough to be random.
    File::open(RANDOM)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(Failure::on("read", Path::new(RANDOM)))?;
    Ok(uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .into_bytes())
}

/// Copies a tree: folders, files and links with owners and modes.
fn fill(source: &Path, target: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(source).map_err(Failure::on("list", source))?;
    for entry in entries {
        let entry = entry.map_err(Failure::on("list", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let failed = Failure::on::<std::io::Error>("copy", &from);
        let metadata = entry.metadata().map_err(&failed)?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let link = fs::read_link(&from).map_err(&failed)?;
            symlink(link, &to).map_err(&failed)?;
        } else if kind.is_dir() {
            DirBuilder::new().mode(0o700).create(&to).map_err(&failed)?;
            fill(&from, &to)?;
        } else if kind.is_file() {
            copy_content(&from, &to).map_err(&failed)?;
        } else {
            return Err(Failure::new(
                format!("cannot copy {}", from.display()),
                "odd file type",
            ));
        }
        let made = fs::symlink_metadata(&to).map_err(&failed)?;
        if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
            lchown(&to, Some(metadata.uid()), Some(metadata.gid())).map_err(&failed)?;
        }
        // After the owner, since changing that takes some bits away.
        if !kind.is_symlink() {
            let mode = Permissions::from_mode(metadata.mode() & 0o7777);
            fs::set_permissions(&to, mode).map_err(&failed)?;
        }
    }
    Ok(())
}

/// Secrets may be among the files, so nobody else reads one before it has its mode.
fn copy_content(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    std::io::copy(&mut source, &mut target).map(|_| ())
}

fn write_machine_id(path: &Path, machine_id: &[u8; 16]) -> Result<(), Failure> {
    // The image brings an empty one for tools that look at the tree.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::on("replace", path)(error));
        }
        _ => {}
    }
    let text = format!("{}\n", uuid::Uuid::from_bytes(*machine_id).simple());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(0o444))
        })
        .map_err(Failure::on("write", path))
}

fn request_labels(run: &Path) -> Result<(), Failure> {
    let folder = run.join(RELABEL);
    let list = folder.join("etc.relabel");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&list, "/etc\n"))
        .map_err(Failure::on("write", &list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_its_modes() {
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        let from = source.path();
        fs::create_dir_all(from.join("ssl/private")).unwrap();
        fs::write(from.join("ssl/private/key"), "secret").unwrap();
        fs::write(from.join("shadow"), "root:*").unwrap();
        symlink("../usr/share/zoneinfo/UTC", from.join("localtime")).unwrap();
        for (path, mode) in [
            ("ssl/private", 0o500),
            ("ssl/private/key", 0o400),
            ("shadow", 0o640),
        ] {
            fs::set_permissions(from.join(path), Permissions::from_mode(mode)).unwrap();
        }
        fill(from, target.path()).unwrap();
        let to = target.path();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode("ssl/private"), 0o500);
        assert_eq!(mode("ssl/private/key"), 0o400);
        assert_eq!(mode("shadow"), 0o640);
        assert_eq!(
            fs::read_to_string(to.join("ssl/private/key")).unwrap(),
            "secret"
        );
        let link = fs::read_link(to.join("localtime")).unwrap();
        assert_eq!(link, Path::new("../usr/share/zoneinfo/UTC"));
        let failure = fill(&from.join("missing"), to).unwrap_err().to_string();
        assert!(failure.contains("missing"), "{failure}");
        // So that the folders can be removed again.
        for folder in [from, to] {
            fs::set_permissions(folder.join("ssl/private"), Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn machine_id_is_written_over_an_empty_one_and_cannot_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        fs::write(&path, "").unwrap();
        write_machine_id(&path, &[0xab; 16]).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", "ab".repeat(16))
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
    }

    #[test]
    fn new_machine_ids_differ_and_are_uuids() {
        let (a, b) = (new_machine_id().unwrap(), new_machine_id().unwrap());
        assert_ne!(a, b);
        assert_eq!(uuid::Uuid::from_bytes(a).get_version_num(), 4);
    }

    #[test]
    fn labels_are_asked_for() {
        let run = tempfile::tempdir().unwrap();
        request_labels(run.path()).unwrap();
        let list = run.path().join("systemd/relabel-extra.d/etc.relabel");
        assert_eq!(fs::read_to_string(list).unwrap(), "/etc\n");
    }
}
