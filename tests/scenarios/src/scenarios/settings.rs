//! Settings by way of the API.

use super::set;
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Result, ensure};
use serde_json::json;
use test_vm::api::Api;
use test_vm::probe::Probe;

/// Restarted when the name of the host changes, and by nothing else here.
const NAME_SERVICE: &str = "set-hostname.service";
/// None of the settings below is its business.
const OTHER_SERVICE: &str = "kernel-variables.service";

/// Settings set by the API restart their unit once and are there after a reboot.
pub(crate) fn survive_reboot(stage: &mut Stage<'_>) -> Result<()> {
    let (_, disk, mut machine) = stage.booted()?;
    let api = Api::at(&machine.api_socket());
    let defaults = api.get("/settings")?;
    let wanted = json!({
        "motd": "set by a scenario",
        "ntp": {"time-servers": ["192.0.2.1"]},
        "network": {"hostname": "scenario-host"},
    });
    set(&api, &wanted)?;
    let after = api.get("/settings")?;
    let socket = machine.probe_socket();
    let rendered = |path: &str, text: &str| {
        Probe::connect(&socket)
            .and_then(|mut probe| probe.read(path))
            .is_ok_and(|found| found.contains(text))
    };
    // The API answers before what it has applied is done.
    let files = [
        ("/etc/motd", "set by a scenario"),
        ("/etc/chrony.conf", "192.0.2.1"),
    ];
    for (path, text) in files {
        machine.wait_until(&format!("{path} says {text:?}"), 20.0, || {
            rendered(path, text)
        })?;
    }
    for key in ["motd", "ntp", "network"] {
        ensure!(
            after[key] != defaults[key],
            "settings.{key} did not change: {}",
            after[key]
        );
    }
    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&test_vm::Wait::line(marks::BOOT_COMPLETE, BOOT + 30.0).across_resets())?;
    ensure!(
        machine.resets() == 1,
        "one reboot reset the machine {} times",
        machine.resets()
    );
    let again = api.get("/settings")?;
    for key in ["motd", "ntp", "network"] {
        ensure!(
            again[key] == after[key],
            "settings.{key} was {} and is {}",
            after[key],
            again[key]
        );
    }
    for (path, text) in files {
        ensure!(
            rendered(path, text),
            "{path} does not say {text:?} after a reboot"
        );
    }
    stage.power_off(machine)?;
    let journal = stage.journal(&disk)?;
    // Each boot starts them once; the change restarts what reads it once more.
    for (unit, expected) in [
        (NAME_SERVICE, journal.boots() + 1),
        (OTHER_SERVICE, journal.boots()),
    ] {
        let starts = journal.starts_of(unit);
        ensure!(
            starts == expected,
            "{unit} was started {starts} times instead of {expected}: {} boots with one change",
            journal.boots()
        );
    }
    Ok(())
}
