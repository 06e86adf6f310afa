//! `apply`: settings from documents.

use super::commit::{self, Transaction};
use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use crate::documents;
use crate::output::Output;
use anyhow::Result;

/// `apply`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "apply",
    summary: "change settings by documents",
    forms: &["apply [URI]... [OPTION]"],
    about: &[
        "Sets all settings of documents in TOML or JSON, each with a top-level table settings, \
         or none of them. Later documents win over earlier ones.",
        "A URI is file:///PATH, http://ADDRESS/PATH, base64:DOCUMENT, or - for standard input, \
         which is also what is read without any. ADDRESS is numeric or a name in /etc/hosts: the \
         program is static and asks no name server. A document has at most 2 MiB; fetching it \
         takes at most 30 seconds. This build does not fetch from https://, S3, Secrets Manager \
         and the Parameter Store.",
        commit::ABOUT,
    ],
    examples: &[
        "apply < settings.toml",
        "apply file:///tmp/base.toml http://192.0.2.1/node.toml",
    ],
    flags: commit::FLAGS,
    operands: Operands::Many(Hint::Any),
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Apply::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Apply {
    places: Vec<String>,
    output: Output,
}

impl Apply {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let mut places = matches.operands()?;
        if places.is_empty() {
            places.push("-".into());
        }
        if places.iter().filter(|place| *place == "-").count() > 1 {
            return Err("standard input can be read only once".into());
        }
        Ok(Self {
            places,
            output: Output::of(matches)?,
        })
    }
}

impl Command for Apply {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        // All of them are there before anything is sent.
        let documents = documents::fetch_settings(&self.places)?;
        let tx = Transaction::new("apply");
        for document in &documents {
            tx.patch(context, document)?;
        }
        tx.commit(context, self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let apply = |places: &[&str], output| Apply {
            places: places.iter().map(|place| place.to_string()).collect(),
            output,
        };
        for (line, expected) in [
            ("", Ok(apply(&["-"], Output::Text))),
            ("- file:///x", Ok(apply(&["-", "file:///x"], Output::Text))),
            (
                "base64:eA== -o json",
                Ok(apply(&["base64:eA=="], Output::Json)),
            ),
            ("- -", Err("standard input can be read only once")),
            ("-x", Err("unknown flag \"-x\"")),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Apply::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
