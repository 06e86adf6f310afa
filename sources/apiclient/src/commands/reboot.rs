//! `reboot`.

use crate::cli::{Command, Operands, Subcommand};
use crate::context::Context;
use anyhow::Result;

/// `reboot`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "reboot",
    summary: "reboot the host",
    forms: &["reboot"],
    about: &[
        "Returns when the reboot has been asked for. What inhibits it, such as bootstrap commands that are running, is an error.",
    ],
    examples: &["reboot"],
    flags: &[],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |_| Ok(Box::new(Reboot)),
};

#[derive(Debug)]
struct Reboot;

impl Command for Reboot {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        context.send("POST", "/actions/reboot", None)?;
        Ok(0)
    }
}
