//! `/tx`: transactions.

use super::{changed, keys, then, transaction};
use crate::app::{App, Then};
use crate::http::{Answer, Reply, Request};
use api_types::{KeyStrength, TransactionWithStrength};
use settings::{Document, Key};
use settings_agent::Host;
use settings_store::Strength;
use settings_store::files::Folder;
use settings_store::{Error, Store};
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

/// `GET /v2/tx`.
pub async fn get_with_strength(app: &App, request: &Request) -> Reply {
    let change = app.store.lock().await.pending().get(transaction(request));
    let strengths = [
        (&change.weak, Strength::Weak),
        (&change.strong, Strength::Strong),
    ];
    let metadata = strengths
        .into_iter()
        .flat_map(|(values, strength)| values.keys().into_iter().map(move |key| (key, strength)))
        .map(|(key, strength)| {
            let strength = strength.to_string();
            (key.to_string(), KeyStrength { strength })
        })
        .collect();
    Ok(Answer::json(&TransactionWithStrength {
        settings: change.values().to_value(),
        metadata,
    }))
}

/// `POST /tx/commit`.
pub async fn commit(app: &App, request: &Request) -> Reply {
    committed(app, request, Then::Nothing).await
}

/// `POST /tx/apply`.
pub async fn apply(app: &App, request: &Request) -> Reply {
    app.apply_soon(keys(request)?);
    Ok(Answer::done())
}

/// `POST /tx/commit_and_apply`.
pub async fn commit_and_apply(app: &App, request: &Request) -> Reply {
    committed(app, request, then(request)?).await
}

async fn committed(app: &App, request: &Request, then: Then) -> Reply {
    let tx = transaction(request).to_string();
    let host = Arc::clone(&app.host);
    let commit = move |store: &mut Store<Folder>| {
        refuse_what_cannot_be_done(&host, &store.pending().get(&tx).strong)?;
        store.commit(&tx)
    };
    Ok(changed(app.change(then, commit).await?))
}

/// A setting that the machine cannot follow is refused when it is set; one that
/// came to be so later stands in the way of no other.
fn refuse_what_cannot_be_done(host: &Host, wanted: &Document) -> Result<(), Error> {
    let faults = host.cannot_do(wanted);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(faults))
    }
}

fn names(keys: &[Key]) -> Answer {
    let names: Vec<String> = keys.iter().map(Key::to_string).collect();
    Answer::json(&names)
}
