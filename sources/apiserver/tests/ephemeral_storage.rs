//! Ephemeral storage by way of the API: what the unit is told and how it answers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use api_types::{EPHEMERAL_STORAGE_DONE, EPHEMERAL_STORAGE_WORK};
use common::Machine;
use std::fs;

const START: &str = "start ephemeral-storage.service";

/// A machine on which the unit answers so.
fn answering(answer: &'static str) -> Machine {
    let machine = Machine::new();
    machine.units.take();
    let path = machine.folder.path().join(EPHEMERAL_STORAGE_DONE);
    let work = move || fs::write(&path, answer).unwrap();
    *machine.units.on_start.lock().unwrap() = Some(Box::new(work));
    machine
}

#[tokio::test]
async fn work_is_handed_over() {
    let machine = answering(r#"{"done":[]}"#);
    for (route, body, told) in [
        (
            "init",
            r#"{"filesystem":null,"disks":null}"#,
            r#"{"init":{"filesystem":null,"disks":null}}"#,
        ),
        (
            "init",
            r#"{"filesystem":"Ext4","disks":["/dev/a"]}"#,
            r#"{"init":{"filesystem":"Ext4","disks":["/dev/a"]}}"#,
        ),
        ("init", "{}", r#"{"init":{"filesystem":null,"disks":null}}"#),
        (
            "bind",
            r#"{"targets":["/var/lib/kubelet"]}"#,
            r#"{"bind":{"targets":["/var/lib/kubelet"]}}"#,
        ),
    ] {
        let uri = format!("/actions/ephemeral-storage/{route}");
        assert_eq!(machine.ask("POST", &uri, body).await, "204", "{body}");
        assert_eq!(machine.read(EPHEMERAL_STORAGE_WORK), told);
        assert_eq!(machine.units.take(), [START]);
    }
    for (route, body) in [
        ("init", r#"{"filesystem":"xfs"}"#),
        ("init", ""),
        ("bind", "{}"),
        ("bind", r#"{"targets":null}"#),
    ] {
        let uri = format!("/actions/ephemeral-storage/{route}");
        let refused = machine.ask("POST", &uri, body).await;
        assert!(
            refused.starts_with("400 the body does not fit"),
            "{refused}"
        );
        assert!(machine.units.take().is_empty());
    }
}

#[tokio::test]
async fn lists_come_as_text_or_json() {
    let machine = answering(r#"{"done":["/dev/nvme1n1","/dev/nvme2n1"]}"#);
    for (list, told) in [
        ("list-disks", "list-disks"),
        ("list-ebs-volumes", "list-ebs-volumes"),
        ("list-dirs", "list-dirs"),
    ] {
        let uri = format!("/actions/ephemeral-storage/{list}");
        let text = machine.ask("GET", &uri, "").await;
        assert_eq!(text, "200 /dev/nvme1n1\n/dev/nvme2n1");
        assert_eq!(machine.read(EPHEMERAL_STORAGE_WORK), format!("{told:?}"));
        let json = machine.ask("GET", &format!("{uri}?format=json"), "").await;
        assert_eq!(json, r#"200 ["/dev/nvme1n1","/dev/nvme2n1"]"#);
        let refused = machine.ask("GET", &format!("{uri}?format=xml"), "").await;
        assert_eq!(refused, "400 unsupported format");
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_an_old_answer_is_none() {
    let machine = answering(r#"{"refused":"/dev/a is no ephemeral disk"}"#);
    let ask = || machine.ask("POST", "/actions/ephemeral-storage/init", "{}");
    assert_eq!(
        ask().await,
        "500 ephemeral storage: /dev/a is no ephemeral disk"
    );
    *machine.units.on_start.lock().unwrap() = None;
    let silent = ask().await;
    assert!(
        silent.starts_with("500 ephemeral storage: opening"),
        "{silent}"
    );
}
