//! `lockdown`.

use crate::cli::{Command, Operands, Subcommand};
use crate::context::Context;
use anyhow::Result;

/// `lockdown`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "lockdown",
    summary: "lock the settings of this host",
    forms: &["lockdown"],
    about: &["Locks the folder of settings, where it is encrypted, until the next boot."],
    examples: &["lockdown"],
    flags: &[],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |_| Ok(Box::new(Lockdown)),
};

#[derive(Debug)]
struct Lockdown;

impl Command for Lockdown {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        context.send("POST", "/actions/lockdown", None)?;
        Ok(0)
    }
}
