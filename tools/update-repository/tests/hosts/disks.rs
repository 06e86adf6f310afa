//! Disks that are full, and disks that lose what they are given.
//!
//! What is full is a file system in memory that has been made small. This program is started
//! once more for that, in a namespace of its own, in which it needs no rights to mount one.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use api_types::UpdateCommand::{self, Activate, Deactivate, Prepare, Refresh};
use api_types::UpdateState;
use boot_slots::layout::{Role, Slot};
use test_vm::files::Manner;
use updater::commands::Ended;

use crate::fixture::{Files, Fixture};
use crate::hostile::cannot_prepare;

/// Where the small file system is mounted.
const SMALL: &str = "BULKHEAD_TEST_SMALL";
const MOUNT: &str = r#"mount -t tmpfs -o size=512k none "$0" && exec "$@""#;
const PAGE: u64 = 4096;
/// The most pages that are left free.
const PAGES: u64 = 12;
const COMMANDS: [UpdateCommand; 4] = [Deactivate, Refresh, Prepare, Activate];

#[test]
fn a_full_data_disk_leaves_no_half_of_a_slot() {
    let small = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .args(["sh", "-c", MOUNT])
        .arg(small.path())
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "disks::on_a_small_disk"])
        .arg("--nocapture")
        .env(SMALL, small.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("1 passed"));
}

#[test]
#[ignore = "it is run by the test above, which mounts the disk"]
fn on_a_small_disk() {
    let small = PathBuf::from(env::var_os(SMALL).unwrap());
    let fixture = Fixture::new();
    let new = fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    let lib = fixture.folder.path().join("host/var/lib");
    fs::create_dir_all(&lib).unwrap();
    symlink(&small, lib.join("bulkhead")).unwrap();

    let mut refused_by = BTreeSet::new();
    for (round, free) in (0..=PAGES).chain(0..=PAGES).enumerate() {
        let filler = fill(&small, free);
        for command in COMMANDS {
            if let Err(error) = run(&fixture, command) {
                let error = format!("{error:#}");
                assert!(error.contains("No space left on device"), "{error}");
                refused_by.insert(format!("{command:?}"));
            }
            // What is told of updates outlives it.
            if round > PAGES as usize {
                fixture.status();
            }
            let at = format!("round {round}, {free} pages free, after {command:?}");
            assert!(fixture.slot_a_is_whole(), "{at}");
            let images = fixture.bootable();
            assert!(images.contains("1.0.0"), "{at}: {images:?}");
            if images.contains("2.0.0") || !fixture.slot_b_is_empty() {
                assert!(fixture.slot_b_holds(&new), "{at}: {images:?}");
            }
        }
        fs::remove_file(filler).unwrap();
    }
    println!("refused by {refused_by:?}");
    for command in [Refresh, Prepare] {
        assert!(
            refused_by.contains(&format!("{command:?}")),
            "{refused_by:?}"
        );
    }
    for command in COMMANDS {
        run(&fixture, command).unwrap();
    }
    assert_eq!(fixture.status().update_state, UpdateState::Ready);
    assert!(fixture.slot_b_holds(&new));
}

/// Fills a folder's file system up to so many pages; the file that does it.
fn fill(folder: &Path, free: u64) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[1; PAGE as usize]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(free * PAGE)).unwrap();
    path
}

/// Runs a command; what the state does not allow is nothing that fails.
fn run(fixture: &Fixture, command: UpdateCommand) -> Result<()> {
    let disk = fixture.disk();
    let running = ("1.0.0", fixture.running.root_hash);
    let host = fixture.host(running, Files(&disk));
    match host.run(command, |_| Ok(()))? {
        Ok(Ended::Failed(error)) => Err(error),
        Ok(Ended::Done) | Err(_) => Ok(()),
    }
}

/// Whatever is written goes behind its end.
fn forgetful(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).append(true).open(path)?)
}

#[test]
fn a_slot_that_does_not_keep_what_is_written_is_said_and_stays_empty() {
    for role in [Role::Root(Slot::B), Role::Verity(Slot::B)] {
        let (fixture, error) = cannot_prepare(role, forgetful);
        assert!(
            error.contains("slot B does not hold what was written to it"),
            "{error}"
        );
        let last = fixture.status().most_recent_command.unwrap();
        assert!(last.stderr.unwrap().contains("the disk may be failing"));
        // The disk is well again.
        let _server = fixture.serve(Manner::Ranges);
        fixture.done(&[Prepare]);
    }
}
