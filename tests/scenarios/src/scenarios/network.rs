//! What the machine does on a network.

use super::boot::check_clean;
use super::set;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;
use test_vm::api::Api;
use test_vm::probe::Probe;
use test_vm::services::NTP_LOG;
use test_vm::wire::Question;
use test_vm::{Machine, Services};

/// How far the test's clock is ahead: more than any drift, less than a day, so
/// that nothing expires.
const AHEAD: i64 = 5 * 3600;

/// DHCP lease and time from a server named by user data.
pub(crate) fn lease_and_time(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.services = Services {
        ntp: Some(AHEAD),
        ..Services::default()
    };
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

/// A bond of two cards and a VLAN on it, as the API is given them.
fn bond_and_vlan(cards: [&str; 2]) -> String {
    let [first, second] = cards;
    format!(
        r#"version = 3

[bond0]
primary = true
kind = "bond"
mode = "active-backup"
interfaces = ["{first}", "{second}"]
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

/// How long the host may take to answer a frame, on the clock.
const ANSWER: Duration = Duration::from_secs(2);

/// A network configuration given to the API holds from the next boot on, and its bond
/// survives the loss of either cable.
pub(crate) fn configured(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk) = stage.machine(Which::Twin, "machine")?;
    builder.cards = 2;
    let mut machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    let socket = machine.probe_socket();
    let read = |path: &str| -> Result<String> {
        let text = Probe::connect(&socket)?.read(path)?;
        Ok(text.trim().to_string())
    };
    let configure = |document: &str| {
        let document = Some(("application/toml", document));
        api.send("POST", "/actions/network/configure", document)
    };
    let refused = configure("version = 3\n[eno1]\ndhcp5 = true\n")?;
    ensure!(
        refused.status == 400 && refused.text().contains("line 3"),
        "a wrong document was answered with {}: {}",
        refused.status,
        refused.text()
    );
    let found = read("/proc/net/dev")?;
    let cards = physical_cards(&found);
    let [first, second] = cards[..] else {
        anyhow::bail!("two cards named by their place were expected: {found}");
    };
    // The bond has a hardware address of its own, which the emulator's network knows
    // once the host has asked for something: the time, here.
    set(&api, &json!({ "ntp": { "time-servers": ["10.0.2.2"] } }))?;
    let accepted = configure(&bond_and_vlan([first, second]))?;
    ensure!(accepted.status == 204, "{}", accepted.text());

    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&test_vm::Wait::line(marks::BOOT_COMPLETE, BOOT + 30.0).across_resets())?;
    // What is read from here on has come through the bond.
    machine.wait_until("the API answers over the bond", 30.0, || api.answers())?;
    for (path, expected) in [
        ("/proc/net/bonding/bond0", "fault-tolerance (active-backup)"),
        ("/proc/net/vlan/config", "| 40  | bond0"),
        ("/run/netdog/primary_interface", "bond0"),
        ("/run/netdog/current_ip", "10.0.2.15"),
    ] {
        let found = read(path)?;
        ensure!(
            found.contains(expected),
            "{path} does not say {expected:?}: {found}"
        );
    }
    on_its_vlan_only(&machine)?;

    // Each is lost once, and is back before the other one goes.
    for card in [0, 1] {
        machine.set_link(card, false)?;
        let other = [second, first][card];
        machine.wait_until(&format!("{other} carries the bond"), 30.0, || {
            api.answers() && read(BOND).is_ok_and(|bond| active(&bond) == Some(other))
        })?;
        on_its_vlan_only(&machine)?;
        machine.set_link(card, true)?;
        machine.wait_until("both cards are up", 30.0, || {
            read(BOND).is_ok_and(|bond| !bond.contains("MII Status: down"))
        })?;
    }
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// A host without a network says on its console what is to be seen of its cards, since
/// nobody can ask it, and works when the cable is in.
pub(crate) fn outage(stage: &mut Stage<'_>) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Twin, "machine")?;
    let mut machine = stage.start(&builder)?;
    machine.set_link(0, false)?;
    for said in NO_LINK {
        machine.wait_for(said, BOOT + OUTAGE)?;
        machine.rewind();
    }
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    machine.set_link(0, true)?;
    machine.wait_for("bulkhead: network: there is one again", OUTAGE)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers over the network", OUTAGE, || api.answers())?;
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// What the console says of a card whose cable is not in.
pub(super) const NO_LINK: [&str; 2] = [
    "bulkhead: network: none: e",
    "has no link: is its cable in, and the port at its other end on?",
];

/// Processor seconds in which what takes a host a minute comes.
const OUTAGE: f64 = 60.0;

const BOND: &str = "/proc/net/bonding/bond0";

/// The names of the network cards in `/proc/net/dev`, which also lists what the host
/// has made itself.
fn physical_cards(devices: &str) -> Vec<&str> {
    let mut cards: Vec<&str> = devices
        .lines()
        .filter_map(|line| line.trim_start().split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("en"))
        .collect();
    cards.sort_unstable();
    cards
}

/// The card that carries a bond, by its file in `/proc`.
fn active(bond: &str) -> Option<&str> {
    bond.lines()
        .find_map(|line| line.strip_prefix("Currently Active Slave: "))
}

/// The host answers for its address on the VLAN that it was given, and is on no other.
fn on_its_vlan_only(machine: &Machine) -> Result<()> {
    let question = Question {
        vlan: Some(40),
        target: Ipv4Addr::new(10, 40, 0, 7),
        sender: Ipv4Addr::new(10, 40, 0, 1),
    };
    let wire = machine.wire()?;
    machine.wait_until("the host answers on VLAN 40", 20.0, || {
        wire.ask(question, ANSWER)
            .is_ok_and(|answer| answer.is_some())
    })?;
    let elsewhere = Question {
        vlan: Some(41),
        ..question
    };
    let answer = wire.ask(elsewhere, ANSWER)?;
    ensure!(answer.is_none(), "the host answered on VLAN 41");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says_of_the_network() {
        let devices =
            "Inter-|   Receive\n face |bytes\n    lo: 1 2\nenp0s4: 3 4\nenp0s3: 5 6\n bond0: 0\n";
        assert_eq!(physical_cards(devices), ["enp0s3", "enp0s4"]);
        let bond = "Bonding Mode: fault-tolerance (active-backup)\nCurrently Active Slave: enp0s4\nMII Status: up\n";
        assert_eq!(active(bond), Some("enp0s4"));
        assert_eq!(active("Currently Active Slave: None"), Some("None"));
    }
}
