//! Updates as they go, and servers that do not do as they are asked.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;

use api_types::{UpdateCommand, UpdateState};
use boot_slots::bless::FOLDER;
use boot_slots::layout::{Role, Slot};
use boot_slots::record::BootRecord;
use boot_slots::verity::{BLOCK_SIZE, Tree, Verity};
use sysutil::time::Time;
use test_vm::files::Manner;
use update_repository::{Keys, predict};
use updater::commands::Ended;
use updater::repository::forget_time_ahead;
use updater::slot::Disk;
use updater::state::Refusal;

use crate::fixture::{Files, Fixture, OWN_BYTES, Server, image, kernel};

use UpdateCommand::{Activate, Deactivate, Prepare, Refresh};

#[test]
fn an_update_from_looking_to_booting() {
    let fixture = Fixture::new();
    // Half of it is new, at its end.
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    assert_eq!(fixture.run(Prepare).unwrap_err().http_status(), 409);
    fixture.done(&[Refresh]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Available);
    assert_eq!(status.available_updates, ["2.0.0"]);
    assert_eq!(server.root_bytes(), 0);
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(
        server.root_bytes(),
        100 * BLOCK_SIZE as u64,
        "only what is new"
    );
    assert_eq!(server.kernel_bytes(), OWN_BYTES as u64);
    let staged = fixture.disk().join("esp").join(FOLDER);
    let staged = fs::read(staged.join("bulkhead_2.0.0+0.efi")).unwrap();
    assert!(staged == kernel("2.0.0", &root, 1..100), "another file");
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0.efi"]
    );
    fixture.done(&[Activate]);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+3.efi"]
    );
    fixture.done(&[Deactivate]);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0.efi"]
    );
    assert_eq!(fixture.run(Deactivate).unwrap_err().http_status(), 409);
    fixture.done(&[Activate]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Ready);
    assert!(status.staging_partition.unwrap().next_to_boot);
    assert!(!status.active_partition.unwrap().next_to_boot);

    // It boots and is blessed.
    let disk = fixture.disk();
    boot_slots::bless::bless(&disk.join("esp"), "2.0.0").unwrap();
    let state = Files(&disk).partition(Role::State).unwrap();
    let mut record = BootRecord::read(&state).unwrap();
    record.bless(&root);
    record.write(&state).unwrap();
    fixture.run_in(("2.0.0", root), Refresh).unwrap().unwrap();
    let status = fixture.status();
    assert_eq!(
        (status.update_state, status.chosen_update),
        (UpdateState::Idle, None)
    );
    assert_eq!(status.active_partition.unwrap().image.version, "2.0.0");
}

#[test]
fn scattered_changes_are_fetched_and_nothing_else() {
    let fixture = Fixture::new();
    let scattered = (1..1_000).map(|block| {
        if block % 40 == 0 {
            block + 5_000
        } else {
            block
        }
    });
    let (_, new) = image(scattered.clone());
    let root = fixture.release("2.0.0", scattered);
    let server = fixture.serve(Manner::Ranges);
    let started = std::time::Instant::now();
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 24 * BLOCK_SIZE as u64);
    let tree = |built: &Verity| Tree::read(&built.bytes, &built.root_hash).unwrap();
    let (old, new) = (tree(&fixture.running), tree(&new));
    let length = new.data_blocks() * BLOCK_SIZE as u64;
    let predicted = predict(old.digests(), new.digests(), length);
    assert_eq!(
        (predicted.bytes, predicted.requests),
        (server.root_bytes(), 24)
    );
    let seconds = started.elapsed().as_secs();
    assert!(
        seconds < 10,
        "no request waits for another try: {seconds} s"
    );
}

#[test]
fn an_image_that_did_not_boot_is_given_up() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare, Activate]);
    boot_slots::bless::demote(&fixture.disk().join("esp"), "2.0.0").unwrap();
    fs::write(
        fixture
            .folder
            .path()
            .join("host")
            .join(api_types::BOOT_COMPLAINT),
        r#"{"version": "2.0.0", "complaint": "failed: a.service"}"#,
    )
    .unwrap();
    let running = ("1.0.0", fixture.running.root_hash);
    fixture.run_in(running, Refresh).unwrap().unwrap();
    for _ in 0..2 {
        let status = fixture.status();
        assert_eq!(status.available_updates, ["2.0.0"]);
        assert_eq!(
            (status.update_state, status.chosen_update),
            (UpdateState::Idle, None)
        );
        assert_eq!(status.given_up["2.0.0"], "failed: a.service");
        fixture.done(&[Refresh]);
    }
    fixture.release("2.0.1", 501..1_100);
    fixture.run_in(running, Refresh).unwrap().unwrap();
    assert_eq!(fixture.status().chosen_update.unwrap().version, "2.0.1");
}

/// As a cut of power leaves it that comes before what was done is written down.
#[test]
fn what_boots_next_is_what_the_boot_loader_takes() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare]);
    let esp = fixture.disk().join("esp");
    boot_slots::bless::activate(&esp, "2.0.0").unwrap();
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().update_state, UpdateState::Ready);
    boot_slots::bless::withhold(&esp, "2.0.0").unwrap();
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().update_state, UpdateState::Staged);
    fixture.done(&[Activate, Deactivate]);
}

#[test]
fn a_prepared_update_that_is_recalled_does_not_boot() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare, Activate, Refresh]);
    assert_eq!(fixture.status().update_state, UpdateState::Ready);
    let one = "1.0.0".to_string().try_into().unwrap();
    fixture.repository().limit(&fixture.keys, &one).unwrap();
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().update_state, UpdateState::Idle);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0.efi"]
    );
    assert_eq!(fixture.run(Activate).unwrap_err().http_status(), 409);
}

#[test]
fn what_is_prepared_is_not_fetched_again() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare]);
    let requests = server.requests();
    fixture.done(&[Prepare, Activate, Deactivate, Prepare]);
    assert_eq!(server.requests(), requests);
}

#[test]
fn what_is_prepared_and_damaged_is_prepared_anew() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare]);
    let disk = fixture.disk();
    let slot = Files(&disk).partition(Role::Root(Slot::B)).unwrap();
    slot.write_all_at(b"x", 300 * BLOCK_SIZE as u64).unwrap();
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    let kernel_image = disk.join("esp").join(FOLDER).join("bulkhead_2.0.0+0.efi");
    fs::write(&kernel_image, "x").unwrap();
    fixture.done(&[Prepare]);
    assert!(fs::read(&kernel_image).unwrap() == kernel("2.0.0", &root, 1..100));
}

#[test]
fn an_older_version_boots_next_and_does_not() {
    let fixture = Fixture::new();
    fixture.release("0.9.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    fixture.look_for("v0.9.0", &format!("http://127.0.0.1:{}", server.port));
    fixture.done(&[Refresh, Prepare, Activate]);
    assert_eq!(fixture.status().update_state, UpdateState::Ready);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_0.9.0+3.efi", "bulkhead_1.0.0+0.efi"]
    );
    fixture.done(&[Deactivate]);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_0.9.0+0.efi", "bulkhead_1.0.0.efi"]
    );
}

#[test]
fn a_freeze_reaches_what_is_ready() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare, Activate]);
    fixture.look_for("v1.0.0", &format!("http://127.0.0.1:{}", server.port));
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().update_state, UpdateState::Idle);
    let next = boot_slots::bless::list(&fixture.disk().join("esp")).unwrap();
    assert_eq!(next[0].version, "1.0.0");
}

#[test]
fn what_another_update_has_left_in_place_is_not_fetched_again() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare]);
    let before = server.root_bytes();
    let root = fixture.release("2.0.1", (500..1_099).chain([5_000]));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes() - before, BLOCK_SIZE as u64);
}

/// A clock that was ahead is set right.
#[test]
fn a_clock_that_goes_back_does_not_stop_updates() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let seen = (fixture.folder.path()).join("host/var/lib/bulkhead/updates/metadata");
    let times = seen.join("latest_known_time.json");
    assert!(times.exists());
    let before = fs::read(&times).unwrap();
    forget_time_ahead(&seen).unwrap();
    assert_eq!(fs::read(&times).unwrap(), before, "it is not ahead");
    fs::write(&times, "\"2999-01-01T00:00:00.5Z\"").unwrap();
    let disk = fixture.disk();
    let mut host = fixture.host(("1.0.0", fixture.running.root_hash), Files(&disk));
    host.has_right_clock = false;
    let Ok(Ended::Failed(error)) = host.run(Refresh, |_| Ok(())).unwrap() else {
        panic!("a clock that may be wrong is believed");
    };
    assert!(
        format!("{error:#}").contains("stepped backward"),
        "{error:#}"
    );
    fixture.done(&[Refresh]);
}

#[test]
fn a_server_without_ranges_sends_the_whole_file() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Whole);
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 600 * BLOCK_SIZE as u64);
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::CutAfter(70 * BLOCK_SIZE + 100));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 100 * BLOCK_SIZE as u64 + 100);
}

#[test]
fn attack_a_range_answer_with_wrong_bytes() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::WrongBytes);
    fixture.done(&[Refresh]);
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("not what was signed"),
        "{error:#}"
    );
    assert!(fixture.slot_b_is_empty());
    assert_eq!(fixture.kernel_images(), ["bulkhead_1.0.0.efi"]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Available);
    let last = status.most_recent_command.unwrap();
    assert_eq!(last.exit_status, Some(1));
    assert!(last.stderr.unwrap().contains("not what was signed"));
}

#[test]
fn attack_a_root_image_larger_than_the_slot() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 1..1_300);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("the image needs"),
        "{error:#}"
    );
}

#[test]
fn attack_a_version_that_was_recalled() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let one = "1.0.0".to_string().try_into().unwrap();
    fixture.repository().limit(&fixture.keys, &one).unwrap();
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("not offered any more"),
        "{error:#}"
    );
}

#[test]
fn attack_metadata_rolled_back() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let old = fixture.folder.path().join("old");
    let metadata = fixture.repository().metadata();
    let _server = fixture.serve(Manner::Ranges);
    fs::create_dir(&old).unwrap();
    for file in fs::read_dir(&metadata).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), old.join(file.file_name())).unwrap();
    }
    fixture.release("2.0.1", 501..1_100);
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().chosen_update.unwrap().version, "2.0.1");
    for file in fs::read_dir(&old).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), metadata.join(file.file_name())).unwrap();
    }
    fixture.run(Refresh).unwrap().unwrap_err();
    let status = fixture.status();
    assert_eq!(
        (status.update_state, status.chosen_update),
        (UpdateState::Idle, None)
    );
}

#[test]
fn attack_signed_by_another_key() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let other = Keys::create(
        &fixture.folder.path().join("other"),
        Time::now().plus(86_400),
    );
    let trust = fixture
        .folder
        .path()
        .join("host/usr/share/bulkhead/update-root.json");
    fs::write(trust, other.unwrap().root()).unwrap();
    let _server = fixture.serve(Manner::Ranges);
    fixture.run(Refresh).unwrap().unwrap_err();
}

#[test]
fn two_updaters_at_once() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    let first = fixture.run_while(Refresh, || {
        assert_eq!(fixture.run(Refresh).unwrap_err(), Refusal::Busy);
    });
    first.unwrap().unwrap();
}

#[test]
fn redirects_are_followed_and_remembered() {
    let fixture = Fixture::new();
    let scattered = (1..1_000).map(|block| block + if block % 40 == 0 { 5_000 } else { 0 });
    let root = fixture.release("2.0.0", scattered);
    let mirror = Server::start(&fixture.repository_folder(), Manner::Ranges);
    let server = fixture.serve(Manner::MovedTo(mirror.port));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(mirror.root_bytes(), 24 * BLOCK_SIZE as u64);
    assert_eq!(server.moved(), 2, "each range asks where the mirror is");
}

#[test]
fn a_mirror_that_is_gone_is_left() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let server = fixture.serve(Manner::MovedOnceTo(port));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.moved(), 1);
}

#[test]
fn attack_redirects_without_end() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::MovedHere);
    fixture.done(&[Refresh]);
    let error = format!("{:#}", fixture.run(Prepare).unwrap().unwrap_err());
    assert!(error.contains("goes on for too long"), "{error}");
    assert_eq!(server.moved(), 6);
}
