//! `/settings/history` and `/settings/rollback` (ours): the last changes, and the way
//! back.

use super::{changed, then};
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use api_types::{HistoryEntry, HistoryOrigin};
use settings_store::{Entry, Origin};
use sysutil::time::Time;

/// `GET /settings/history`.
pub async fn list(app: &App) -> Reply {
    let store = app.store.lock().await;
    let entries: Vec<HistoryEntry> = store.history().entries().map(entry).collect();
    Ok(Answer::json(&entries))
}

fn entry(entry: &Entry) -> HistoryEntry {
    HistoryEntry {
        id: entry.id,
        time: entry.time.map(|seconds| Time(seconds).to_string()),
        origin: match entry.origin {
            Origin::UserData => HistoryOrigin::UserData,
            Origin::Api => HistoryOrigin::Api,
            Origin::Rollback => HistoryOrigin::Rollback,
        },
        keys: entry.keys.clone(),
    }
}

/// `POST /settings/rollback?to=ID`.
pub async fn roll_back(app: &App, request: &Request) -> Reply {
    let then = then(request)?;
    let id = match request.parameter("to") {
        None => return Err(Answer::text(400, "parameter to is missing")),
        Some(id) => id
            .parse()
            .map_err(|_| Answer::text(400, format!("{id:?} is not the number of a change")))?,
    };
    Ok(changed(
        app.change(then, move |store| store.roll_back(id)).await?,
    ))
}
