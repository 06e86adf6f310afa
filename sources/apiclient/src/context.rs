//! What a command has at hand.

use crate::client::{Answer, Client, Error};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// What a command has at hand.
pub struct Context<'c> {
    client: Client,
    /// Whether to tell more on standard error.
    pub verbose: bool,
    /// Where results go.
    pub out: &'c mut dyn Write,
    /// Where everything else goes.
    pub err: &'c mut dyn Write,
}

impl<'c> Context<'c> {
    /// What a command has at hand that talks to a server.
    pub fn new(
        client: Client,
        verbose: bool,
        out: &'c mut dyn Write,
        err: &'c mut dyn Write,
    ) -> Self {
        Self {
            client,
            verbose,
            out,
            err,
        }
    }

    /// The server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request. A status other than 2xx is an error.
    pub fn send(&mut self, method: &str, uri: &str, body: Option<&[u8]>) -> Result<Answer, Error> {
        let answer = self.client.send(method, uri, body);
        self.log(method, uri, &answer);
        answer
    }

    /// The same, for a request whose answer may take its time.
    pub fn send_and_wait(
        &mut self,
        method: &str,
        uri: &str,
        patience: Duration,
    ) -> Result<Answer, Error> {
        let answer = self
            .client
            .clone()
            .patient(patience)
            .send(method, uri, None);
        self.log(method, uri, &answer);
        answer
    }

    fn log(&mut self, method: &str, uri: &str, answer: &Result<Answer, Error>) {
        if !self.verbose {
            return;
        }
        let status = match answer {
            Ok(answer) => answer.status.clone(),
            Err(Error::Refused { status, .. }) => status.to_string(),
            Err(Error::Connection { .. }) => "no answer".to_string(),
        };
        // A log that cannot be written is no reason to stop.
        let _ = writeln!(self.err, "{method} {uri}: {status}");
    }

    /// What is at a path.
    pub fn get_json(&mut self, uri: &str) -> Result<Value> {
        let answer = self.send("GET", uri, None)?;
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("the answer to {uri} is not JSON"))
    }

    /// Shows JSON for people and programs.
    pub fn print_json(&mut self, value: &Value) -> Result<()> {
        writeln!(self.out, "{value:#}").context("cannot write the result")
    }
}
