//! `emergency`: systemd could not start what the system needs. There is no
//! shell to offer, so the cause is said on the console and the machine starts
//! again, unless it has done so too often already.

use anyhow::Result;
use boot_slots::record::FAILURES_BEFORE_LAST;

use crate::health::{GRACE, failed_units, restart};
use crate::image::{Image, boot_record};

/// Says what failed; restarts.
pub fn run() -> Result<()> {
    let failed = match failed_units() {
        Ok(units) if units.is_empty() => "no unit has failed: somebody asked for this".to_owned(),
        Ok(units) => format!("failed: {}", units.join(", ")),
        Err(error) => format!("the failed units cannot be listed: {error:#}"),
    };
    sysutil::console::alarm("the system cannot start");
    sysutil::console::alarm(&failed);

    let failures = failures().unwrap_or_else(|error| {
        tracing::warn!("the boot record cannot be read: {error:#}");
        0
    });
    if failures > FAILURES_BEFORE_LAST {
        sysutil::console::alarm(&format!(
            "{failures} boots in a row have failed; switch the machine off and on to try again"
        ));
        return Ok(());
    }
    sysutil::console::alarm(&format!("restarting in {} seconds", GRACE.as_secs()));
    std::thread::sleep(GRACE);
    restart()
}

/// How often the running image failed to complete a boot, this one included.
fn failures() -> Result<u32> {
    let image = Image::running()?;
    let (record, _) = boot_record()?;
    Ok(record.failures(&image.root))
}
