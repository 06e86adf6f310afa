//! `check`: what is wrong with a document of user data.

use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use crate::documents;
use crate::output::{JSON, OUTPUT, Output};
use anyhow::{Context as _, Result};
use api_types::UserDataCheck;
use std::path::Path;

/// `check`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "check",
    summary: "say what is wrong with a document of user data",
    forms: &["check FILE [OPTION]", "check - [OPTION]"],
    about: &[
        "Has the host judge a document as user data of its first boot: TOML, also in gzip and in \
         base64. It changes nothing. Each fault is a line with file, line, key, reason and \
         what it costs: a fatal one stops the boot, a skipped one leaves the setting at its \
         default. Exits with 1 if there is any.",
    ],
    examples: &["check user-data.toml", "check --json - < user-data.toml"],
    flags: &[OUTPUT, JSON],
    operands: Operands::One(Hint::File),
    ours: true,
    hidden: false,
    parse: |matches| Ok(Box::new(Check::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Check {
    file: String,
    output: Output,
}

impl Check {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let file = matches.operands()?.pop();
        Ok(Self {
            file: file.ok_or("FILE is missing; - is standard input")?,
            output: Output::of(matches)?,
        })
    }
}

impl Command for Check {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let document = match self.file.as_str() {
            "-" => documents::read_limited(std::io::stdin()),
            file => documents::read_file(Path::new(file)),
        };
        let document = document.with_context(|| format!("cannot read {}", self.file))?;
        let answer = context.send("POST", "/check", Some(&document))?;
        let check: UserDataCheck = serde_json::from_slice(&answer.body)
            .context("the answer to /check is not a list of faults")?;
        match self.output {
            Output::Json => context.print_json(&serde_json::to_value(&check)?)?,
            Output::Text => {
                for fault in &check.faults {
                    writeln!(context.out, "{}", fault.in_file(&self.file))?;
                }
            }
        }
        Ok(u8::from(!check.faults.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let check = |file: &str, output| Check {
            file: file.into(),
            output,
        };
        for (line, expected) in [
            ("x.toml", Ok(check("x.toml", Output::Text))),
            ("- --json", Ok(check("-", Output::Json))),
            ("", Err("FILE is missing; - is standard input")),
            ("a b", Err("unexpected word \"b\"")),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Check::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
