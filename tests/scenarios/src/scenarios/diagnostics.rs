//! What the host tells about itself.

use super::boot::check_clean;
use super::set;
use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use test_vm::api::Api;

/// In the settings, and nowhere in the bundle.
const SECRET: &str = "scenario-hunter2";
/// Files that have to be there and to say this.
const TOLD: [(&str, &str); 6] = [
    ("os-release", "ID=bulkhead"),
    ("settings.json", "told to everybody"),
    ("units/all", "apiserver.service"),
    ("journal/this-boot", "bulkhead"),
    ("kernel/selinux-enforcing", "1"),
    ("storage/mounts", "erofs"),
];

/// The support bundle comes over the API, and making it is allowed all it needs.
pub(crate) fn support_bundle(stage: &mut Stage<'_>) -> Result<()> {
    let (_, disk, machine) = stage.booted()?;
    let api = Api::at(&machine.api_socket());
    set(
        &api,
        &json!({
            "motd": "told to everybody",
            "network": { "https-proxy": format!("http://user:{SECRET}@proxy.example:3128") },
        }),
    )?;
    let answer = api.request("GET", "/report/support-bundle", None)?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let files = unpack(&answer.body)?;
    stage.note(format!(
        "{} files, {} KiB compressed",
        files.len(),
        answer.body.len() / 1024
    ));
    for (name, expected) in TOLD {
        let (path, text) = files
            .iter()
            .find(|(path, _)| path.ends_with(name))
            .with_context(|| format!("the bundle has no {name}"))?;
        ensure!(text.contains(expected), "{path} does not say {expected:?}");
    }
    for (path, text) in &files {
        ensure!(!text.contains(SECRET), "{path} tells a secret");
    }
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// The files of a support bundle.
pub(super) fn unpack(bundle: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bundle));
    let mut files = BTreeMap::new();
    for entry in archive.entries().context("the bundle is no archive")? {
        let mut entry = entry.context("the bundle is cut off")?;
        let path = entry.path().context("a path in the bundle")?;
        let path = path.display().to_string();
        let mut text = Vec::new();
        entry
            .read_to_end(&mut text)
            .with_context(|| format!("cannot read {path} in the bundle"))?;
        files.insert(path, String::from_utf8_lossy(&text).into_owned());
    }
    Ok(files)
}
