//! A repository of somebody else's uses a kit of this one: the folder `tests/kit-user`,
//! built and booted elsewhere.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn bulkhead(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(arguments)
        .current_dir(folder)
        .env("SHELL", "/bin/sh")
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What the machine is asked while it runs: its settings, and the file that the package
/// renders, before and after the setting is another.
const ASK: &str = "\
set -e
banner() { apiclient report support-bundle | tar -xzO --wildcards '*/config-files/etc/banner'; }
apiclient get settings.motd
banner
apiclient set motd=changed
banner
";

#[test]
#[ignore = "builds an image and boots it"]
fn a_repository_with_a_kit_from_here_builds_and_boots() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let ours = ours.canonicalize().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let theirs = folder.path().join("appliance");
    copy(&ours.join("tests/kit-user"), &theirs);
    let document = theirs.join("Bulkhead.toml");
    let text = fs::read_to_string(&document).unwrap();
    let text = text.replace("BULKHEAD", ours.to_str().unwrap());
    fs::write(&document, &text).unwrap();

    // Nobody knows the hash before the first build says it.
    let refused = bulkhead(&theirs, &["build"]);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "built with any kit");
    let hash = reason
        .split_once("has sha256 \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(hash, _)| hash)
        .unwrap();
    fs::write(
        &document,
        text.replace("sha256 = \"\"", &format!("sha256 = \"{hash}\"")),
    )
    .unwrap();
    let built = bulkhead(&theirs, &["build"]);
    assert!(built.status.success(), "not built");
    assert!(theirs.join("Bulkhead.lock").is_file());

    let run = bulkhead(&theirs, &["run", "--exec", ASK]);
    assert!(run.status.success(), "{:?}", run.status);
    let told = String::from_utf8(run.stdout).unwrap();
    assert!(told.contains("\"motd\": \"good day\""), "{told}");
    assert!(
        told.contains("This appliance says: good day\n")
            && told.ends_with("This appliance says: changed\n"),
        "{told}"
    );
}
