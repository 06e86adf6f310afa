//! A service manager for boots, which ask nothing of it.

use anyhow::{Result, bail};
use settings_agent::Units;

/// Refuses everything.
pub struct NoUnits;

impl Units for NoUnits {
    fn restart(&self, units: &[String]) -> Result<Vec<String>> {
        bail!("boot restarts nothing, not even {units:?}")
    }

    fn reload(&self, units: &[String]) -> Result<Vec<String>> {
        bail!("boot reloads nothing, not even {units:?}")
    }

    fn start(&self, unit: &str) -> Result<()> {
        bail!("boot does not start {unit}")
    }

    fn reboot(&self) -> Result<()> {
        bail!("boot does not reboot")
    }
}
