//! Settings by way of the API.

use super::set;
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Result, ensure};
use serde_json::json;
use test_vm::api::Api;
use test_vm::probe::Probe;

/// Restarted when the time servers change, and by nothing else here.
const TIME_SERVICE: &str = "chronyd.service";
/// None of the settings below is its business.
const OTHER_SERVICE: &str = "resolver.service";

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
    let socket = machine.probe_socket();
    // A new one each time that the service manager starts the unit.
    let invocation = || -> Result<String> {
        let show = ["systemctl", "show", "--property=InvocationID", TIME_SERVICE];
        Ok(Probe::connect(&socket)?.run(&show)?.stdout)
    };
    let invocation_before = invocation()?;
    set(&api, &wanted)?;
    let after = api.get("/settings")?;
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
    machine.wait_until(&format!("{TIME_SERVICE} is restarted"), 20.0, || {
        invocation().is_ok_and(|now| now != invocation_before)
    })?;
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
        (TIME_SERVICE, journal.boots() + 1),
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
