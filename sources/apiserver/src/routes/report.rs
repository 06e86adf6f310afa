//! `/report`: what the host can tell about itself.

use crate::app::App;
use crate::http::{Answer, Reply, Request};
use anyhow::Result;
use api_types::ReportEntry;
use serde::Serialize;
use std::fmt::Display;

/// `GET /report`.
pub fn list() -> Reply {
    let entry = |name: &str, description: &str| ReportEntry {
        name: name.to_string(),
        description: description.to_string(),
    };
    Ok(Answer::json(&[
        entry("boot", "where the time of this boot went"),
        entry(
            "support-bundle",
            "everything to understand a problem with, as a .tar.gz",
        ),
        entry("user-data", "what became of user data"),
    ]))
}

/// `GET /report/boot` (ours).
pub async fn boot(request: &Request) -> Reply {
    told(request, diagnostics::boot_report).await
}

/// `GET /report/user-data` (ours).
pub async fn user_data(app: &App, request: &Request) -> Reply {
    let root = app.host.root().to_path_buf();
    told(request, move || settings_agent::user_data_report(&root)).await
}

/// Makes a report, which may read files and ask other programs, and tells it in
/// the format that the request asks for.
async fn told<R: Serialize + Display + Send + 'static>(
    request: &Request,
    make: impl FnOnce() -> Result<R> + Send + 'static,
) -> Reply {
    let as_json = super::wants_json(request)?;
    let report = tokio::task::spawn_blocking(make)
        .await
        .map_err(|error| Answer::text(500, format!("the report did not finish: {error}")))?
        .map_err(|error| Answer::text(500, format!("no report: {error:#}")))?;
    Ok(if as_json {
        Answer::json(&report)
    } else {
        Answer::text(200, report.to_string())
    })
}
