//! What is asked of the host's API.

use crate::exec;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

const APICLIENT: &str = "/usr/local/bin/apiclient";
/// How often the admin container is asked whether it runs, and with which pause.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Enables the admin container, or disables it.
pub fn set_admin(enabled: bool) -> Result<()> {
    let setting = format!("host-containers.admin.enabled={enabled}");
    let status = Command::new(APICLIENT).args(["set", &setting]).status();
    let status = status.with_context(|| format!("cannot run {APICLIENT}"))?;
    if !status.success() {
        bail!("the API has not taken {setting}: {status}");
    }
    Ok(())
}

/// Opens a shell in the admin container, which is enabled for that.
pub fn enter_admin() -> Result<()> {
    set_admin(true)?;
    for _ in 0..TRIES {
        let runs = Command::new(APICLIENT)
            .args(["exec", "-T", "admin", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if runs.is_ok_and(|status| status.success()) {
            return Err(exec(
                Command::new(APICLIENT).args(["exec", "admin", "bash"]),
            ));
        }
        thread::sleep(PAUSE);
    }
    bail!(
        "the admin container does not run after {} s; its settings are what \
         `apiclient get host-containers.admin` says",
        PAUSE.as_secs() * u64::from(TRIES)
    )
}
