//! The support bundle by way of the API.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::Machine;
use std::fs;

const START: &str = "start support-bundle.service";

#[tokio::test]
async fn it_is_made_and_sent_byte_by_byte() {
    let machine = Machine::new();
    machine.units.take();
    let failed = machine.ask("POST", "/actions/support-bundle", "").await;
    assert!(
        failed.starts_with("500 no support bundle: look at"),
        "{failed}"
    );
    assert_eq!(machine.units.take(), [START]);

    let path = machine.folder.path().join(api_types::SUPPORT_BUNDLE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        machine.ask("POST", "/actions/support-bundle", "").await,
        "200 {\"path\":\"/var/log/support/bulkhead-logs.tar.gz\",\"bytes\":100000}"
    );
    let answer = machine.send("GET", "/report/support-bundle", "").await;
    assert_eq!(
        (answer.status, answer.content_type),
        (200, Some("application/gzip"))
    );
    assert!(answer.body == bytes, "other bytes arrived");
    assert_eq!(machine.units.take(), [START, START]);

    // One that is too large is not held in memory.
    let file = fs::File::create(&path).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    let refused = machine.ask("GET", "/report/support-bundle", "").await;
    assert!(
        refused.starts_with("500 ") && refused.contains("larger than"),
        "{refused}"
    );
}
