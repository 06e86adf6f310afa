//! Sound settings that the machine cannot follow.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::Machine;
use std::fs;

#[tokio::test]
async fn under_secure_boot_kernel_parameters_are_refused_with_what_to_do_instead() {
    let machine = Machine::new();
    let parameters = r#"{"boot":{"kernel-parameters":{"quiet":[]}},"motd":"x"}"#;
    let variable = machine
        .folder
        .path()
        .join("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    fs::create_dir_all(variable.parent().unwrap()).unwrap();
    fs::write(&variable, [6, 0, 0, 0, 1]).unwrap();
    machine.ask("PATCH", "/settings", parameters).await;
    let refused = machine.ask("POST", "/tx/commit_and_apply", "").await;
    assert!(refused.starts_with("400 "), "{refused}");
    assert!(
        refused.contains("settings.boot.kernel: under Secure Boot"),
        "{refused}"
    );
    assert!(refused.contains("[kernel] arguments"), "{refused}");
    let held = machine.ask("GET", "/settings", "").await;
    assert!(!held.contains("quiet"), "{held}");

    // The same is fine where the firmware takes unsigned programs.
    fs::write(&variable, [6, 0, 0, 0, 0]).unwrap();
    let taken = machine.ask("POST", "/tx/commit", "").await;
    assert!(taken.starts_with("200 "), "{taken}");
    // And where Secure Boot is switched on later, other settings can be set.
    fs::write(&variable, [6, 0, 0, 0, 1]).unwrap();
    machine.ask("PATCH", "/settings", r#"{"motd":"y"}"#).await;
    let taken = machine.ask("POST", "/tx/commit", "").await;
    assert!(taken.starts_with("200 "), "{taken}");
}
