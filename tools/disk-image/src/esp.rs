//! The EFI system partition: a FAT32 file system that holds the given files.

use anyhow::{Context, Result};
use boot_slots::layout::ESP_SIZE;
use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider,
};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};

/// Small clusters waste little and give enough of them to be FAT32 at this size.
const CLUSTER_SIZE: u32 = 1024;
const VOLUME_ID: u32 = 0xb001_b001;
const VOLUME_LABEL: [u8; 11] = *b"BULKHEADESP";

/// A file system of the partition's size with `files`, each a path with `/` and
/// the content. Folders are made as needed.
pub fn build<P: AsRef<str>>(files: &[(P, Vec<u8>)]) -> Result<Vec<u8>> {
    // The order decides which clusters a file gets.
    let files: BTreeMap<&str, &[u8]> = files
        .iter()
        .map(|(path, content)| (path.as_ref(), content.as_slice()))
        .collect();
    let mut volume = vec![0; usize::try_from(ESP_SIZE)?];
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(CLUSTER_SIZE)
        .volume_id(VOLUME_ID)
        .volume_label(VOLUME_LABEL);
    fatfs::format_volume(Cursor::new(&mut volume), options)
        .context("cannot format the EFI system partition")?;
    let options = FsOptions::new().time_provider(&FixedTime);
    let file_system = FileSystem::new(Cursor::new(&mut volume), options)
        .context("cannot open the EFI system partition")?;
    for (path, content) in files {
        add(&file_system, path, content)
            .with_context(|| format!("cannot put {path} on the EFI system partition"))?;
    }
    file_system
        .unmount()
        .context("cannot complete the EFI system partition")?;
    Ok(volume)
}

/// The time of every file. Without a valid one (month and day 0, say) firmware
/// refuses to rename a file, and with that boot counting fails.
#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date {
            year: 2020,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time {
            hour: 0,
            min: 0,
            sec: 0,
            millis: 0,
        };
        DateTime {
            date: self.get_current_date(),
            time,
        }
    }
}

fn add(
    file_system: &FileSystem<Cursor<&mut Vec<u8>>>,
    path: &str,
    content: &[u8],
) -> std::io::Result<()> {
    let root = file_system.root_dir();
    for (end, _) in path.match_indices('/') {
        root.create_dir(&path[..end])?;
    }
    let mut file = root.create_file(path)?;
    file.truncate()?;
    file.write_all(content)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (
                "EFI/Linux/bulkhead_1.2.0+3.efi",
                (0..3_000_000u32).map(|n| n as u8).collect(),
            ),
            ("EFI/BOOT/BOOTX64.EFI", b"helper".to_vec()),
            ("loader/loader.conf", b"timeout 0\n".to_vec()),
        ]
    }

    #[test]
    fn files_are_found_again() {
        let mut volume = build(&files()).unwrap();
        let file_system = FileSystem::new(Cursor::new(&mut volume), FsOptions::new()).unwrap();
        assert_eq!(file_system.fat_type(), FatType::Fat32);
        for (path, content) in files() {
            let mut read = Vec::new();
            file_system
                .root_dir()
                .open_file(path)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == content, "{path}");
        }
    }

    #[test]
    fn times_are_ones_that_firmware_takes() {
        let mut volume = build(&files()).unwrap();
        let file_system = FileSystem::new(Cursor::new(&mut volume), FsOptions::new()).unwrap();
        let folder = file_system.root_dir().open_dir("EFI/Linux").unwrap();
        let mut count = 0;
        for entry in folder.iter() {
            let entry = entry.unwrap();
            for date in [
                entry.created().date,
                entry.modified().date,
                entry.accessed(),
            ] {
                assert_eq!(
                    (date.year, date.month, date.day),
                    (2020, 1, 1),
                    "{}",
                    entry.file_name()
                );
            }
            count += 1;
        }
        assert_eq!(
            count, 3,
            "the file and the two entries of a folder for itself and its parent"
        );
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let mut files = files();
        let first = build(&files).unwrap();
        files.reverse();
        assert!(first == build(&files).unwrap());
    }

    #[test]
    fn too_much_is_an_error_that_names_the_file() {
        let files = [("EFI/Linux/huge.efi", vec![0; ESP_SIZE as usize])];
        let error = build(&files).unwrap_err().to_string();
        assert!(error.contains("EFI/Linux/huge.efi"), "{error}");
    }
}
