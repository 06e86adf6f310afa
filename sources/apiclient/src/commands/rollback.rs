//! `rollback`: settings as they were.

use super::commit;
use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use crate::output::Output;
use anyhow::Result;

/// `rollback`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "rollback",
    summary: "return to the settings after an earlier change",
    forms: &["rollback ID [OPTION]"],
    about: &[
        "What the user has set becomes what it was after the change ID, as history numbers it. \
         That is a change like any other, and can be rolled back itself.",
        commit::ABOUT,
    ],
    examples: &["rollback 7"],
    flags: commit::FLAGS,
    operands: Operands::One(Hint::Any),
    ours: true,
    hidden: false,
    parse: |matches| Ok(Box::new(Rollback::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Rollback {
    id: u64,
    output: Output,
}

impl Rollback {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let id = matches.operands()?.pop();
        let id = id.ok_or("ID is missing; `apiclient history` lists them")?;
        Ok(Self {
            id: id.parse().map_err(|_| {
                format!("{id:?} is no number of a change; `apiclient history` lists them")
            })?,
            output: Output::of(matches)?,
        })
    }
}

impl Command for Rollback {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let uri = format!("/settings/rollback?to={}&wait=true", self.id);
        commit::commit(context, &uri, self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let rollback = |id, output| Rollback { id, output };
        for (line, expected) in [
            ("7", Ok(rollback(7, Output::Text))),
            ("0 --json", Ok(rollback(0, Output::Json))),
            ("", Err("ID is missing; `apiclient history` lists them")),
            (
                "x",
                Err("\"x\" is no number of a change; `apiclient history` lists them"),
            ),
            ("1 2", Err("unexpected word \"2\"")),
        ] {
            let parsed =
                matches_of(&SUBCOMMAND, line).and_then(|matches| Rollback::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
