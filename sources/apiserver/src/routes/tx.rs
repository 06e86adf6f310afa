//! `/tx`: transactions.

use super::{keys, refusal, transaction};
use crate::app::App;
use crate::http::{Answer, Reply, Request};
use settings::Key;
use std::sync::Arc;

/// `GET /tx`.
pub async fn get(app: &App, request: &Request) -> Reply {
    let change = app.store.lock().await.pending().get(transaction(request));
    Ok(Answer::json(change.values().tree()))
}

/// `DELETE /tx`.
pub async fn delete(app: &App, request: &Request) -> Reply {
    let dropped = app
        .store
        .lock()
        .await
        .drop_transaction(transaction(request));
    Ok(names(&dropped))
}

/// `GET /tx/list`.
pub async fn list(app: &App) -> Reply {
    Ok(Answer::json(&app.store.lock().await.pending().names()))
}

/// `POST /tx/commit`.
pub async fn commit(app: &App, request: &Request) -> Reply {
    Ok(names(&committed(app, transaction(request)).await?))
}

/// `POST /tx/apply`.
pub async fn apply(app: &App, request: &Request) -> Reply {
    app.apply_soon(keys(request)?);
    Ok(Answer::done())
}

/// `POST /tx/commit_and_apply`.
pub async fn commit_and_apply(app: &App, request: &Request) -> Reply {
    let keys = committed(app, transaction(request)).await?;
    let answer = names(&keys);
    app.apply_soon(Some(keys));
    Ok(answer)
}

/// Commits on another thread, for it waits for the disk.
async fn committed(app: &App, tx: &str) -> Result<Vec<Key>, Answer> {
    let tx = tx.to_string();
    let mut store = Arc::clone(&app.store).lock_owned().await;
    tokio::task::spawn_blocking(move || store.commit(&tx))
        .await
        .map_err(|error| Answer::text(500, format!("commit did not finish: {error}")))?
        .map_err(refusal)
}

fn names(keys: &[Key]) -> Answer {
    let names: Vec<String> = keys.iter().map(Key::to_string).collect();
    Answer::json(&names)
}
