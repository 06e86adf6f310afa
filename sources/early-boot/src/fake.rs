//! User data and discs as platforms make them, for tests here, of other crates and of whole
//! machines; no program of the host has it.

use crate::Source;
use crate::iso9660::{FLAG_FOLDER, PRIMARY, SECTOR, SUPPLEMENTARY, TERMINATOR};
use anyhow::{Result, bail};
use std::path::Path;

/// A source that holds a given document, or fails for a given reason.
pub struct Given(Result<Vec<u8>, String>);

impl Given {
    /// One that holds `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Ok(bytes.into()))
    }

    /// One that cannot be read.
    pub fn failing(reason: &str) -> Self {
        Self(Err(reason.to_string()))
    }
}

impl Source for Given {
    fn name(&self) -> &'static str {
        "test"
    }

    fn location(&self) -> String {
        "given".into()
    }

    fn read(&self, _: &Path, _: usize) -> Result<Option<Vec<u8>>> {
        match &self.0 {
            Ok(bytes) => Ok(Some(bytes.clone())),
            Err(reason) => bail!("{reason}"),
        }
    }
}

/// Which names an image has besides the plain ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// Rock Ridge's, beside the plain ones.
    pub rock_ridge: bool,
    /// Joliet's, in folders of their own.
    pub joliet: bool,
}

/// An image with the files at `paths`; every part of a path is a plain name
/// and the long name that stands for it, joined by `=`.
///
/// # Panics
///
/// If a part is not of that form.
pub fn iso9660(label: &str, names: Names, files: &[(&[&str], &[u8])]) -> Vec<u8> {
    let mut image = Image {
        bytes: vec![0; 20 * SECTOR],
    };
    let mut root = Folder::default();
    for (path, content) in files {
        let extent = image.append(content);
        root.add(path, extent);
    }
    let primary = image.folder(&root, names.rock_ridge, false);
    image.descriptor(16, PRIMARY, label, primary);
    let mut end = 17;
    if names.joliet {
        let joliet = image.folder(&root, false, true);
        image.descriptor(17, SUPPLEMENTARY, label, joliet);
        let at = 17 * SECTOR + 88;
        image.bytes[at..at + 3].copy_from_slice(b"%/E");
        end = 18;
    }
    image.bytes[end * SECTOR] = TERMINATOR;
    image.bytes[end * SECTOR + 1..end * SECTOR + 6].copy_from_slice(b"CD001");
    image.bytes
}

/// Where a file or folder lies: its first block, and its size in bytes.
#[derive(Clone, Copy)]
struct Extent {
    block: u32,
    size: u32,
}

#[derive(Default)]
struct Folder {
    files: Vec<(String, Extent)>,
    folders: Vec<(String, Folder)>,
}

impl Folder {
    fn add(&mut self, path: &[&str], extent: Extent) {
        match path {
            [] => {}
            [name] => self.files.push((name.to_string(), extent)),
            [name, rest @ ..] => {
                let at = self.folders.iter().position(|(there, _)| there == name);
                let at = at.unwrap_or_else(|| {
                    self.folders.push((name.to_string(), Folder::default()));
                    self.folders.len() - 1
                });
                self.folders[at].1.add(rest, extent);
            }
        }
    }
}

struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn append(&mut self, content: &[u8]) -> Extent {
        let block = (self.bytes.len() / SECTOR) as u32;
        self.bytes.extend_from_slice(content);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(SECTOR), 0);
        Extent {
            block,
            size: content.len() as u32,
        }
    }

    fn folder(&mut self, folder: &Folder, rock_ridge: bool, joliet: bool) -> Extent {
        let mut bytes = Vec::new();
        let mut put = |record: Vec<u8>| {
            if bytes.len() % SECTOR + record.len() > SECTOR {
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
            }
            bytes.extend(record);
        };
        let nowhere = Extent { block: 0, size: 0 };
        put(record(&[0], nowhere, true, None));
        put(record(&[1], nowhere, true, None));
        let mut children: Vec<(&str, Extent, bool)> = Vec::new();
        for (name, inner) in &folder.folders {
            children.push((name, self.folder(inner, rock_ridge, joliet), true));
        }
        for (name, extent) in &folder.files {
            children.push((name, *extent, false));
        }
        for (name, extent, is_folder) in children {
            let (plain, long) = name.split_once('=').expect("both names");
            let version = if is_folder { "" } else { ";1" };
            let name: Vec<u8> = if joliet {
                let name = format!("{long}{version}");
                name.encode_utf16().flat_map(u16::to_be_bytes).collect()
            } else {
                format!("{plain}{version}").into_bytes()
            };
            put(record(&name, extent, is_folder, rock_ridge.then_some(long)));
        }
        let size = bytes.len().next_multiple_of(SECTOR);
        bytes.resize(size, 0);
        self.append(&bytes)
    }

    fn descriptor(&mut self, sector: usize, kind: u8, label: &str, top: Extent) {
        let top = record(&[0], top, true, None);
        let sector = &mut self.bytes[sector * SECTOR..][..SECTOR];
        sector[0] = kind;
        sector[1..6].copy_from_slice(b"CD001");
        sector[6] = 1;
        sector[40..72].fill(b' ');
        sector[40..40 + label.len()].copy_from_slice(label.as_bytes());
        sector[128..130].copy_from_slice(&(SECTOR as u16).to_le_bytes());
        sector[156..190].copy_from_slice(&top);
    }
}

fn record(name: &[u8], extent: Extent, is_folder: bool, long: Option<&str>) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..6].copy_from_slice(&extent.block.to_le_bytes());
    record[10..14].copy_from_slice(&extent.size.to_le_bytes());
    record[25] = if is_folder { FLAG_FOLDER } else { 0 };
    record[32] = name.len() as u8;
    record.extend_from_slice(name);
    if record.len() % 2 == 1 {
        record.push(0);
    }
    if let Some(long) = long {
        // Another entry before it, and the name in two parts.
        record.extend_from_slice(b"TF\x05\x01\x00");
        let (start, end) = long.split_at(1);
        for (part, flags) in [(start, 1), (end, 0)] {
            record.extend_from_slice(&[b'N', b'M', 5 + part.len() as u8, 1, flags]);
            record.extend_from_slice(part.as_bytes());
        }
        if record.len() % 2 == 1 {
            record.push(0);
        }
    }
    record[0] = record.len() as u8;
    record
}
