//! `/actions`: what the host is to do.

use crate::app::App;
use crate::http::{Answer, Reply};
use std::sync::Arc;

/// `POST /actions/reboot`.
pub async fn reboot(app: &App) -> Reply {
    let host = Arc::clone(&app.host);
    let work = tokio::task::spawn_blocking(move || host.units().reboot());
    match work.await {
        Ok(Ok(())) => Ok(Answer::done()),
        Ok(Err(error)) => Err(Answer::text(500, format!("reboot failed: {error:#}"))),
        Err(error) => Err(Answer::text(500, format!("reboot failed: {error}"))),
    }
}
