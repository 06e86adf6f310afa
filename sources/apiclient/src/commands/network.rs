//! `network`: how the host's own network is set up.

use crate::cli::{Command, Hint, Matches, Operands, Subcommand};
use crate::context::Context;
use crate::documents;
use anyhow::Result;

/// `network configure`.
pub const CONFIGURE: Subcommand = Subcommand {
    name: "network configure",
    summary: "replace the host's network configuration",
    forms: &["network configure [URI]"],
    about: &[
        "Hands a net.toml to the host, which checks it and uses it from the next boot on. A URI \
         is file:///PATH, http://ADDRESS/PATH, base64:DOCUMENT, or - for standard input, which \
         is also what is read without one.",
    ],
    examples: &["network configure file:///tmp/net.toml"],
    flags: &[],
    operands: Operands::One(Hint::Any),
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Configure::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Configure {
    place: String,
}

impl Configure {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let place = matches.operands()?.pop();
        Ok(Self {
            place: place.unwrap_or_else(|| "-".into()),
        })
    }
}

impl Command for Configure {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let document = documents::fetch(&self.place)?;
        let uri = "/actions/network/configure";
        context.send("POST", uri, Some(document.as_bytes()))?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let configure = |place: &str| Configure {
            place: place.into(),
        };
        for (line, expected) in [
            ("", Ok(configure("-"))),
            ("base64:eA==", Ok(configure("base64:eA=="))),
            ("a b", Err("unexpected word \"b\"")),
        ] {
            let parsed =
                matches_of(&CONFIGURE, line).and_then(|matches| Configure::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
