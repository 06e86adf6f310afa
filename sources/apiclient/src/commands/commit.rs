//! Changing settings: transactions, and what came of them.

use crate::cli::Flag;
use crate::context::Context;
use crate::output::{JSON, OUTPUT, Output};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Flags of commands that change settings.
pub const FLAGS: &[Flag] = &[OUTPUT, JSON];

/// What those commands say about themselves.
pub const ABOUT: &str = "Returns once everything that depends on the settings is written and \
    restarted. Prints nothing, or with --output json what was changed, written and restarted; \
    what could not be done goes to standard error, with exit status 1.";

/// How long writing files and restarting units may take: several units, each
/// with systemd's usual time limit.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A transaction on the server, which nobody else uses.
pub struct Transaction(String);

impl Transaction {
    /// A name for one; the server knows nothing of it yet.
    pub fn new(command: &str) -> Self {
        Self(name(command))
    }

    /// Adds settings. If they are refused, nothing of the transaction is left.
    pub fn patch(&self, context: &mut Context<'_>, settings: &Value) -> Result<()> {
        self.change(context, "PATCH", "/settings?", Some(settings))
    }

    /// Adds a change of settings: a request for `uri`, which ends where a
    /// parameter can follow.
    pub fn change(
        &self,
        context: &mut Context<'_>,
        method: &str,
        uri: &str,
        body: Option<&Value>,
    ) -> Result<()> {
        let body = body.map(Value::to_string);
        let uri = format!("{uri}tx={}", self.0);
        let sent = context.send(method, &uri, body.as_ref().map(String::as_bytes));
        if sent.is_err() {
            // What the refusal says is worth more than whether this works.
            let _ = context.send("DELETE", &format!("/tx?tx={}", self.0), None);
        }
        sent?;
        Ok(())
    }

    /// Commits and applies it.
    pub fn commit(self, context: &mut Context<'_>, output: Output) -> Result<u8> {
        let uri = format!("/tx/commit_and_apply?tx={}&wait=true", self.0);
        commit(context, &uri, output)
    }
}

/// Sends a request that changes settings and waits until they are applied;
/// gives back the exit status.
pub fn commit(context: &mut Context<'_>, uri: &str, output: Output) -> Result<u8> {
    let answer = context.send_and_wait("POST", uri, PATIENCE)?;
    let applied = if answer.body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&answer.body).context("the answer to the commit is not JSON")?
    };
    // A server that does not know `wait` answers with the changed keys alone.
    let applied = match applied {
        Value::Array(keys) => json!({ "changed": keys }),
        other => other,
    };
    if output == Output::Json {
        context.print_json(&applied)?;
    }
    let failures = applied["failures"].as_array().map(Vec::as_slice);
    for failure in failures.unwrap_or_default() {
        match failure {
            Value::String(text) => writeln!(context.err, "{text}")?,
            other => writeln!(context.err, "{other}")?,
        }
    }
    Ok(u8::from(
        failures.is_some_and(|failures| !failures.is_empty()),
    ))
}

/// A name that no other client uses at the same time.
fn name(command: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // The keys of std's hashers come from the kernel, which needs no file: in an
    // empty root there is no /dev.
    let random = [(); 2].map(|()| RandomState::new().build_hasher().finish().to_le_bytes());
    let name: String = random
        .iter()
        .flatten()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect();
    format!("apiclient-{command}-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_have_names_of_their_own() {
        let one = name("set");
        assert_eq!(one.len(), "apiclient-set-".len() + 16);
        assert_ne!(one, name("set"));
    }
}
