//! `/report`: what the host can tell about itself.

use crate::app::App;
use crate::http::{Answer, Reply, Request};
use anyhow::Result;
use api_types::ReportEntry;
use serde::Serialize;
use std::fmt::Display;
use std::sync::Arc;

/// The unit that makes the node report, where there is a kubelet.
const NODE_REPORT: &str = "node-report.service";
const UNITS: &str = "usr/lib/systemd/system";

/// `GET /report`.
pub fn list(app: &App) -> Reply {
    let entry = |name: &str, description: &str| ReportEntry {
        name: name.to_string(),
        description: description.to_string(),
    };
    let mut reports = vec![
        entry("boot", "where the time of this boot went"),
        entry(
            "support-bundle",
            "everything to understand a problem with, as a .tar.gz",
        ),
        entry("user-data", "what became of user data"),
    ];
    if is_node(app) {
        reports.insert(1, entry("node", "what keeps this node from its work"));
    }
    Ok(Answer::json(&reports))
}

fn is_node(app: &App) -> bool {
    app.host.root().join(UNITS).join(NODE_REPORT).exists()
}

/// `GET /report/boot` (ours).
pub async fn boot(request: &Request) -> Reply {
    told(request, diagnostics::boot_report).await
}

/// `GET /report/node` (ours). A unit makes it, since the server may not read the
/// journal.
pub async fn node(app: &App, request: &Request) -> Reply {
    if !is_node(app) {
        return Err(Answer::text(
            404,
            "no node report: this variant has no kubelet",
        ));
    }
    let host = Arc::clone(&app.host);
    told(request, move || {
        host.units().start(NODE_REPORT)?;
        diagnostics::node::node_report(host.root())
    })
    .await
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
