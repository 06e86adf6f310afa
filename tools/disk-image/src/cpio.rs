//! The initrd: an archive in the kernel's `newc` form.

use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// A file or folder of the initrd.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content; `None` for a folder.
    pub content: Option<Vec<u8>>,
}

impl Entry {
    /// A file.
    pub fn file(path: &str, mode: u32, content: Vec<u8>) -> Self {
        Self {
            path: path.to_string(),
            mode,
            content: Some(content),
        }
    }

    /// A folder.
    pub fn folder(path: &str, mode: u32) -> Self {
        Self {
            path: path.to_string(),
            mode,
            content: None,
        }
    }
}

const TYPE_FILE: u32 = 0o100_000;
const TYPE_FOLDER: u32 = 0o040_000;

/// The archive, not compressed: what is worth compressing in it is compressed
/// already. Folders that hold an entry are added where they are missing. Programs come
/// last: they change more often than modules do, and what precedes them keeps its place, so
/// that an update has less to fetch.
pub fn write(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut sorted: BTreeMap<&str, (u32, Option<&[u8]>)> = BTreeMap::new();
    for entry in entries {
        let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        if entry.path.split('/').any(is_bad) {
            bail!("{:?} is not a path in the initrd", entry.path);
        }
        if sorted
            .insert(&entry.path, (entry.mode, entry.content.as_deref()))
            .is_some()
        {
            bail!("the initrd has two files at /{}", entry.path);
        }
    }
    for entry in entries {
        for (end, _) in entry.path.match_indices('/') {
            sorted.entry(&entry.path[..end]).or_insert((0o755, None));
        }
    }
    let (programs, others): (Vec<_>, Vec<_>) = (sorted.into_iter())
        .partition(|(_, (mode, content))| content.is_some() && mode & 0o111 != 0);
    let mut archive = Vec::new();
    for (number, (path, (mode, content))) in (1..).zip(others.into_iter().chain(programs)) {
        let kind = if content.is_some() {
            TYPE_FILE
        } else {
            TYPE_FOLDER
        };
        append(
            &mut archive,
            number,
            path,
            kind | mode,
            content.unwrap_or_default(),
        )?;
    }
    append(&mut archive, 0, "TRAILER!!!", 0, &[])?;
    Ok(archive)
}

fn append(archive: &mut Vec<u8>, inode: u32, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let Ok(size) = u32::try_from(content.len()) else {
        bail!("/{path} is too large for an initrd");
    };
    let links = if mode & TYPE_FOLDER != 0 { 2 } else { 1 };
    archive.extend(b"070701");
    // inode, mode, owner, group, links, time, size, device ×2, device it is ×2,
    // length of the name with its end, checksum
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        size,
        0,
        0,
        0,
        0,
        path.len() as u32 + 1,
        0,
    ];
    for field in fields {
        archive.extend(format!("{field:08X}").bytes());
    }
    archive.extend(path.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        let archive = write(&[Entry::file("init", 0o755, b"hello".to_vec())]).unwrap();
        let expected = concat!(
            "070701",
            "00000001",
            "000081ED",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000005",
            "00000000",
            "init\0\0",
            "hello\0\0\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000B",
            "00000000",
            "TRAILER!!!\0\0\0\0",
        );
        assert_eq!(String::from_utf8(archive).unwrap(), expected);
    }

    #[test]
    fn folders_come_before_what_they_hold_and_order_does_not_show() {
        let mut entries = vec![
            Entry::file("modules/order", 0o644, vec![]),
            Entry::folder("modules", 0o700),
            Entry::file("a/b/c", 0o644, vec![1]),
        ];
        let first = write(&entries).unwrap();
        entries.reverse();
        assert_eq!(first, write(&entries).unwrap());
        let places: Vec<_> = ["a\0", "a/b\0", "a/b/c\0", "modules\0", "modules/order\0"]
            .iter()
            .map(|name| {
                first
                    .windows(name.len())
                    .position(|bytes| bytes == name.as_bytes())
            })
            .collect();
        assert!(places.iter().all(Option::is_some));
        assert!(places.is_sorted());
        assert!(
            first.windows(8).any(|field| field == b"000041C0"),
            "the mode given for modules"
        );
    }

    #[test]
    fn another_program_leaves_the_other_files_where_they_are() {
        let archive = |program: &[u8]| {
            let entries = [
                Entry::file("a/init", 0o755, program.to_vec()),
                Entry::file("modules/x", 0o644, vec![7; 100]),
            ];
            write(&entries).unwrap()
        };
        let (short, long) = (archive(b"short"), archive(&[1; 333]));
        let at = |archive: &[u8]| archive.windows(100).position(|bytes| bytes == [7; 100]);
        assert!(at(&short).is_some());
        assert_eq!(at(&short), at(&long));
    }

    #[test]
    fn senseless_entries_are_refused() {
        let file = |path: &str| Entry::file(path, 0o644, vec![]);
        for entries in [
            vec![file("/init")],
            vec![file("a/../b")],
            vec![file("a"), file("a")],
        ] {
            assert!(write(&entries).is_err());
        }
    }
}
