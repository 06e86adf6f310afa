//! User data at first boot.

use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Result, ensure};
use test_vm::Wait;
use test_vm::api::Api;

/// User data in a file of the EFI system partition is applied once.
pub(crate) fn on_esp(stage: &mut Stage<'_>) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Twin, "machine")?;
    disk.esp()?
        .write("user-data.toml", b"[settings]\nmotd = \"from the ESP\"\n")?;
    drop(disk);
    let mut machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    let motd = api.get("/settings?keys=settings.motd")?;
    ensure!(
        motd["motd"] == "from the ESP",
        "settings.motd is {}",
        motd["motd"]
    );
    // What is set later must not be undone by the same user data.
    super::set(&api, &serde_json::json!({"motd": "changed later"}))?;
    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&Wait::line(marks::API_READY, BOOT).across_resets())?;
    let motd = api.get("/settings?keys=settings.motd")?;
    ensure!(
        motd["motd"] == "changed later",
        "after a reboot settings.motd is {}",
        motd["motd"]
    );
    Ok(())
}

/// Broken user data is refused whole, and its key is named.
pub(crate) fn broken(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.user_data = Some(
        b"[settings]\nmotd = \"never seen\"\n\n[settings.ntp]\ntime-server = [\"10.0.2.2\"]\n"
            .to_vec(),
    );
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("settings.ntp.time-server", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    let api = Api::at(&machine.api_socket());
    let report = api.request("GET", "/report/user-data", None)?;
    ensure!(
        report.status == 200 && report.text().contains("settings.ntp.time-server"),
        "the report does not name the key ({}): {}",
        report.status,
        report.text()
    );
    let motd = api.get("/settings?prefix=settings.motd")?;
    ensure!(
        motd["motd"] != "never seen",
        "a part of broken user data was applied"
    );
    Ok(())
}
