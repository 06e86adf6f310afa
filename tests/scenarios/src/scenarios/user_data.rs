//! User data at first boot.

use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, ensure};
use early_boot::fake::{self, Names};
use std::fs;
use test_vm::Wait;
use test_vm::api::Api;
use test_vm::probe::Probe;

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

/// User data on a config drive is applied: a disc in a CD drive, and a disk.
pub(crate) fn on_config_drive(stage: &mut Stage<'_>) -> Result<()> {
    const DRIVE: &str = "config-drive.iso";
    let names = Names {
        rock_ridge: true,
        joliet: true,
    };
    let path = &["OPENSTAC=openstack", "LATEST=latest", "USER_DAT=user_data"][..];
    for kind in ["disc", "disk"] {
        let (mut builder, _) = stage.machine(Which::Twin, kind)?;
        let motd = format!("from a {kind}");
        let text = format!(
            "[settings]\nmotd = \"{motd}\"\n\
             kernel.modules.xfs = {{ allowed = true, autoload = true }}\n"
        );
        let drive = fake::iso9660("config-2", names, &[(path, text.as_bytes())]);
        let file = stage.folder().join(kind).join(DRIVE);
        fs::write(&file, drive).with_context(|| format!("cannot write {}", file.display()))?;
        match kind {
            "disc" => builder.disc = Some(DRIVE.to_string()),
            _ => builder.extra_disks.push(DRIVE.into()),
        }
        let machine = stage.boot(&builder)?;
        let api = Api::at(&machine.api_socket());
        let told = report(&api)?;
        ensure!(
            told.contains("config drive") && told.contains(": accepted"),
            "the report says nothing of the config drive: {told}"
        );
        let held = api.get("/settings?keys=settings.motd")?;
        ensure!(held["motd"] == motd, "settings.motd is {}", held["motd"]);
        let modules = Probe::connect(&machine.probe_socket())?.read("/proc/modules")?;
        ensure!(
            modules.lines().any(|line| line.starts_with("xfs ")),
            "a module of the settings is not loaded: {modules}"
        );
        stage.power_off(machine)?;
    }
    Ok(())
}

/// A fault in user data costs its setting, and is named; the rest is taken.
pub(crate) fn broken(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.user_data = Some(
        b"[settings]\nmotd = \"taken\"\n\n[settings.ntp]\ntime-server = [\"10.0.2.2\"]\n".to_vec(),
    );
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("settings.ntp.time-server", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    let api = Api::at(&machine.api_socket());
    let report = report(&api)?;
    ensure!(
        report.contains("line 5: settings.ntp.time-server") && report.contains("[skipped]"),
        "the report does not name the key: {report}"
    );
    let settings = api.get("/settings?prefix=settings.")?;
    ensure!(
        settings["motd"] == "taken",
        "what is right in user data was not taken: settings.motd is {}",
        settings["motd"]
    );
    ensure!(
        settings["ntp"]["time-servers"] != serde_json::json!(["10.0.2.2"]),
        "a faulty key was taken"
    );
    Ok(())
}

/// A fault in what decides the host's security stops the boot behind the API,
/// until user data is corrected.
pub(crate) fn stops(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.user_data = Some(
        b"[settings]\nmotd = \"never seen\"\n\n[settings.pki.corp]\ntrusted = \"yes\"\n".to_vec(),
    );
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("settings.pki.corp.trusted", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    machine.wait_for("user data stops this boot", BOOT)?;
    machine.wait_for(marks::API_READY, BOOT)?;
    // The judge of the boot does not restart in search of a better image.
    machine.wait_for("boot not complete: user data stops it", BOOT)?;
    machine.wait_for("going on with image", BOOT)?;
    let api = Api::at(&machine.api_socket());
    let told = report(&api)?;
    ensure!(
        told.contains("settings.pki.corp.trusted") && told.contains("[fatal]"),
        "the report does not name the key: {told}"
    );
    let motd = api.get("/settings?prefix=settings.motd")?;
    ensure!(
        motd["motd"] != "never seen",
        "a part of user data that stops the boot was applied"
    );
    stage.power_off(machine)?;

    builder.user_data = Some(b"[settings]\nmotd = \"corrected\"\n".to_vec());
    let machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    let motd = api.get("/settings?prefix=settings.motd")?;
    ensure!(
        motd["motd"] == "corrected",
        "after user data was corrected settings.motd is {}",
        motd["motd"]
    );
    Ok(())
}

fn report(api: &Api) -> Result<String> {
    let report = api.request("GET", "/report/user-data", None)?;
    ensure!(
        report.status == 200,
        "the report is refused with {}: {}",
        report.status,
        report.text()
    );
    Ok(report.text().to_string())
}
