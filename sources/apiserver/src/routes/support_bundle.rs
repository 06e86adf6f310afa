//! The support bundle (ours): a unit of its own makes it, with the rights that it
//! takes and without this server's memory.

use crate::app::App;
use crate::http::{Answer, Reply};
use anyhow::{Context, Result};
use api_types::SupportBundle;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

const UNIT: &str = "support-bundle.service";
/// The largest bundle that is sent; it is held whole meanwhile. Logs of that
/// size, compressed, are worth fetching in another way.
const LIMIT: u64 = 64 * 1024 * 1024;

/// `POST /actions/support-bundle`: makes it and says where it lies.
pub async fn make(app: &App) -> Reply {
    let bundle = on_thread(app, |path| {
        let bytes = fs::metadata(path)
            .with_context(|| format!("look at {}", path.display()))?
            .len();
        Ok(SupportBundle {
            path: format!("/{}", api_types::SUPPORT_BUNDLE),
            bytes,
        })
    });
    Ok(Answer::json(&bundle.await?))
}

/// `GET /report/support-bundle`: makes it and sends it.
pub async fn get(app: &App) -> Reply {
    let body = on_thread(app, |path| sysutil::fs::read_limited(path, LIMIT)).await?;
    Ok(Answer {
        status: 200,
        content_type: Some("application/gzip"),
        body,
    })
}

/// Has the bundle made, then does something with it.
async fn on_thread<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&PathBuf) -> Result<T> + Send + 'static,
) -> Result<T, Answer> {
    let host = Arc::clone(&app.host);
    let done = tokio::task::spawn_blocking(move || {
        host.units().start(UNIT)?;
        work(&host.root().join(api_types::SUPPORT_BUNDLE))
    });
    let refused = |text: String| Answer::text(500, format!("no support bundle: {text}"));
    done.await
        .map_err(|error| refused(error.to_string()))?
        .map_err(|error| refused(format!("{error:#}")))
}
