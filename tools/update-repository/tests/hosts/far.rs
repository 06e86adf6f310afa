//! Many ranges of a file, fetched over several connections at once.

use std::time::{Duration, Instant};

use api_types::UpdateCommand::{Prepare, Refresh};
use boot_slots::verity::{BLOCK_SIZE, RootHash};
use test_vm::files::Manner;

use crate::fixture::{Fixture, OWN_BYTES, Server};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Runs of new blocks in the root, and blocks of each.
const RUNS: u64 = 24;
const RUN: u64 = 3;

/// A host that has most of what is released.
fn released(manner: Manner) -> (Fixture, RootHash, Server) {
    let fixture = Fixture::new();
    let blocks = (1..1_000).map(|block| {
        block
            + if block % 40 < 3 && block > 3 {
                5_000
            } else {
                0
            }
    });
    let root = fixture.release("2.0.0", blocks);
    let server = fixture.serve(manner);
    fixture.done(&[Refresh]);
    (fixture, root, server)
}

#[test]
fn a_server_that_is_far_away_is_asked_by_four_connections() {
    const ANSWER: u64 = 100;
    let (fixture, root, server) = released(Manner::Far(ANSWER));
    let started = Instant::now();
    fixture.done(&[Prepare]);
    let took = started.elapsed();
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), RUNS * RUN * BLOCK);
    assert_eq!(server.kernel_bytes(), OWN_BYTES as u64);
    assert_eq!((server.requests(), server.at_once()), (RUNS + 2, 4));
    let one_by_one = Duration::from_millis(server.requests() * ANSWER);
    println!("{took:?}; answers one after the other take {one_by_one:?}");
    assert!(took < one_by_one, "{took:?}");
}

#[test]
fn each_connection_that_breaks_goes_on_where_it_was() {
    // After a block and a piece of the next one.
    let (fixture, root, server) = released(Manner::CutAfter(BLOCK_SIZE + 100));
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), RUNS * (RUN * BLOCK + (RUN - 1) * 100));
}

#[test]
fn a_connection_that_stalls_holds_up_its_range_alone() {
    let (mut fixture, root, server) = released(Manner::StallsOnce);
    fixture.connector = fixture.connector.with_silence(Duration::from_secs(1));
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.requests(), RUNS + 2 + 1);
}

#[test]
fn a_server_that_knows_ranges_no_more_sends_the_whole_file() {
    let (fixture, root, server) = released(Manner::WholeLater);
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    // What several connections were sent before that was clear is lost.
    let whole = 999 * BLOCK;
    assert!((whole..=6 * whole).contains(&server.root_bytes()));
}

#[test]
fn attack_wrong_bytes_for_one_connection_of_several() {
    let (fixture, ..) = released(Manner::WrongBytes);
    let error = format!("{:#}", fixture.run(Prepare).unwrap().unwrap_err());
    assert!(error.contains("is not what was signed"), "{error}");
    assert!(fixture.slot_b_is_empty());
}
