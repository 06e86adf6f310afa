//! What lies on the EFI system partition, and renaming it.
//!
//! FAT has no atomic rename: a cut in the middle leaves the old name, the new
//! one, both or neither. So nothing here remembers a state; every function looks
//! at the names that are there and brings about the wanted ones, and can simply be
//! called again. Callers mount the partition and pass its folder.
//!
//! Two names left by a cut share their clusters. Removing either would free what
//! the other still points to, so a second name is never removed but set aside,
//! under a name that the boot loader does not look at.

use crate::entry::{Entry, PREFIX, Tries, in_boot_order, is_version};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Where unified kernel images lie, below the partition's root.
pub const FOLDER: &str = "EFI/Linux";

/// What is appended to a name while its file is being written. The boot loader
/// takes no notice of such files.
const STAGED_SUFFIX: &str = ".new";

/// Why an image could not be renamed or written.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The file system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no image of that version.
    #[error("there is no unified kernel image of version {version} in {folder}", folder = folder.display())]
    NoImage {
        /// The version looked for.
        version: String,
        /// Where.
        folder: PathBuf,
    },
    /// What was read back differs from what was written.
    #[error("{path} does not hold what was written to it: the disk may be failing", path = path.display())]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// The text cannot be a version in a file name.
    #[error("{0:?} cannot be the version of an image: use letters, digits, '.', '-', '~' and '^'")]
    Version(String),
}

/// The images on the partition mounted at `esp`, in boot order. A missing folder
/// holds none.
pub fn list(esp: &Path) -> Result<Vec<Entry>, EspError> {
    Ok(in_boot_order(&names(&esp.join(FOLDER))?))
}

/// Names of the files in a folder; those of ours are text.
fn names(folder: &Path) -> Result<Vec<String>, EspError> {
    let failed = |source| EspError::Io {
        action: "list",
        path: folder.to_path_buf(),
        source,
    };
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for file in files {
        names.extend(file.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Opens the image of `version` for reading.
pub fn open(esp: &Path, version: &str) -> Result<File, EspError> {
    let folder = esp.join(FOLDER);
    let mut entries = list(esp)?.into_iter();
    let Some(entry) = entries.find(|entry| entry.version == version) else {
        return Err(EspError::NoImage {
            version: version.to_string(),
            folder,
        });
    };
    let path = folder.join(entry.to_string());
    File::open(&path).map_err(|source| EspError::Io {
        action: "open",
        path,
        source,
    })
}

/// Takes the counters from the image of `version`: it completed a boot.
pub fn bless(esp: &Path, version: &str) -> Result<(), EspError> {
    set_tries(esp, version, Tries::Blessed)
}

/// Puts the image of `version` behind all others: it failed too often.
pub fn demote(esp: &Path, version: &str) -> Result<(), EspError> {
    set_tries(esp, version, Tries::EXHAUSTED)
}

/// Keeps the image of `version` from booting, without holding anything against it.
pub fn withhold(esp: &Path, version: &str) -> Result<(), EspError> {
    set_tries(esp, version, Tries::WITHHELD)
}

/// Gives the image of `version` its tries: it is the next to boot when it is the
/// newest.
pub fn activate(esp: &Path, version: &str) -> Result<(), EspError> {
    set_tries(esp, version, Tries::NEW)
}

/// Leaves exactly one image of `version`, with the counters `tries`.
fn set_tries(esp: &Path, version: &str, tries: Tries) -> Result<(), EspError> {
    let folder = esp.join(FOLDER);
    let names: Vec<Entry> = list(esp)?
        .into_iter()
        .filter(|entry| entry.version == version)
        .collect();
    let Some(first) = names.first() else {
        return Err(EspError::NoImage {
            version: version.to_string(),
            folder,
        });
    };
    let wanted = first.with_tries(tries);
    if !names.contains(&wanted) {
        rename(&folder, &first.to_string(), &wanted.to_string())?;
    }
    let renamed = if names.contains(&wanted) {
        &wanted
    } else {
        first
    };
    for second in names.iter().filter(|entry| *entry != renamed) {
        rename(
            &folder,
            &second.to_string(),
            &unused_aside_name(&folder, version),
        )?;
    }
    sync_folder(&folder)
}

/// Writes the image of `version` beside the others without letting the boot
/// loader see it, and compares what then lies on the disk with `image`.
/// [`publish`] gives it its name.
pub fn stage(esp: &Path, version: &str, image: &[u8]) -> Result<(), EspError> {
    let folder = esp.join(FOLDER);
    let path = staged_path(&folder, version)?;
    let io = |action| {
        let path = path.clone();
        move |source| EspError::Io {
            action,
            path,
            source,
        }
    };
    fs::create_dir_all(&folder).map_err(io("make the folder of"))?;
    let mut file = File::create(&path).map_err(io("create"))?;
    file.write_all(image).map_err(io("write"))?;
    file.sync_all().map_err(io("sync"))?;
    drop(file);
    sync_folder(&folder)?;
    if holds(&path, image).map_err(io("read back"))? {
        Ok(())
    } else {
        Err(EspError::Altered { path })
    }
}

/// Gives a staged image its name, withheld, so that it does not boot before
/// [`activate`] is called.
pub fn publish(esp: &Path, version: &str) -> Result<(), EspError> {
    let folder = esp.join(FOLDER);
    let staged = staged_path(&folder, version)?;
    if staged.exists() {
        let entry = Entry::blessed(version).with_tries(Tries::WITHHELD);
        rename(&folder, &staged_name(version), &entry.to_string())?;
    }
    withhold(esp, version)
}

/// Removes all images but that of `version`, and what was left half written.
pub fn forget_all_but(esp: &Path, version: &str) -> Result<(), EspError> {
    let folder = esp.join(FOLDER);
    let names = names(&folder)?;
    let entries = in_boot_order(&names);
    for staged in names.iter().filter_map(|name| staged_version(name)) {
        let name = staged_name(staged);
        // A cut while it was published may have left a second name for the same clusters.
        if entries.iter().any(|entry| entry.version == staged) {
            rename(&folder, &name, &unused_aside_name(&folder, staged))?;
        } else {
            remove(&folder.join(name))?;
        }
    }
    let others: BTreeSet<_> = (entries.iter())
        .map(|entry| &*entry.version)
        .filter(|other| *other != version)
        .collect();
    for other in others {
        withhold(esp, other)?;
        let entry = Entry::blessed(other).with_tries(Tries::WITHHELD);
        remove(&folder.join(entry.to_string()))?;
    }
    sync_folder(&folder)
}

/// The version of an image that was staged and not published, by the name of its file.
fn staged_version(name: &str) -> Option<&str> {
    let version = name.strip_suffix(STAGED_SUFFIX)?.strip_prefix(PREFIX)?;
    is_version(version).then_some(version)
}

fn unused_aside_name(folder: &Path, version: &str) -> String {
    let mut names = (1..).map(|number| format!("{PREFIX}{version}.aside-{number}"));
    let unused = names.find(|name| !folder.join(name).exists());
    unused.expect("a folder has fewer files than there are numbers")
}

fn staged_name(version: &str) -> String {
    format!("{PREFIX}{version}{STAGED_SUFFIX}")
}

fn staged_path(folder: &Path, version: &str) -> Result<PathBuf, EspError> {
    if is_version(version) {
        Ok(folder.join(staged_name(version)))
    } else {
        Err(EspError::Version(version.to_string()))
    }
}

pub(crate) fn holds(path: &Path, expected: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1024 * 1024];
    let mut rest = expected;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(rest.is_empty()),
            count => match rest.strip_prefix(&buffer[..count]) {
                Some(after) => rest = after,
                None => return Ok(false),
            },
        }
    }
}

pub(crate) fn rename(folder: &Path, from: &str, to: &str) -> Result<(), EspError> {
    let (from, to) = (folder.join(from), folder.join(to));
    fs::rename(&from, &to).map_err(|source| EspError::Io {
        action: "rename",
        path: from,
        source,
    })?;
    // FAT gives the new name no content until the file itself is written down. Synced
    // first, name and content reach the disk as one; after the folder, a power cut in
    // between would leave an empty image in place of the only one.
    File::open(&to)
        .and_then(|file| file.sync_all())
        .map_err(|source| EspError::Io {
            action: "sync",
            path: to,
            source,
        })?;
    sync_folder(folder)
}

fn remove(path: &Path) -> Result<(), EspError> {
    fs::remove_file(path).map_err(|source| EspError::Io {
        action: "remove",
        path: path.to_path_buf(),
        source,
    })
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), EspError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| EspError::Io {
            action: "sync",
            path: folder.to_path_buf(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ESP with these files; the content of each is its first name.
    fn esp(names: &[&str]) -> tempfile::TempDir {
        let esp = tempfile::tempdir().unwrap();
        let folder = esp.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        for name in names {
            fs::write(folder.join(name), name).unwrap();
        }
        esp
    }

    fn names(esp: &Path) -> Vec<String> {
        let mut names = super::names(&esp.join(FOLDER)).unwrap();
        names.sort();
        names
    }

    /// Each row: names before, what is done to version 2, names after.
    #[test]
    fn renames_whatever_a_cut_left() {
        type Action = fn(&Path, &str) -> Result<(), EspError>;
        let other = "bulkhead_1.efi";
        let rows: [(&[&str], Action, &[&str]); 12] = [
            (
                &["bulkhead_2+2-1.efi", other],
                bless,
                &[other, "bulkhead_2.efi"],
            ),
            (
                &["bulkhead_2.efi", other],
                bless,
                &[other, "bulkhead_2.efi"],
            ),
            (
                &["bulkhead_2+2-1.efi", "bulkhead_2.efi"],
                bless,
                &["bulkhead_2.aside-1", "bulkhead_2.efi"],
            ),
            (&["bulkhead_2+0-3.efi"], bless, &["bulkhead_2.efi"]),
            (
                &["bulkhead_2.efi", other],
                demote,
                &[other, "bulkhead_2+0-3.efi"],
            ),
            (
                &["bulkhead_2.efi", "bulkhead_2+0-3.efi"],
                demote,
                &["bulkhead_2+0-3.efi", "bulkhead_2.aside-1"],
            ),
            (&["bulkhead_2+3.efi"], demote, &["bulkhead_2+0-3.efi"]),
            (
                &["bulkhead_2+0-3.efi", other],
                activate,
                &[other, "bulkhead_2+3.efi"],
            ),
            (&["bulkhead_2+3.efi"], activate, &["bulkhead_2+3.efi"]),
            (&["bulkhead_2+3.efi"], withhold, &["bulkhead_2+0.efi"]),
            (
                &["bulkhead_2+3.efi", "bulkhead_2+0.efi"],
                withhold,
                &["bulkhead_2+0.efi", "bulkhead_2.aside-1"],
            ),
            (
                &[
                    "bulkhead_2+3.efi",
                    "bulkhead_2+2-1.efi",
                    "bulkhead_2+0-3.efi",
                    "note.txt",
                ],
                bless,
                &[
                    "bulkhead_2.aside-1",
                    "bulkhead_2.aside-2",
                    "bulkhead_2.efi",
                    "note.txt",
                ],
            ),
        ];
        for (before, action, after) in rows {
            let esp = esp(before);
            action(esp.path(), "2").unwrap();
            assert_eq!(names(esp.path()), after, "{before:?}");
            action(esp.path(), "2").unwrap();
            assert_eq!(names(esp.path()), after, "{before:?}, called again");
        }
    }

    #[test]
    fn a_missing_image_is_named() {
        let esp = esp(&["bulkhead_1.efi"]);
        let error = bless(esp.path(), "2").unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        assert_eq!(names(esp.path()), ["bulkhead_1.efi"]);
    }

    #[test]
    fn an_image_is_opened_whatever_its_counters_are() {
        for name in ["bulkhead_1.efi", "bulkhead_1+2-1.efi"] {
            let esp = esp(&["bulkhead_2+3.efi", name]);
            let mut content = String::new();
            let mut file = open(esp.path(), "1").unwrap();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, name);
            let error = open(esp.path(), "3").unwrap_err();
            assert!(matches!(error, EspError::NoImage { .. }), "{error}");
        }
    }

    #[test]
    fn a_new_image_is_seen_by_the_boot_loader_only_when_published() {
        let esp = esp(&["bulkhead_1.efi"]);
        stage(esp.path(), "2", b"kernel").unwrap();
        assert_eq!(list(esp.path()).unwrap(), [Entry::blessed("1")]);
        publish(esp.path(), "2").unwrap();
        publish(esp.path(), "2").unwrap();
        assert_eq!(names(esp.path()), ["bulkhead_1.efi", "bulkhead_2+0.efi"]);
        assert_eq!(list(esp.path()).unwrap()[0], Entry::blessed("1"));
        activate(esp.path(), "2").unwrap();
        assert_eq!(list(esp.path()).unwrap()[0].to_string(), "bulkhead_2+3.efi");
        assert_eq!(
            fs::read(esp.path().join(FOLDER).join("bulkhead_2+3.efi")).unwrap(),
            b"kernel"
        );
        forget_all_but(esp.path(), "1").unwrap();
        assert_eq!(names(esp.path()), ["bulkhead_1.efi"]);
    }

    #[test]
    fn what_was_left_half_written_is_forgotten() {
        let esp = esp(&[
            "bulkhead_1.efi",
            "bulkhead_1.aside-1",
            "bulkhead_2.new",
            "bulkhead_3.new",
            "bulkhead_3+0.efi",
            "bulkhead_4+3.efi",
            "bulkhead_4+2-1.efi",
            "note.new",
        ]);
        let left = [
            "bulkhead_1.aside-1",
            "bulkhead_1.efi",
            // They may be what was removed under their other name.
            "bulkhead_3.aside-1",
            "bulkhead_4.aside-1",
            "note.new",
        ];
        for _ in 0..2 {
            forget_all_but(esp.path(), "1").unwrap();
            assert_eq!(names(esp.path()), left);
        }
    }

    #[test]
    fn read_back_compares_everything() {
        let esp = esp(&["a"]);
        let path = esp.path().join(FOLDER).join("a");
        for (content, expected, same) in [
            (&b"abc"[..], &b"abc"[..], true),
            (b"abc", b"abd", false),
            (b"abc", b"abcd", false),
            (b"abcd", b"abc", false),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(holds(&path, expected).unwrap(), same);
        }
    }

    #[test]
    fn versions_that_would_leave_the_folder_are_refused() {
        let esp = esp(&[]);
        for version in ["../x", "", "1+3", "a/b"] {
            assert!(matches!(
                stage(esp.path(), version, b""),
                Err(EspError::Version(_))
            ));
        }
    }
}
