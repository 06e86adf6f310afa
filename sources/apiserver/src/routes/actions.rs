//! `/actions`: what the host is to do.

use crate::app::App;
use crate::http::{Answer, Reply};
use std::sync::Arc;
use std::time::Duration;

/// How long a reboot waits for settings that are still being applied.
const APPLYING: Duration = Duration::from_secs(60);

/// `POST /actions/reboot`. What was committed before it is applied first, for some of
/// it, such as kernel parameters, is written for the next boot to find.
pub async fn reboot(app: &App) -> Reply {
    if tokio::time::timeout(APPLYING, app.apply_wanted())
        .await
        .is_err()
    {
        let seconds = APPLYING.as_secs();
        tracing::warn!("settings are still being applied after {seconds} s; the host reboots");
    }
    let host = Arc::clone(&app.host);
    let work = tokio::task::spawn_blocking(move || host.units().reboot());
    match work.await {
        Ok(Ok(())) => Ok(Answer::done()),
        Ok(Err(error)) => Err(Answer::text(500, format!("reboot failed: {error:#}"))),
        Err(error) => Err(Answer::text(500, format!("reboot failed: {error}"))),
    }
}
