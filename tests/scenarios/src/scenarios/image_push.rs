//! Images for host containers on their way to a registry, as the user sends them there.

use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use test_vm::cluster::{Place, Registry};

/// `bulkhead image push` brings the images of admin and control to a registry with a
/// password, bit for bit, and says so where it cannot.
pub(crate) fn image_push(stage: &mut Stage<'_>) -> Result<()> {
    let parts = stage.cluster()?;
    let registry = Registry::start(
        &stage.setup().emulator,
        &parts.programs,
        &stage.fresh_folder("registry")?,
        Place::Workstation,
    )?;
    for package in ["admin", "control"] {
        let name = format!("{package}:1");
        let reference = registry.reference(&name);
        let built = bulkhead(&["image", "build", package], &[])?;
        let built = digest(Path::new(said(&built)?.trim()))?;
        let push = ["image", "push", package, &reference];
        let pushed = bulkhead(&push, &registry.client_environment())?;
        said(&pushed)?;
        let there = registry.digest(&name)?;
        ensure!(
            there == built,
            "{package} was built as {built}, and in the registry it is {there}"
        );
        stage.note(format!("{package} is in the registry as {built}"));
    }
    // Who has not logged in is told so.
    let empty = stage.fresh_folder("no-login")?.display().to_string();
    let stranger = registry
        .client_environment()
        .map(|(name, value)| match name {
            "DOCKER_CONFIG" => (name, empty.clone()),
            _ => (name, value),
        });
    let reference = registry.reference("control:2");
    let refused = bulkhead(&["image", "push", "control", &reference], &stranger)?;
    let complaint = String::from_utf8_lossy(&refused.stderr);
    let expected = format!("control was not pushed to {reference}");
    ensure!(
        !refused.status.success() && complaint.contains(&expected),
        "without a login it says {complaint}"
    );
    Ok(())
}

/// Runs this tool itself.
fn bulkhead(arguments: &[&str], environment: &[(&str, String)]) -> Result<Output> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output();
    output.with_context(|| format!("cannot run bulkhead {}", arguments.join(" ")))
}

/// What it has said, if it has succeeded.
fn said(output: &Output) -> Result<&str> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}");
    std::str::from_utf8(&output.stdout).context("it does not say text")
}

/// The digest of the image in an OCI layout.
fn digest(layout: &Path) -> Result<String> {
    let path = layout.join("index.json");
    let index = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let index: Value = serde_json::from_slice(&index)?;
    let digest = index["manifests"][0]["digest"].as_str();
    Ok(digest.context("the layout has no image")?.to_string())
}
