//! `/actions/network`: the host's own network.

use crate::app::App;
use crate::http::{Answer, Reply, Request};
use network::sources::{StoreError, store};
use std::sync::Arc;

/// `POST /actions/network/configure`: keeps the body, a `net.toml`, for the next
/// boot.
pub async fn configure(app: &App, request: &Request) -> Reply {
    let host = Arc::clone(&app.host);
    let bytes = request.body.clone();
    let work = tokio::task::spawn_blocking(move || store(host.root(), &bytes));
    match work.await {
        Ok(Ok(())) => Ok(Answer::done()),
        Ok(Err(error @ StoreError::Refused(_))) => Err(Answer::text(400, error.to_string())),
        Ok(Err(error @ StoreError::Write(_))) => Err(Answer::text(500, error.to_string())),
        Err(error) => Err(Answer::text(500, format!("storing failed: {error}"))),
    }
}
