//! Kernel images that are fetched by blocks, and lists of blocks that are not theirs.

use std::fs;

use api_types::UpdateCommand::{Prepare, Refresh};
use api_types::UpdateState;
use boot_slots::bless::FOLDER;
use boot_slots::blocks::BlockList;
use boot_slots::verity::{BLOCK_SIZE, RootHash};
use test_vm::files::Manner;
use update_repository::predict;

use crate::fixture::{Fixture, OWN_BYTES, Server, kernel};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// The blocks of a kernel whose last 20 are new.
fn changed() -> impl Iterator<Item = u32> {
    (1..100).map(|block| block + if block < 80 { 0 } else { 7_000 })
}

/// A repository with such a kernel, whose root a host has already.
fn released(manner: Manner) -> (Fixture, RootHash, Server) {
    let fixture = Fixture::new();
    let root = fixture.release_with("2.0.0", 1..1_000, changed());
    let server = fixture.serve(manner);
    fixture.done(&[Refresh]);
    (fixture, root, server)
}

/// Whether the kernel image is there, and the one that was released.
fn is_staged(fixture: &Fixture, root: &RootHash) -> bool {
    let folder = fixture.disk().join("esp").join(FOLDER);
    let staged = fs::read(folder.join("bulkhead_2.0.0+0.efi")).unwrap();
    staged == kernel("2.0.0", root, changed())
}

/// Has the host prepare, which fails, saying this, and leaves no kernel image.
#[track_caller]
fn refused(fixture: &Fixture, says: &str) {
    let error = format!("{:#}", fixture.run(Prepare).unwrap().unwrap_err());
    assert!(error.contains(says), "{error}");
    assert_eq!(fixture.kernel_images(), ["bulkhead_1.0.0.efi"]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Available);
    let last = status.most_recent_command.unwrap();
    assert!(last.stderr.unwrap().contains(says));
}

#[test]
fn what_is_new_is_fetched_and_nothing_else() {
    let (fixture, root, server) = released(Manner::Ranges);
    fixture.done(&[Prepare]);
    assert!(is_staged(&fixture, &root));
    assert_eq!(server.root_bytes(), 0, "all of the root is there");
    assert_eq!(server.kernel_bytes(), 20 * BLOCK + OWN_BYTES as u64);
    let old = kernel("1.0.0", &fixture.running.root_hash, 1..100);
    let new = kernel("2.0.0", &root, changed());
    let length = new.len() as u64;
    let [old, new] = [old, new].map(|image| BlockList::of(&image).unwrap());
    let predicted = predict(old.digests(), new.digests(), length);
    let counted = (server.kernel_bytes(), 2);
    assert_eq!((predicted.bytes, predicted.requests), counted);
}

#[test]
fn another_file_in_the_place_of_the_running_one_is_of_no_use() {
    let (fixture, root, server) = released(Manner::Ranges);
    let folder = fixture.disk().join("esp").join(FOLDER);
    fs::write(folder.join("bulkhead_1.0.0.efi"), "damaged").unwrap();
    fixture.done(&[Prepare]);
    assert!(is_staged(&fixture, &root));
    assert_eq!(server.kernel_bytes(), 99 * BLOCK + OWN_BYTES as u64);
}

#[test]
fn a_server_without_ranges_sends_the_whole_image() {
    let (fixture, root, server) = released(Manner::Whole);
    fixture.done(&[Prepare]);
    assert!(is_staged(&fixture, &root));
    assert_eq!(server.kernel_bytes(), 99 * BLOCK + OWN_BYTES as u64);
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let (fixture, root, server) = released(Manner::CutAfter(7 * BLOCK_SIZE + 50));
    fixture.done(&[Prepare]);
    assert!(is_staged(&fixture, &root));
    // What came of a block before the connection broke comes again, twice.
    assert_eq!(
        server.kernel_bytes(),
        20 * BLOCK + OWN_BYTES as u64 + 2 * 50
    );
}

#[test]
fn a_release_without_a_list_is_fetched_whole() {
    let (fixture, root, server) = released(Manner::Ranges);
    fixture.sign_anew(|manifest, _| {
        let images = manifest["updates"][0]["images"].as_object_mut().unwrap();
        assert!(images.remove("boot_blocks").is_some());
    });
    fixture.done(&[Refresh, Prepare]);
    assert!(is_staged(&fixture, &root));
    assert_eq!(server.kernel_bytes(), 99 * BLOCK + OWN_BYTES as u64);
}

#[test]
fn attack_a_kernel_image_in_ranges_with_wrong_bytes() {
    let (fixture, ..) = released(Manner::WrongBytes);
    refused(&fixture, "is not what was signed");
}

#[test]
fn attack_a_list_of_the_kernel_image_that_runs() {
    let (fixture, _, server) = released(Manner::Ranges);
    // All of which is there, so that nothing is fetched that could be found to be wrong.
    let running = kernel("1.0.0", &fixture.running.root_hash, 1..100);
    let running = BlockList::of(&running).unwrap();
    fixture.sign_anew(|_, list| *list = running.bytes().to_vec());
    fixture.done(&[Refresh]);
    refused(&fixture, "is of another file than the one that was signed");
    assert_eq!(server.kernel_bytes(), 0);
}

#[test]
fn attack_a_list_of_another_length() {
    let (fixture, ..) = released(Manner::Ranges);
    for (length, says) in [
        (100 * 32, "digests are signed for 100"),
        (102 * 32, "digests are signed for 102"),
        (101 * 32 - 1, "are no list of digests"),
    ] {
        fixture.sign_anew(|_, list| list.resize(length, 0));
        fixture.done(&[Refresh]);
        refused(&fixture, says);
    }
}

#[test]
fn attack_a_list_without_end() {
    let (fixture, ..) = released(Manner::Ranges);
    fixture.sign_anew(|_, list| list.resize(32 << 20, 0));
    fixture.done(&[Refresh]);
    refused(&fixture, "are the most that it may have");
}
