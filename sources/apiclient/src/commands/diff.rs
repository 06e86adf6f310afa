//! `diff`: what the user has set, against what would hold otherwise.

use crate::cli::{Command, Operands, Subcommand};
use crate::context::Context;
use crate::output::{JSON, OUTPUT, Output};
use anyhow::Result;
use serde_json::Value;

/// `diff`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "diff",
    summary: "show what was set, against what would hold otherwise",
    forms: &["diff [OPTION]"],
    about: &[
        "Shows each setting that user data or the API has set: after - what would hold without, \
         after + what holds.",
    ],
    examples: &["diff", "diff --json"],
    flags: &[OUTPUT, JSON],
    operands: Operands::None,
    ours: true,
    hidden: false,
    parse: |matches| {
        Ok(Box::new(Diff {
            output: Output::of(&matches)?,
        }))
    },
};

#[derive(Debug)]
struct Diff {
    output: Output,
}

impl Command for Diff {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let changes = context.get_json("/settings/changes")?;
        if self.output == Output::Json {
            context.print_json(&changes)?;
            return Ok(0);
        }
        for change in changes.as_array().map(Vec::as_slice).unwrap_or_default() {
            writeln!(
                context.out,
                "{}",
                change["key"].as_str().unwrap_or_default()
            )?;
            let default = match &change["default"] {
                Value::Null => "(not set)".to_string(),
                default => default.to_string(),
            };
            writeln!(context.out, "  - {default}\n  + {}", change["value"])?;
        }
        Ok(0)
    }
}
