//! `unset`: back to what holds without the user.

use super::commit::{self, Transaction};
use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use crate::http::escape_value;
use crate::output::Output;
use anyhow::Result;

/// `unset`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "unset",
    summary: "give settings back to their defaults",
    forms: &["unset KEY... [OPTION]"],
    about: &[
        "Takes back what was set: the settings, or all settings of a table, return to what the \
         host generates or to their defaults.",
        commit::ABOUT,
    ],
    examples: &["unset motd", "unset settings.ntp"],
    flags: commit::FLAGS,
    operands: Operands::Many(Hint::Key),
    ours: true,
    hidden: false,
    parse: |matches| Ok(Box::new(Unset::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Unset {
    keys: Vec<String>,
    output: Output,
}

impl Unset {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let keys = matches.operands()?;
        if keys.is_empty() {
            return Err("nothing to unset".into());
        }
        Ok(Self {
            keys,
            output: Output::of(matches)?,
        })
    }
}

impl Command for Unset {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let tx = Transaction::new("unset");
        let uri = format!("/settings?keys={}&", list(&self.keys));
        tx.change(context, "DELETE", &uri, None)?;
        tx.commit(context, self.output)
    }
}

/// Keys as the value of a query parameter.
pub fn list(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| escape_value(key)).collect();
    keys.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let unset = |keys: &[&str], output| Unset {
            keys: keys.iter().map(|key| key.to_string()).collect(),
            output,
        };
        for (line, expected) in [
            ("a b", Ok(unset(&["a", "b"], Output::Text))),
            ("a --json", Ok(unset(&["a"], Output::Json))),
            ("a -o text", Ok(unset(&["a"], Output::Text))),
            (
                "a -o text --json",
                Err("--json and --output text do not go together"),
            ),
            ("", Err("nothing to unset")),
            ("-a", Err("unknown flag \"-a\"")),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Unset::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
