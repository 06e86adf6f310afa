//! `.deb` archives: an `ar` archive of a control part and a data part, both
//! compressed `tar` archives.
//!
//! Paths come out as they are in a system with merged `/usr`: `lib/x` is
//! `usr/lib/x`, and so on.

use crate::Error;
use crate::control::Stanza;
use crate::index::{is_package_name, xz_decoder};
use crate::version::Version;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

/// Larger than any control file.
const MAX_CONTROL: u64 = 1 << 20;

/// What a header of a tar archive may take, long names included.
const MAX_HEADER: u64 = 1 << 20;

/// Longer than any path that a file system takes.
const MAX_PATH: usize = 4096;

/// Folders that a system with merged `/usr` has as links into `/usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Name of the package.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its architecture.
    pub architecture: String,
}

/// An archive on disk whose control part has been read.
#[derive(Clone, Debug)]
pub struct Deb {
    path: PathBuf,
    control: Control,
}

impl Deb {
    /// Opens the archive and reads its control part.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let control = read_control(open_file(path)?)?;
        Ok(Self {
            path: path.to_path_buf(),
            control,
        })
    }

    /// What the package says of itself.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Calls `visit` with each entry of the data part, in the archive's order.
    pub fn for_each_entry<E: From<Error>>(
        &self,
        visit: impl FnMut(&mut Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for_each_entry(open_file(&self.path)?, visit)
    }

    /// Unpacks the entries that `wanted` (given the normalised path) asks for
    /// below `destination`.
    ///
    /// Folders that are there stay, files that are there are replaced. Nothing
    /// is written outside of `destination`, whatever links are in it. Owners
    /// and set-id bits are not applied.
    pub fn unpack(
        &self,
        destination: &Path,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        let mut unpacker = Unpacker {
            root: destination,
            real_folders: BTreeSet::new(),
        };
        self.for_each_entry(|entry| match wanted(entry.path()) {
            true => unpacker.unpack(entry),
            false => Ok(()),
        })
    }
}

fn open_file(path: &Path) -> Result<BufReader<File>, Error> {
    let file = File::open(path).map_err(|source| Error::Read {
        what: "package archive",
        source,
    })?;
    Ok(BufReader::with_capacity(1 << 17, file))
}

/// One entry of the data part.
pub struct Entry<'a> {
    path: String,
    kind: Kind,
    content: &'a mut dyn Read,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file; its content is read from the entry.
    File {
        /// Permissions.
        mode: u32,
        /// Length of the content.
        size: u64,
        /// Time of last change, seconds since 1970.
        modified: u64,
    },
    /// A folder.
    Directory {
        /// Permissions.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// What it leads to, as it is written.
        target: String,
    },
    /// Another name of an earlier file.
    Hardlink {
        /// Normalised path of that file.
        target: String,
    },
}

impl Entry<'_> {
    /// Path relative to the root, without leading `./`, `/usr` merged.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }
}

impl Read for Entry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}

/// Reads the control part of an archive.
pub fn read_control(mut archive: impl BufRead) -> Result<Control, Error> {
    let member = find_member(&mut archive, "control.tar")?;
    let mut control = None;
    for_each_tar_entry(member, |path, _, content| {
        if path == "control" {
            let mut text = String::new();
            content
                .take(MAX_CONTROL)
                .read_to_string(&mut text)
                .map_err(|source| Error::Read {
                    what: "control file of a package",
                    source,
                })?;
            control = Some(parse_control(&text)?);
        }
        Ok::<_, Error>(())
    })?;
    control.ok_or_else(|| malformed("it has no control file"))
}

fn parse_control(text: &str) -> Result<Control, Error> {
    let stanza = Stanza::parse(text.trim_end())?;
    let name = stanza.require("Package")?;
    let architecture = stanza.require("Architecture")?;
    if !is_package_name(name) || !is_package_name(architecture) {
        return Err(malformed(format!(
            "it claims to be {name:?} for {architecture:?}"
        )));
    }
    Ok(Control {
        name: name.to_string(),
        version: stanza
            .require("Version")?
            .parse()
            .map_err(|error: crate::version::InvalidVersion| malformed(error.to_string()))?,
        architecture: architecture.to_string(),
    })
}

/// Calls `visit` with each entry of the data part of an archive.
pub fn for_each_entry<E: From<Error>>(
    mut archive: impl BufRead,
    mut visit: impl FnMut(&mut Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let member = find_member(&mut archive, "data.tar")?;
    for_each_tar_entry(member, |path, kind, content| {
        let path = merge_usr(path, matches!(kind, Kind::Directory { .. }));
        let kind = match kind {
            Kind::Hardlink { target } => Kind::Hardlink {
                target: merge_usr(target, false),
            },
            other => other,
        };
        visit(&mut Entry {
            path,
            kind,
            content,
        })
    })
}

fn merge_usr(path: String, is_directory: bool) -> String {
    let (first, rest) = path.split_once('/').unwrap_or((&path, ""));
    if MERGED.contains(&first) && (is_directory || !rest.is_empty()) {
        format!("usr/{path}")
    } else {
        path
    }
}

/// Finds the member whose name is `stem` and perhaps an ending that names its
/// compression, and undoes that.
fn find_member<'a>(archive: &'a mut dyn BufRead, stem: &str) -> Result<Box<dyn Read + 'a>, Error> {
    let read = |source| Error::Read {
        what: "package archive",
        source,
    };
    let mut magic = [0; 8];
    archive.read_exact(&mut magic).map_err(read)?;
    if &magic != b"!<arch>\n" {
        return Err(malformed("it does not begin as an archive does"));
    }
    loop {
        let mut header = [0; 60];
        archive
            .read_exact(&mut header)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => malformed(format!("it has no {stem}")),
                _ => read(error),
            })?;
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range])
                .map(str::trim_end)
                .unwrap_or_default()
        };
        let (name, size) = (text(0..16).trim_end_matches('/'), text(48..58));
        let size: u64 = match size.parse() {
            Ok(size) if &header[58..] == b"`\n" => size,
            _ => return Err(malformed("a header in it is not one of ar")),
        };
        if let Some(ending) = name.strip_prefix(stem) {
            let content = archive.take(size);
            return match ending {
                "" => Ok(Box::new(content)),
                ".xz" => Ok(Box::new(xz_decoder(content)?)),
                _ => Err(malformed(format!(
                    "{name} is compressed in a way that is not supported"
                ))),
            };
        }
        // Members begin at even offsets.
        let skipped = size + size % 2;
        let copied = io::copy(&mut (&mut *archive).take(skipped), &mut io::sink()).map_err(read)?;
        if copied < skipped {
            return Err(malformed("it is cut short"));
        }
    }
}

/// Calls `visit` with path, kind and content of each entry of a tar archive.
fn for_each_tar_entry<E: From<Error>>(
    reader: impl Read,
    mut visit: impl FnMut(String, Kind, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let read = |source| Error::Read {
        what: "package archive",
        source,
    };
    let allowance = Allowance::default();
    let mut archive = tar::Archive::new(Limited {
        reader,
        allowance: allowance.clone(),
    });
    allowance.set(MAX_HEADER);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        allowance.set(u64::MAX);
        if let Some((path, kind)) = describe(&mut entry)? {
            visit(path, kind, &mut entry)?;
        }
        io::copy(&mut entry, &mut io::sink()).map_err(read)?;
        allowance.set(MAX_HEADER);
    }
    Ok(())
}

/// Path and kind of an entry; `None` for the root itself.
fn describe<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<(String, Kind)>, Error> {
    let path = plain_path(&entry.path_bytes())?;
    if path.is_empty() {
        return Ok(None);
    }
    let header = entry.header();
    let number = |value: io::Result<u64>| {
        value.map_err(|_| {
            malformed(format!(
                "the header of {path} has a field that is no number"
            ))
        })
    };
    let mode = (number(header.mode().map(u64::from))? & 0o7777) as u32;
    let target = || -> Result<String, Error> {
        let target = entry.link_name_bytes().unwrap_or_default();
        match std::str::from_utf8(&target) {
            Ok(target)
                if !target.is_empty() && target.len() < MAX_PATH && !target.contains('\0') =>
            {
                Ok(target.to_string())
            }
            _ => Err(malformed(format!("the link {path} leads nowhere"))),
        }
    };
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File {
            mode,
            size: entry.size(),
            modified: number(header.mtime())?,
        },
        tar::EntryType::Directory => Kind::Directory { mode },
        tar::EntryType::Symlink => Kind::Symlink { target: target()? },
        tar::EntryType::Link => Kind::Hardlink {
            target: plain_path(target()?.as_bytes())?,
        },
        other => {
            return Err(malformed(format!(
                "{path} is of kind {other:?}, which no package has"
            )));
        }
    };
    Ok(Some((path, kind)))
}

/// `path` relative to the root, without `.` parts; refused when it leads up.
fn plain_path(path: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(path).map_err(|_| malformed("a path in it is not UTF-8"))?;
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") || text.contains('\0') || text.len() >= MAX_PATH {
        let start: String = text.chars().take(80).collect();
        return Err(malformed(format!(
            "the path {start:?} leads outside or is too long"
        )));
    }
    Ok(parts.join("/"))
}

/// How many bytes may still be read, shared with the reader that counts them.
type Allowance = Rc<Cell<u64>>;

/// Fails when more is read than allowed: the reader of tar archives keeps long
/// names in memory, however long they are.
struct Limited<R> {
    reader: R,
    allowance: Allowance,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowance.get();
        if allowed == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a header in the archive is too long"));
        }
        let length = buffer
            .len()
            .min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let read = self.reader.read(&mut buffer[..length])?;
        self.allowance.set(allowed.saturating_sub(read as u64));
        Ok(read)
    }
}

/// Writes entries below a folder.
struct Unpacker<'a> {
    root: &'a Path,
    /// Folders below `root` that are known to be folders and not links.
    real_folders: BTreeSet<String>,
}

impl Unpacker<'_> {
    fn unpack(&mut self, entry: &mut Entry<'_>) -> Result<(), Error> {
        let path = entry.path.clone();
        self.write(entry)
            .map_err(|source| Error::Unpack { path, source })
    }

    fn write(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let place = self.place(&entry.path, 0)?;
        let full = self.root.join(&place);
        match &entry.kind {
            Kind::Directory { mode } => {
                match fs::create_dir(&full) {
                    Ok(()) => fs::set_permissions(&full, folder_mode(*mode))?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        self.require_folder(&place, 0)?;
                    }
                    Err(error) => return Err(error),
                }
                Ok(())
            }
            Kind::Symlink { target } => {
                // A folder in the place of a link is what merged /usr makes.
                if full.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                    return Ok(());
                }
                remove_file(&full)?;
                symlink(target, &full)
            }
            Kind::Hardlink { target } => {
                let target = self.root.join(self.place(target, 0)?);
                remove_file(&full)?;
                fs::hard_link(target, &full)
            }
            Kind::File {
                mode,
                size,
                modified,
            } => {
                let (mode, size, modified) = (*mode & 0o777, *size, *modified);
                remove_file(&full)?;
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode | 0o200)
                    .open(&full)?;
                let copied = io::copy(entry, &mut file)?;
                if copied != size {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it is cut short",
                    ));
                }
                file.flush()?;
                file.set_permissions(fs::Permissions::from_mode(mode | 0o400))?;
                file.set_modified(UNIX_EPOCH + Duration::from_secs(modified.min(1 << 40)))
            }
        }
    }

    /// Where `path` lies once links among its parent folders are followed
    /// within the root; missing parents are made.
    fn place(&mut self, path: &str, links: usize) -> io::Result<String> {
        match path.rsplit_once('/') {
            None => Ok(path.to_string()),
            Some((parent, name)) => Ok(join(&self.require_folder(parent, links)?, name)),
        }
    }

    /// Makes sure that `path` is a folder, and tells where it really lies.
    fn require_folder(&mut self, path: &str, links: usize) -> io::Result<String> {
        if path.is_empty() || self.real_folders.contains(path) {
            return Ok(path.to_string());
        }
        let place = self.place(path, links)?;
        let full = self.root.join(&place);
        match full.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => {
                if links == 40 {
                    return Err(io::Error::other("links lead round in a circle"));
                }
                let target = fs::read_link(&full)?;
                let target = target
                    .to_str()
                    .ok_or_else(|| io::Error::other("a link in its path is not UTF-8"))?;
                let parent = place.rsplit_once('/').map_or("", |(parent, _)| parent);
                return self.require_folder(&follow(parent, target), links + 1);
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match fs::create_dir(&full) {
                    Ok(()) => fs::set_permissions(&full, folder_mode(0o755))?,
                    // Made by another thread since; look again.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return self.require_folder(path, links + 1);
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        self.real_folders.insert(place.clone());
        Ok(place)
    }
}

/// Where a link in the folder `parent` leads, both relative to the root, which
/// is its own parent.
fn follow(parent: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => parent.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn join(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_string(),
        parent => format!("{parent}/{name}"),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Folders stay writable for whoever unpacks, who is an ordinary user.
fn folder_mode(mode: u32) -> fs::Permissions {
    fs::Permissions::from_mode(mode & 0o777 | 0o700)
}

fn malformed(why: impl Into<String>) -> Error {
    Error::Malformed {
        what: "package archive",
        why: why.into(),
    }
}

#[cfg(test)]
mod tests;
