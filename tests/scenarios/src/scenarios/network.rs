//! What the machine does on a network.

use super::boot::check_clean;
use super::set;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use test_vm::Services;
use test_vm::api::Api;
use test_vm::probe::Probe;
use test_vm::services::NTP_LOG;

/// How far the test's clock is ahead: more than any drift, less than a day, so
/// that nothing expires.
const AHEAD: i64 = 5 * 3600;

/// DHCP lease and time from a server named by user data.
pub(crate) fn lease_and_time(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.services = Services { ntp: Some(AHEAD) };
    // The emulator's network has the workstation's side, here the test's own
    // namespace, at this address.
    builder.user_data = Some(b"[settings.ntp]\ntime-servers = [\"10.0.2.2\"]\n".to_vec());
    let machine = stage.boot(&builder)?;
    // That the API answers through the network card shows the lease.
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers over the network", 30.0, || api.answers())?;
    let log = builder.run.join(NTP_LOG);
    machine.wait_until("the time server is asked", 40.0, || {
        fs::metadata(&log).is_ok_and(|data| data.len() > 0)
    })?;
    let before = api.request("GET", "/os", None)?;
    let date = before
        .header("date")
        .context("the API sends no date")?
        .to_string();
    stage.note(format!(
        "the host's clock said {date} when the time server was asked"
    ));
    stage.power_off(machine)
}

/// A bond and a VLAN on it, as the API was given them.
fn bond_and_vlan(card: &str) -> String {
    format!(
        r#"version = 3

[bond0]
primary = true
kind = "bond"
mode = "active-backup"
interfaces = ["{card}"]
monitoring = {{ miimon-frequency-ms = 100, miimon-updelay-ms = 0, miimon-downdelay-ms = 0 }}
static4 = {{ addresses = ["10.0.2.15/24"] }}

[[bond0.route]]
to = "default"
via = "10.0.2.2"

[storage]
kind = "vlan"
device = "bond0"
id = 40
static4 = {{ addresses = ["10.40.0.7/16"] }}
"#
    )
}

/// A network configuration given to the API holds from the next boot on.
pub(crate) fn configured(stage: &mut Stage<'_>) -> Result<()> {
    let (_, disk, mut machine) = stage.booted()?;
    let api = Api::at(&machine.api_socket());
    let socket = machine.probe_socket();
    let read = |path: &str| -> Result<String> {
        let text = Probe::connect(&socket)?.read(path)?;
        Ok(text.trim().to_string())
    };
    let configure = |document: &str| {
        let document = Some(("application/toml", document));
        api.send("POST", "/actions/network/configure", document)
    };
    let card = read("/run/netdog/primary_interface")?;
    let refused = configure("version = 3\n[eno1]\ndhcp5 = true\n")?;
    ensure!(
        refused.status == 400 && refused.text().contains("line 3"),
        "a wrong document was answered with {}: {}",
        refused.status,
        refused.text()
    );
    // The bond has a hardware address of its own, which the emulator's network knows
    // once the host has asked for something: the time, here.
    set(&api, &json!({ "ntp": { "time-servers": ["10.0.2.2"] } }))?;
    let accepted = configure(&bond_and_vlan(&card))?;
    ensure!(accepted.status == 204, "{}", accepted.text());

    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&test_vm::Wait::line(marks::BOOT_COMPLETE, BOOT + 30.0).across_resets())?;
    // What is read from here on has come through the bond.
    machine.wait_until("the API answers over the bond", 30.0, || api.answers())?;
    for (path, expected) in [
        ("/proc/net/bonding/bond0", "fault-tolerance (active-backup)"),
        (
            "/proc/net/bonding/bond0",
            &format!("Currently Active Slave: {card}"),
        ),
        ("/proc/net/vlan/config", "| 40  | bond0"),
        ("/proc/net/fib_trie", "10.40.0.7"),
        ("/run/netdog/primary_interface", "bond0"),
        ("/run/netdog/current_ip", "10.0.2.15"),
    ] {
        let found = read(path)?;
        ensure!(
            found.contains(expected),
            "{path} does not say {expected:?}: {found}"
        );
    }
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}
