//! Waits until the network can be used.

use crate::resolver::{SIZE_LIMIT, STATE, STATE_FOLDER};
use anyhow::Result;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use sysutil::fs::read_text_if_present;

/// For this long. A host without a network goes on without it.
const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(200);

/// Waits. That there is no network is no failure.
pub fn wait() -> Result<()> {
    let path = Path::new("/").join(STATE_FOLDER).join(STATE);
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let state = read_text_if_present(&path, SIZE_LIMIT)?;
        if state.as_deref().is_some_and(is_online) {
            return Ok(());
        }
        thread::sleep(INTERVAL);
    }
    tracing::warn!("no network after {} s; going on without", LIMIT.as_secs());
    Ok(())
}

/// Whether networkd's summary says that there is an interface with an address by which
/// others are reached.
pub fn is_online(state: &str) -> bool {
    state.lines().any(|line| line == "OPER_STATE=routable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_leads_elsewhere_will_do() {
        let state = |oper: &str| format!("# private\nOPER_STATE={oper}\nCARRIER_STATE=carrier\n");
        for (oper, expected) in [("routable", true), ("degraded", false), ("carrier", false)] {
            assert_eq!(is_online(&state(oper)), expected, "{oper}");
        }
        assert!(!is_online("ADDRESS_STATE=routable\n"));
    }
}
