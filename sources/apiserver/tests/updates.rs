//! Updates by way of the API: which unit is started, and what the updater leaves behind.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use api_types::{UPDATE_ANSWER, UPDATE_LOCK, UPDATE_STATUS};
use common::Machine;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};

/// A machine on which the updater answers so.
fn answering(answer: &'static str) -> Machine {
    let machine = Machine::new();
    machine.units.take();
    let path = machine.folder.path().join(UPDATE_ANSWER);
    let work = move || fs::write(&path, answer).unwrap();
    *machine.units.on_start.lock().unwrap() = Some(Box::new(work));
    machine
}

#[tokio::test]
async fn each_action_is_a_unit() {
    let machine = answering(r#""begun""#);
    for (action, command) in [
        ("refresh-updates", "refresh"),
        ("prepare-update", "prepare"),
        ("activate-update", "activate"),
        ("deactivate-update", "deactivate"),
    ] {
        let uri = format!("/actions/{action}");
        assert_eq!(machine.ask("POST", &uri, "").await, "204");
        let started = format!("start update@{command}.service");
        assert_eq!(machine.units.take(), [started]);
    }
}

#[tokio::test]
async fn a_refusal_has_the_updaters_status() {
    let machine = answering(r#"{"refused":{"status":409,"why":"not allowed: it runs"}}"#);
    let ask = || machine.ask("POST", "/actions/deactivate-update", "");
    assert_eq!(ask().await, "409 not allowed: it runs");
    // The unit is active still, so that starting it has started nothing.
    *machine.units.on_start.lock().unwrap() = None;
    assert_eq!(ask().await, "423 another update command is at work");
    machine
        .units
        .units_fail
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = ask().await;
    assert!(
        failed.starts_with("500 cannot deactivate updates:"),
        "{failed}"
    );
}

#[tokio::test]
async fn the_status_is_the_updaters() {
    let machine = Machine::new();
    let ask = || machine.ask("GET", "/updates/status", "");
    assert!(ask().await.starts_with("404 "));
    let status = r#"{"update_state":"Idle","available_updates":["1.1.0"],"chosen_update":null,"active_partition":null,"staging_partition":null,"most_recent_command":null}"#;
    let path = machine.folder.path().join(UPDATE_STATUS);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!(r#"{{"record":{{}},"status":{status}}}"#)).unwrap();
    assert_eq!(ask().await, format!("200 {status}"));
    let lock = machine.folder.path().join(UPDATE_LOCK);
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = Flock::lock(File::create(lock).unwrap(), FlockArg::LockExclusive).unwrap();
    assert_eq!(ask().await, "423 another update command is at work");
    drop(held);
    assert!(ask().await.starts_with("200 "));
    fs::write(&path, "torn").unwrap();
    assert!(ask().await.starts_with("500 no update status: parse "));
}
