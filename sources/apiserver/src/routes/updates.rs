//! `/updates` and the actions upon them: the updater does them, one unit for each command.
//! It says whether it begins before the unit counts as started, and what it came to in a
//! file that holds the status.

use crate::app::App;
use crate::http::{Answer, Reply};
use anyhow::{Context, Result};
use api_types::{UPDATE_ANSWER, UPDATE_LOCK, UPDATE_STATUS, UpdateAnswer, UpdateStatus};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use sysutil::fs::read_text_if_present;

/// The largest file of the updater's that is read.
const LIMIT: u64 = 1024 * 1024;
const BUSY: &str = "another update command is at work";

/// What of the updater's file is shown.
#[derive(Deserialize)]
struct Stored {
    status: UpdateStatus,
}

/// `GET /updates/status`.
pub async fn status(app: &App) -> Reply {
    let host = Arc::clone(&app.host);
    let work = tokio::task::spawn_blocking(move || -> Result<Result<UpdateStatus, Answer>> {
        if is_locked(&host.root().join(UPDATE_LOCK))? {
            return Ok(Err(Answer::text(423, BUSY)));
        }
        let path = host.root().join(UPDATE_STATUS);
        let Some(text) = read_text_if_present(&path, LIMIT)? else {
            return Ok(Err(Answer::text(
                404,
                "there is no update status: nobody has looked for updates yet",
            )));
        };
        let stored: Stored =
            serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        Ok(Ok(stored.status))
    });
    match work.await {
        Ok(Ok(status)) => Ok(Answer::json(&status?)),
        Ok(Err(error)) => Err(Answer::text(500, format!("no update status: {error:#}"))),
        Err(error) => Err(Answer::text(500, format!("no update status: {error}"))),
    }
}

/// `POST /actions/…-update`: `command` is the updater's word for it.
pub async fn command(app: &App, command: &'static str) -> Reply {
    let (host, turn) = (Arc::clone(&app.host), Arc::clone(&app.updates));
    let work = tokio::task::spawn_blocking(move || -> Result<Option<UpdateAnswer>> {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = host.root().join(UPDATE_ANSWER);
        // What an earlier one has answered is no answer to this one.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        host.units().start(&format!("update@{command}.service"))?;
        let Some(text) = read_text_if_present(&path, LIMIT)? else {
            return Ok(None);
        };
        let answer = serde_json::from_str(&text);
        answer.with_context(|| format!("parse {}", path.display()))
    });
    let failed = |text: String| Answer::text(500, format!("cannot {command} updates: {text}"));
    match work.await {
        Ok(Ok(Some(UpdateAnswer::Begun))) => Ok(Answer::done()),
        Ok(Ok(Some(UpdateAnswer::Refused { status, why }))) => Err(Answer::text(status, why)),
        // The same command is at work still, so that nothing was started.
        Ok(Ok(None)) => Err(Answer::text(423, BUSY)),
        Ok(Err(error)) => Err(failed(format!("{error:#}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Whether somebody holds the lock.
fn is_locked(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}
