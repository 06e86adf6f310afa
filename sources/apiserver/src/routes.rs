//! The routes, one file per subject, and what they share.

pub mod absent;
pub mod actions;
pub mod check;
pub mod ephemeral_storage;
pub mod history;
pub mod inventory;
pub mod metadata;
pub mod network;
pub mod report;
pub mod settings;
pub mod support_bundle;
pub mod tx;
pub mod updates;

use crate::app::{ChangeError, Changed, Then};
use crate::http::{Answer, Request};
use ::settings::Key;
use settings_store::{Error, Strength};

/// What a refusal of the store is in HTTP.
fn refusal(error: Error) -> Answer {
    let status = match &error {
        Error::Invalid(_) | Error::Unknown(_) | Error::TransactionName => 400,
        Error::NothingPending(_) => 422,
        Error::NoSuchChange(_) => 404,
        Error::TooLarge { .. } => 413,
        Error::TooManyTransactions { .. } | Error::PendingTooLarge { .. } => 429,
        Error::Weakened(_) | Error::Disk(_) => 500,
    };
    Answer::text(status, chain(&error))
}

impl From<ChangeError> for Answer {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(error) => refusal(error),
            ChangeError::Unfinished(_) => Self::text(500, chain(&error)),
        }
    }
}

/// Whether a request that changes settings asks to wait until they are applied.
fn then(request: &Request) -> Result<Then, Answer> {
    match request.parameter("wait") {
        None | Some("false") => Ok(Then::ApplySoon),
        Some("true") => Ok(Then::Apply),
        Some(other) => Err(Answer::text(
            400,
            format!("invalid wait {other:?}: use true or false"),
        )),
    }
}

/// What is answered to a change: its keys, and if it was waited for what it did.
fn changed(changed: Changed) -> Answer {
    let keys: Vec<String> = changed.keys.iter().map(Key::to_string).collect();
    match changed.applied {
        None => Answer::json(&keys),
        Some(applied) => Answer::json(&api_types::Changed {
            changed: keys,
            files: applied.files,
            restarted: applied.restarted,
            reloaded: applied.reloaded,
            failures: applied.failures,
        }),
    }
}

/// Whether a request asks for JSON instead of text.
fn wants_json(request: &Request) -> Result<bool, Answer> {
    match request.parameter("format") {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(Answer::text(400, "unsupported format")),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The transaction that a request names.
fn transaction(request: &Request) -> &str {
    request
        .parameter("tx")
        .unwrap_or(api_types::DEFAULT_TRANSACTION)
}

fn strength(request: &Request) -> Result<Strength, Answer> {
    match request.parameter("strength") {
        None | Some("strong") => Ok(Strength::Strong),
        Some("weak") => Ok(Strength::Weak),
        Some(other) => Err(Answer::text(
            400,
            format!("invalid strength {other:?}: use strong or weak"),
        )),
    }
}

/// A parameter that, if it is there, must not be empty.
fn nonempty<'r>(request: &'r Request, name: &str) -> Result<Option<&'r str>, Answer> {
    match request.parameter(name) {
        Some("") => Err(Answer::text(400, format!("parameter {name} is empty"))),
        other => Ok(other),
    }
}

/// The keys that a request lists in `keys`.
fn keys(request: &Request) -> Result<Option<Vec<Key>>, Answer> {
    let Some(text) = nonempty(request, "keys")? else {
        return Ok(None);
    };
    let keys: Result<Vec<Key>, _> = text.split(',').map(str::parse).collect();
    keys.map(Some)
        .map_err(|error| Answer::text(400, error.to_string()))
}

/// The beginning of names that a request asks for in `prefix`, with `implied`
/// put in front of a prefix that lacks it.
fn prefix(request: &Request, implied: &str) -> Result<Option<String>, Answer> {
    let Some(prefix) = nonempty(request, "prefix")? else {
        return Ok(None);
    };
    if !prefix.chars().all(|c| c.is_ascii_graphic()) || prefix.starts_with('.') {
        return Err(Answer::text(400, format!("invalid prefix {prefix:?}")));
    }
    if prefix.starts_with(implied) {
        Ok(Some(prefix.to_string()))
    } else {
        Ok(Some(format!("{implied}.{prefix}")))
    }
}
