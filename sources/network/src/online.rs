//! Waits until the network can be used.

use crate::resolver::networkd_state;
use anyhow::Result;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// For this long. A host without a network goes on without it.
const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(200);

/// Waits. That there is no network is no failure.
pub fn wait() -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if is_online(&networkd_state(Path::new("/"))?) {
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
