//! The root file system as an archive, and how `mkfs.erofs` turns it into one.
//!
//! Owners, modes and SELinux labels come from the entries and never from files
//! on the workstation: an ordinary user cannot make files that belong to others,
//! and `mkfs.erofs --tar` takes labels from PAX records only.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use tar::{Builder, EntryType, Header};

/// A file, folder or link of the root file system.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path below the root, without a leading slash; the root itself is `""`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777` at most. A link's are always `0o777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// SELinux context; empty for none.
    pub label: String,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A file whose content lies on the workstation.
    File(PathBuf),
    /// A file with this content.
    Bytes(Vec<u8>),
    /// A folder.
    Dir,
    /// A symbolic link to this target.
    Symlink(String),
}

/// Longest path and target that fit into a header without a record of their own.
const SHORT: usize = 100;

/// Writes `entries` as one archive, sorted by path. Each entry's folder must be
/// among the entries, the root included, since every folder needs a label.
pub fn write<W: Write>(entries: &[Entry], output: W) -> Result<()> {
    let sorted = check(entries)?;
    let mut archive = Builder::new(output);
    for entry in sorted.values() {
        append(&mut archive, entry).with_context(|| format!("cannot archive /{}", entry.path))?;
    }
    archive
        .into_inner()
        .and_then(|mut output| output.flush())
        .context("cannot end the archive")
}

/// Arguments of `mkfs.erofs` (1.8.6) before the names of image and archive, which
/// follow in this order.
///
/// Unchanged files must keep their blocks from one image to the next, which is
/// what makes updates small: no fragments, no de-duplication, no tail packing.
/// `SOURCE_DATE_EPOCH` must be unset in the environment of the program, for it
/// would go into the superblock in spite of `-T0`.
pub fn erofs_arguments(compression: Compression) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--quiet", "--tar=f", "-T0", "-U", EROFS_UUID, "-L", "bulkhead", "-x1",
    ]
    .map(str::to_string)
    .into();
    arguments.extend(match compression {
        Compression::None => None,
        Compression::Fast => Some("-zlz4".to_string()),
        Compression::Small => Some("-zlz4hc,level=9".to_string()),
    });
    if compression != Compression::None {
        arguments.push("-C65536".to_string());
    }
    arguments
}

/// How the root file system is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// In a second; for development.
    Fast,
    /// In ten times that, 14 % smaller.
    Small,
}

/// The same for every image: images are told apart by their root hash.
const EROFS_UUID: &str = "b001b001-0000-4000-8000-726f6f746673";

fn check(entries: &[Entry]) -> Result<BTreeMap<&str, &Entry>> {
    let mut sorted = BTreeMap::new();
    for entry in entries {
        let path = entry.path.as_str();
        let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        if !path.is_empty() && path.split('/').any(is_bad) {
            bail!("{path:?} is not a path below the root of the image");
        }
        if entry.mode > 0o7777 {
            bail!(
                "/{path} has the mode {:o}, which is more than permissions",
                entry.mode
            );
        }
        if sorted.insert(path, entry).is_some() {
            bail!("the image has two files at /{path}");
        }
    }
    for entry in sorted.values() {
        if entry.path.is_empty() {
            if !matches!(entry.kind, Kind::Dir) {
                bail!("the root of the image is not a folder");
            }
            continue;
        }
        let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match sorted.get(folder).map(|entry| &entry.kind) {
            Some(Kind::Dir) => {}
            Some(_) => bail!("/{} lies in /{folder}, which is not a folder", entry.path),
            None => bail!(
                "/{} lies in /{folder}, which the image does not have",
                entry.path
            ),
        }
    }
    Ok(sorted)
}

fn append<W: Write>(archive: &mut Builder<W>, entry: &Entry) -> Result<()> {
    let path = match entry.kind {
        Kind::Dir => format!(
            "./{}{}",
            entry.path,
            if entry.path.is_empty() { "" } else { "/" }
        ),
        _ => format!("./{}", entry.path),
    };
    let target = match &entry.kind {
        Kind::Symlink(target) => target.as_str(),
        _ => "",
    };
    let mut records: Vec<(&str, &[u8])> = Vec::new();
    if path.len() > SHORT {
        records.push(("path", path.as_bytes()));
    }
    if target.len() > SHORT {
        records.push(("linkpath", target.as_bytes()));
    }
    if !entry.label.is_empty() {
        records.push(("SCHILY.xattr.security.selinux", entry.label.as_bytes()));
    }
    if !records.is_empty() {
        archive.append_pax_extensions(records)?;
    }
    let mut header = Header::new_ustar();
    copy_into(&mut header.as_old_mut().name, &path);
    copy_into(&mut header.as_old_mut().linkname, target);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(0);
    header.set_mode(entry.mode);
    let mut finish = |kind, size, content: &mut dyn Read| {
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        archive.append(&header, content)
    };
    match &entry.kind {
        Kind::Dir => finish(EntryType::Directory, 0, &mut std::io::empty())?,
        Kind::Bytes(bytes) => finish(
            EntryType::Regular,
            bytes.len() as u64,
            &mut bytes.as_slice(),
        )?,
        Kind::File(source) => {
            let context = || format!("cannot read {}", source.display());
            let size = fs::metadata(source).with_context(context)?.len();
            let file = File::open(source).with_context(context)?;
            finish(EntryType::Regular, size, &mut file.take(size)).with_context(context)?;
        }
        Kind::Symlink(_) => {
            header.set_mode(0o777);
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, std::io::empty())?;
        }
    }
    Ok(())
}

/// As much of `text` as fits; the whole of it stands in a record otherwise.
fn copy_into(field: &mut [u8], text: &str) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        let mode = if matches!(kind, Kind::Dir) {
            0o755
        } else {
            0o644
        };
        let label = format!("system_u:object_r:{}_t:s0", path.replace('/', "_"));
        Entry {
            path: path.to_string(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            label,
        }
    }

    fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        write(entries, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_written_is_read_whatever_the_order() {
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), b"from the workstation").unwrap();
        let long = format!("usr/{}", "x".repeat(180));
        let mut entries = vec![
            entry("", Kind::Dir),
            entry("usr", Kind::Dir),
            entry("usr/a", Kind::File(source.path().to_path_buf())),
            Entry {
                uid: 99,
                gid: 274,
                mode: 0o4750,
                ..entry("usr/b", Kind::Bytes(b"b".to_vec()))
            },
            Entry {
                label: String::new(),
                ..entry("lib", Kind::Symlink("usr/lib".to_string()))
            },
            entry(&long, Kind::Symlink("y".repeat(150))),
        ];
        let first = archive(&entries).unwrap();
        entries.reverse();
        assert!(
            first == archive(&entries).unwrap(),
            "the order of entries shows"
        );

        let mut read = Vec::new();
        for file in tar::Archive::new(first.as_slice()).entries().unwrap() {
            let mut file = file.unwrap();
            let label = file
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap())
                .find(|record| record.key() == Ok("SCHILY.xattr.security.selinux"))
                .map(|record| record.value().unwrap().to_string())
                .unwrap_or_default();
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            let header = file.header();
            assert_eq!(header.mtime().unwrap(), 0);
            read.push(format!(
                "{} {:o} {}:{} {:?} {content:?} {label}",
                String::from_utf8_lossy(&file.path_bytes()),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                file.link_name()
                    .unwrap()
                    .map(|target| target.display().to_string()),
            ));
        }
        let expected = [
            "./ 755 0:0 None \"\" system_u:object_r:_t:s0".to_string(),
            "./lib 777 0:0 Some(\"usr/lib\") \"\" ".to_string(),
            "./usr/ 755 0:0 None \"\" system_u:object_r:usr_t:s0".to_string(),
            "./usr/a 644 0:0 None \"from the workstation\" system_u:object_r:usr_a_t:s0"
                .to_string(),
            "./usr/b 4750 99:274 None \"b\" system_u:object_r:usr_b_t:s0".to_string(),
            format!(
                "./{long} 777 0:0 Some(\"{}\") \"\" system_u:object_r:{}_t:s0",
                "y".repeat(150),
                long.replace('/', "_")
            ),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn senseless_trees_are_refused() {
        let root = || entry("", Kind::Dir);
        let file = |path: &str| entry(path, Kind::Bytes(Vec::new()));
        for (entries, reason) in [
            (vec![root(), file("usr/a")], "does not have"),
            (vec![file("a")], "does not have"),
            (vec![root(), file("usr"), file("usr/a")], "not a folder"),
            (vec![root(), file("a"), file("a")], "two files"),
            (vec![root(), file("/a")], "not a path"),
            (vec![root(), file("a/../b")], "not a path"),
            (
                vec![
                    root(),
                    Entry {
                        mode: 0o100644,
                        ..file("a")
                    },
                ],
                "mode",
            ),
            (
                vec![root(), entry("a", Kind::File("/nonexistent".into()))],
                "cannot archive /a",
            ),
        ] {
            let error = archive(&entries).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
