//! `bulkhead check`, run as a program.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Exit status, standard output and standard error.
fn check(arguments: &[&str], folder: &Path, input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Not every run reads its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn good() -> (i32, String, String) {
    (0, String::new(), String::new())
}

#[test]
fn user_data_of_launchers_has_no_fault() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/userdata");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 9);
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let for_aws = ["--variant", "aws-k8s-1.36"];
        let there = check(&[name, for_aws[0], for_aws[1]], &folder, b"");
        assert_eq!(there, good(), "{name}");
        let plain = std::fs::read(file).unwrap();
        for encoded in [
            gzip(&plain),
            STANDARD.encode(&plain).into_bytes(),
            STANDARD.encode(gzip(&plain)).into_bytes(),
        ] {
            let sent = check(&["-", for_aws[0], for_aws[1]], &folder, &encoded);
            assert_eq!(sent, good(), "{name}");
        }
        if name.starts_with("08") || name.starts_with("09") {
            let on_metal = check(&[name, "--variant=metal-k8s-1.36"], &folder, b"");
            assert_eq!(on_metal, good(), "{name}");
        }
    }
}

#[test]
fn faults_are_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for (variant, document, expected) in [
        (
            "metal-core",
            "[settings]\nmtod = 'x'\nmotd = 1\n",
            "x.toml:2: settings.mtod: unknown key; did you mean settings.motd? [skipped]\n\
             x.toml:3: settings.motd: expected…",
        ),
        (
            "aws-k8s-1.36",
            "[settings.kubernetes]\n\napi-sever = 'https://x'\n",
            "x.toml:3: settings.kubernetes.api-sever: unknown key; did you mean \
             settings.kubernetes.api-server? [fatal]\n",
        ),
        ("metal-core", "motd = 'x'", "x.toml: settings: …"),
        (
            "metal-core",
            "#!/bin/sh\n",
            "x.toml: settings: user data is a script…",
        ),
        // Another variant has it.
        (
            "metal-core",
            "[settings.kubernetes]\ncluster-name = 'x'\n",
            "x.toml:1: settings.kubernetes…",
        ),
    ] {
        std::fs::write(folder.path().join("x.toml"), document).unwrap();
        let (status, out, err) = check(&["x.toml", "--variant", variant], folder.path(), b"");
        assert_eq!((status, err.as_str()), (1, ""), "{document}");
        match expected.strip_suffix('…') {
            Some(start) => assert!(out.starts_with(start), "{document}: {out}"),
            None => assert_eq!(out, expected, "{document}"),
        }
    }
}

#[test]
fn faults_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["-", "--json", "--variant", "metal-core"];
    let (status, out, _) = check(&arguments, folder.path(), b"settings.mtod = 'x'");
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 1);
    assert_eq!(
        out,
        serde_json::json!({"faults": [{
            "key": "settings.mtod",
            "line": 1,
            "reason": "unknown key; did you mean settings.motd?",
            "suggestion": "settings.motd",
            "severity": "skipped",
        }]})
    );
    let (status, out, _) = check(&arguments, folder.path(), b"[settings]");
    assert_eq!((status, out.as_str()), (0, "{\n  \"faults\": []\n}\n"));
}

#[test]
fn what_cannot_be_checked_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, reason) in [
        (
            vec!["missing", "--variant", "metal-core"],
            "cannot open missing",
        ),
        (vec![".", "--variant", "metal-core"], "cannot read ."),
        (vec!["-", "--variant", "toaster"], "toaster"),
        (vec!["-"], "--variant"),
        (vec!["--variant", "metal-core"], "<FILE>"),
    ] {
        let (status, out, err) = check(&arguments, folder.path(), b"");
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
}
