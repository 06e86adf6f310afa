//! The command-line addon: an EFI program without code, whose one section the
//! stub of a unified kernel image puts behind the image's own command line.
//!
//! It lies where the stub of every image looks, so one file serves both slots
//! and whatever an update brings. Under Secure Boot the firmware refuses it, for
//! it is not signed.
//!
//! FAT has no atomic rename (see [`crate::bless`]). A cut leaves the old addon,
//! the new one or none; the next boot notices the difference and repairs it. A
//! second name for the same clusters is set aside, never removed.

use crate::bless::{EspError, holds, rename, sync_folder};
use crate::layout::Architecture;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where addons for every image lie, below the EFI system partition's root.
pub const FOLDER: &str = "loader/addons";
/// The addon's name. The stub takes what ends in `.addon.efi`.
pub const NAME: &str = "settings.addon.efi";
/// Its name while it is written.
const STAGED: &str = "settings.new";
/// Its name when the host does not boot with it.
const REFUSED: &str = "settings.refused";

/// What became of an addon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The partition holds it as it did before.
    Unchanged,
    /// The partition holds something new.
    Changed,
    /// It is not stored: the host did not boot with it before.
    Refused,
}

/// Makes the addon for `command_line` the one that images are started with;
/// without a text there is none.
pub fn store(esp: &Path, command_line: &str) -> Result<Stored, EspError> {
    let folder = esp.join(FOLDER);
    let path = folder.join(NAME);
    let refused = folder.join(REFUSED);
    if command_line.is_empty() {
        let removed = [&path, &refused].map(|path| remove_if_present(path));
        let [addon, refused] = removed;
        let (addon, refused) = (addon?, refused?);
        if addon || refused {
            sync_folder(&folder)?;
        }
        return Ok(if addon {
            Stored::Changed
        } else {
            Stored::Unchanged
        });
    }
    let addon = build(command_line, Architecture::current());
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| EspError::Io {
            action,
            path,
            source,
        }
    };
    let already = |path: &Path| match holds(path, &addon) {
        Ok(same) => Ok(same),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("read", path)(error)),
    };
    if already(&refused)? {
        return Ok(Stored::Refused);
    }
    if already(&path)? {
        return Ok(Stored::Unchanged);
    }
    fs::create_dir_all(&folder).map_err(io("make the folder", &folder))?;
    let staged = folder.join(STAGED);
    if staged.exists() {
        rename(&folder, STAGED, &unused_name(&folder))?;
    }
    let mut file = File::create(&staged).map_err(io("create", &staged))?;
    file.write_all(&addon).map_err(io("write", &staged))?;
    file.sync_all().map_err(io("sync", &staged))?;
    drop(file);
    if !holds(&staged, &addon).map_err(io("read back", &staged))? {
        return Err(EspError::Altered { path: staged });
    }
    rename(&folder, STAGED, NAME)?;
    if remove_if_present(&refused)? {
        sync_folder(&folder)?;
    }
    Ok(Stored::Changed)
}

/// Sets the addon aside, so that images start without it, and [`store`] does not
/// take it again. False if there is none.
pub fn refuse(esp: &Path) -> Result<bool, EspError> {
    let folder = esp.join(FOLDER);
    if !folder.join(NAME).exists() {
        return Ok(false);
    }
    rename(&folder, NAME, REFUSED)?;
    Ok(true)
}

fn remove_if_present(path: &Path) -> Result<bool, EspError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(EspError::Io {
            action: "remove",
            path: PathBuf::from(path),
            source,
        }),
    }
}

fn unused_name(folder: &Path) -> String {
    let mut names = (1..).map(|number| format!("settings.aside-{number}"));
    let unused = names.find(|name| !folder.join(name).exists());
    unused.expect("a folder has fewer files than there are numbers")
}

const FILE_ALIGNMENT: usize = 0x200;
const PAGE: usize = 0x1000;
const PE_AT: usize = 0x40;
const OPTIONAL_SIZE: usize = 240;

/// The addon as a PE32+ file (Microsoft's PE/COFF specification; the UEFI
/// specification, 2.1.1).
pub fn build(command_line: &str, architecture: Architecture) -> Vec<u8> {
    let content = command_line.as_bytes();
    let raw_size = content.len().next_multiple_of(FILE_ALIGNMENT);
    let mut file = Vec::with_capacity(FILE_ALIGNMENT + raw_size);
    // DOS header: the magic, and at its end where the PE header lies.
    file.extend(b"MZ");
    file.resize(PE_AT - 4, 0);
    put32(&mut file, PE_AT);
    // COFF header.
    file.extend(b"PE\0\0");
    put16(
        &mut file,
        match architecture {
            Architecture::X86_64 => 0x8664,
            Architecture::Aarch64 => 0xaa64,
        },
    );
    put16(&mut file, 1); // sections
    file.extend([0; 12]); // no time, no symbols
    put16(&mut file, OPTIONAL_SIZE as u16);
    put16(&mut file, 0x0022); // executable, any address
    // Optional header.
    let optional_at = file.len();
    put16(&mut file, 0x20b); // 64 bits
    put16(&mut file, 0); // linker version
    put32(&mut file, 0); // size of code
    put32(&mut file, raw_size);
    put32(&mut file, 0); // size of uninitialised data
    put32(&mut file, 0); // entry point
    put32(&mut file, 0); // start of code
    file.extend([0; 8]); // preferred address
    put32(&mut file, PAGE);
    put32(&mut file, FILE_ALIGNMENT);
    file.extend([0; 16]); // versions
    put32(&mut file, PAGE + content.len().next_multiple_of(PAGE)); // size in memory
    put32(&mut file, FILE_ALIGNMENT); // size of headers
    put32(&mut file, 0); // checksum
    put16(&mut file, 10); // EFI application
    put16(&mut file, 0x0100); // data is not executable
    file.extend([0; 36]); // stack, heap, loader flags
    put32(&mut file, 16); // directories, all empty
    file.resize(optional_at + OPTIONAL_SIZE, 0);
    // The section.
    file.extend(b".cmdline");
    put32(&mut file, content.len());
    put32(&mut file, PAGE);
    put32(&mut file, raw_size);
    put32(&mut file, FILE_ALIGNMENT);
    file.extend([0; 12]);
    put32(&mut file, 0x4000_0040); // readable, initialised data
    file.resize(FILE_ALIGNMENT, 0);
    file.extend(content);
    file.resize(FILE_ALIGNMENT + raw_size, 0);
    file
}

fn put16(file: &mut Vec<u8>, value: u16) {
    file.extend(value.to_le_bytes());
}

/// Sizes and offsets of an addon, all of them far below 4 GiB: a command line
/// has two kilobytes.
fn put32(file: &mut Vec<u8>, value: usize) {
    file.extend((value as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(esp: &Path) -> Vec<String> {
        let Ok(files) = fs::read_dir(esp.join(FOLDER)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn stored_replaced_and_removed() {
        let esp = tempfile::tempdir().unwrap();
        let esp = esp.path();
        let content = || fs::read(esp.join(FOLDER).join(NAME)).unwrap();
        for (text, expected, left) in [
            ("", Stored::Unchanged, &[][..]),
            ("a=1", Stored::Changed, &[NAME]),
            ("a=1", Stored::Unchanged, &[NAME]),
            ("a=2 b", Stored::Changed, &[NAME]),
            ("", Stored::Changed, &[]),
            ("", Stored::Unchanged, &[]),
        ] {
            assert_eq!(store(esp, text).unwrap(), expected, "{text:?}");
            assert_eq!(names(esp), left, "{text:?}");
            if !text.is_empty() {
                assert_eq!(content(), build(text, Architecture::current()));
            }
        }
    }

    #[test]
    fn what_a_cut_left_is_set_aside() {
        let esp = tempfile::tempdir().unwrap();
        let esp = esp.path();
        store(esp, "a=1").unwrap();
        fs::write(esp.join(FOLDER).join(STAGED), "cut").unwrap();
        assert_eq!(store(esp, "a=2").unwrap(), Stored::Changed);
        assert_eq!(names(esp), [NAME, "settings.aside-1"]);
        let aside = fs::read(esp.join(FOLDER).join("settings.aside-1")).unwrap();
        assert_eq!(aside, b"cut");
    }

    #[test]
    fn a_refused_addon_is_not_stored_again() {
        let esp = tempfile::tempdir().unwrap();
        let esp = esp.path();
        assert!(!refuse(esp).unwrap());
        store(esp, "bad").unwrap();
        assert!(refuse(esp).unwrap());
        assert_eq!(names(esp), [REFUSED]);
        assert_eq!(store(esp, "bad").unwrap(), Stored::Refused);
        assert_eq!(names(esp), [REFUSED]);
        // Another one is, and forgets the first.
        assert_eq!(store(esp, "good").unwrap(), Stored::Changed);
        assert_eq!(names(esp), [NAME]);
        store(esp, "bad").unwrap();
        refuse(esp).unwrap();
        assert_eq!(store(esp, "").unwrap(), Stored::Unchanged);
        assert_eq!(names(esp), [""; 0]);
    }
}
