//! `completions`: scripts for shells.

use crate::cli::completions::{SHELLS, script};
use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use anyhow::Result;

/// `completions`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "completions",
    summary: "print a script that completes command lines in a shell",
    forms: &["completions bash|zsh|fish"],
    about: &[
        "The script completes subcommands, flags and, by asking the API, names of settings. \
         bash reads it from a file in ~/.local/share/bash-completion/completions, zsh from a \
         file _apiclient in a folder of its fpath, fish from one in \
         ~/.config/fish/completions.",
    ],
    examples: &["completions zsh > _apiclient"],
    flags: &[],
    operands: Operands::One(Hint::Choice(SHELLS)),
    ours: true,
    hidden: false,
    parse: |matches| Ok(Box::new(Completions::parse(&matches)?)),
};

#[derive(Debug)]
struct Completions {
    script: String,
}

impl Completions {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let shell = matches.operands()?.pop();
        let shell = shell.ok_or("the name of a shell is missing")?;
        let script = script(&shell)
            .ok_or_else(|| format!("unknown shell {shell:?}; there are {}", SHELLS.join(", ")))?;
        Ok(Self { script })
    }
}

impl Command for Completions {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        context.out.write_all(self.script.as_bytes())?;
        Ok(0)
    }
}
