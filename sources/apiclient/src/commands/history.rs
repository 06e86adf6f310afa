//! `history`: which changes of settings there were.

use crate::cli::{Command, Operands, Subcommand};
use crate::context::Context;
use crate::output::{JSON, OUTPUT, Output};
use anyhow::Result;
use serde_json::Value;

/// `history`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "history",
    summary: "list the changes of settings, newest first",
    forms: &["history [OPTION]"],
    about: &[
        "Lists the changes that are kept: the number that rollback takes, the time where the \
         host knew it, who made it, and the settings that it changed.",
    ],
    examples: &["history", "history -o json"],
    flags: &[OUTPUT, JSON],
    operands: Operands::None,
    ours: true,
    hidden: false,
    parse: |matches| {
        Ok(Box::new(History {
            output: Output::of(&matches)?,
        }))
    },
};

#[derive(Debug)]
struct History {
    output: Output,
}

impl Command for History {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let history = context.get_json("/settings/history")?;
        if self.output == Output::Json {
            context.print_json(&history)?;
            return Ok(0);
        }
        for change in history.as_array().map(Vec::as_slice).unwrap_or_default() {
            let id = change["id"].to_string();
            let time = change["time"].as_str().unwrap_or("-");
            let origin = change["origin"].as_str().unwrap_or("-");
            let keys = change["keys"].as_array().map(Vec::as_slice);
            let keys: Vec<&str> = keys
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let keys = keys.join(" ");
            writeln!(context.out, "{id:>4}  {time:<20}  {origin:<9}  {keys}")?;
        }
        Ok(0)
    }
}
