//! The dev door's probe: looks inside a machine and lets a test try what an
//! ordinary service of the host may do.
//!
//! A request is one line of JSON, its answer another. The program that answers is
//! `sources/dev-door`; its `tests/exchanges.jsonl` shows what travels.

use crate::socket;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// A probe to ask.
#[derive(Clone, Debug)]
pub struct Probe {
    socket: PathBuf,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// `file`, `directory`, `symlink` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Permissions in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// SELinux label.
    pub label: Option<String>,
    /// Type of the file system.
    pub filesystem: Option<String>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ended {
    /// Exit status, or 128 and the signal's number.
    pub status: i32,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// The machine's memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Memory {
    /// All.
    pub total: u64,
    /// What programs could still get.
    pub available: u64,
}

impl Memory {
    /// What is in use.
    pub fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

/// The machine refused what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// Number of the error, when a system call failed.
    pub errno: Option<i32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// What came of a request: a refusal is an answer, too, which a test may want.
pub type Answer<T> = Result<Result<T, Refusal>>;

impl Probe {
    /// The probe at `socket`.
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
        }
    }

    /// Tries to read a file.
    pub fn try_read(&self, path: &str) -> Answer<String> {
        self.ask(&json!({"read": path}))
    }

    /// Tries to replace a file's content.
    pub fn try_write(&self, path: &str, content: &str) -> Answer<()> {
        let answer: Result<Value, _> =
            self.ask(&json!({"write": {"path": path, "content": content}}))?;
        Ok(answer.map(drop))
    }

    /// Tries to run a program.
    pub fn try_run(&self, command: &[&str]) -> Answer<Ended> {
        self.ask(&json!({"run": command}))
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> Result<String> {
        self.try_read(path)?
            .with_context(|| format!("the machine cannot read {path}"))
    }

    /// What lies at a path; links are not followed.
    pub fn stat(&self, path: &str) -> Result<Status> {
        self.ask(&json!({"stat": path}))?
            .with_context(|| format!("the machine cannot look at {path}"))
    }

    /// Runs a program that must end well, and returns what it said.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let line = command.join(" ");
        let ended = self
            .try_run(command)?
            .with_context(|| format!("the machine cannot run {line}"))?;
        if ended.status != 0 {
            bail!(
                "on the machine {line} ended with {}: {}{}",
                ended.status,
                ended.stdout,
                ended.stderr
            );
        }
        Ok(ended.stdout)
    }

    /// The machine's memory.
    pub fn memory(&self) -> Result<Memory> {
        self.ask(&json!({"meminfo": true}))?
            .context("the machine cannot tell its memory")
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, request: &Value) -> Answer<T> {
        let attempt = || format!("cannot ask the machine for {request}");
        let mut stream = socket::connect(&self.socket)?;
        stream
            .set_read_timeout(Some(ANSWER_TIME))
            .with_context(attempt)?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .with_context(attempt)?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .with_context(attempt)?;
        if line.is_empty() {
            bail!("the machine closed the connection instead of answering {request}");
        }
        parse(&line).with_context(|| format!("the answer to {request} is not one: {line}"))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(line: &str) -> Answer<T> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Line<T> {
        Ok(T),
        Error(Refusal),
    }
    Ok(match serde_json::from_str(line)? {
        Line::Ok(found) => Ok(found),
        Line::Error(refusal) => Err(refusal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples that the program in the machine is tested with, too.
    #[test]
    fn understands_the_examples() {
        let examples = include_str!("../../../sources/dev-door/tests/exchanges.jsonl");
        let mut seen = Vec::new();
        for line in examples.lines() {
            let example: Value = serde_json::from_str(line).unwrap();
            let (answer, request) = (example["answer"].to_string(), &example["request"]);
            let kind = request.as_object().unwrap().keys().next().unwrap().clone();
            let understood = match kind.as_str() {
                "read" => parse::<String>(&answer).unwrap().map(drop),
                "write" => parse::<Value>(&answer).unwrap().map(drop),
                "stat" => parse::<Status>(&answer).unwrap().map(drop),
                "run" => parse::<Ended>(&answer).unwrap().map(drop),
                "meminfo" => parse::<Memory>(&answer).unwrap().map(drop),
                other => panic!("a request that this client does not know: {other}"),
            };
            assert_eq!(
                understood.is_ok(),
                example["answer"].get("ok").is_some(),
                "{line}"
            );
            if let Err(refusal) = understood {
                assert_eq!(refusal.errno, Some(13), "{line}");
            }
            seen.push(kind);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["meminfo", "read", "run", "stat", "write"]);
        assert!(parse::<String>("{}").is_err());
        assert!(parse::<String>("").is_err());
    }
}
