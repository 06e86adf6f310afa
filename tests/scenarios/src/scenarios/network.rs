//! What the machine does on a network.

use crate::stage::{Stage, Which};
use anyhow::{Context, Result};
use std::fs;
use test_vm::Services;
use test_vm::api::Api;
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
