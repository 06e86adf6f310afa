//! `/actions/ephemeral-storage`: a unit of its own does it, with the rights that it
//! takes; it is told what by a file and answers by another one.

use crate::app::App;
use crate::http::{Answer, Reply, Request};
use anyhow::{Context, Result, bail};
use api_types::{
    EPHEMERAL_STORAGE_DONE, EPHEMERAL_STORAGE_WORK, EphemeralStorageDone, EphemeralStorageWork,
};
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError};

const UNIT: &str = "ephemeral-storage.service";
/// The largest answer: a list of disks or folders.
const LIMIT: u64 = 1024 * 1024;

/// `POST /actions/ephemeral-storage/init`.
pub async fn init(app: &App, request: &Request) -> Reply {
    done(app, EphemeralStorageWork::Init(body(request)?)).await?;
    Ok(Answer::done())
}

/// `POST /actions/ephemeral-storage/bind`.
pub async fn bind(app: &App, request: &Request) -> Reply {
    done(app, EphemeralStorageWork::Bind(body(request)?)).await?;
    Ok(Answer::done())
}

/// The lists: `GET /actions/ephemeral-storage/list-…`.
pub async fn list(app: &App, request: &Request, which: EphemeralStorageWork) -> Reply {
    let as_json = super::wants_json(request)?;
    let list = done(app, which).await?;
    Ok(if as_json {
        Answer::json(&list)
    } else {
        let text = list
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        Answer::text(200, text)
    })
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Answer> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Answer::text(400, format!("the body does not fit: {error}")))
}

/// Has the unit do it, one piece of work after the other.
async fn done(app: &App, work: EphemeralStorageWork) -> Result<Vec<String>, Answer> {
    let (host, turn) = (Arc::clone(&app.host), Arc::clone(&app.ephemeral_storage));
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let work = serde_json::to_vec(&work).context("write down what is to be done")?;
        let path = host.root().join(EPHEMERAL_STORAGE_WORK);
        sysutil::fs::write_atomic(&path, &work, 0o600)?;
        let path = host.root().join(EPHEMERAL_STORAGE_DONE);
        // What an earlier one has answered is no answer to this one.
        let _ = std::fs::remove_file(&path);
        host.units().start(UNIT)?;
        let answer = sysutil::fs::read_limited(&path, LIMIT)?;
        let answer = serde_json::from_slice(&answer);
        match answer.with_context(|| format!("parse {}", path.display()))? {
            EphemeralStorageDone::Done(list) => Ok(list),
            EphemeralStorageDone::Refused(why) => bail!(why),
        }
    });
    let refused = |text: String| Answer::text(500, format!("ephemeral storage: {text}"));
    done.await
        .map_err(|error| refused(error.to_string()))?
        .map_err(|error| refused(format!("{error:#}")))
}
