//! `set`: settings on the command line.

use super::commit::{self, Transaction};
use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes, Word};
use crate::context::Context;
use crate::documents;
use crate::output::{OUTPUT, Output};
use anyhow::Result;
use serde_json::json;

/// Bottlerocket's `--json` takes settings, so the form of results is chosen by
/// `--output` alone.
const JSON: Flag = Flag {
    names: &["-j", "--json"],
    takes: Takes::One(Word {
        name: "JSON",
        hint: Hint::Any,
    }),
    help: "an object, such as {\"ntp\": {\"time-servers\": [\"a\"]}}",
};

/// `set`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "set",
    summary: "change settings",
    forms: &["set KEY=VALUE... [OPTION]", "set --json JSON [OPTION]"],
    about: &[
        "Sets all of the settings or, if one of them is refused, none. The leading settings. of \
         a KEY may be left out; a part of it with a dot in it is quoted. A VALUE that looks like \
         a boolean or a number is sent as one; a list, or a text that looks like a number, needs \
         JSON.",
        commit::ABOUT,
    ],
    examples: &[
        "set motd=hello",
        "set 'kernel.sysctl.\"vm.swappiness\"=10'",
        "set --json '{\"ntp\":{\"time-servers\":[\"ntp.example.com\"]}}'",
    ],
    flags: &[JSON, OUTPUT],
    operands: Operands::Many(Hint::Assignment),
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Set::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Set {
    settings: Settings,
    output: Output,
}

#[derive(Debug, PartialEq)]
enum Settings {
    /// Texts of the form `key=value`.
    Pairs(Vec<String>),
    /// An object.
    Json(String),
}

impl Set {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let pairs = matches.operands()?;
        if let Some(odd) = pairs.iter().find(|pair| !pair.contains('=')) {
            return Err(format!("{odd:?} is not of the form KEY=VALUE"));
        }
        let settings = match (pairs.is_empty(), matches.once(&JSON)?) {
            (true, Some(json)) => Settings::Json(json),
            (false, None) => Settings::Pairs(pairs),
            (false, Some(_)) => return Err("KEY=VALUE and --json do not go together".into()),
            (true, None) => return Err("nothing to set".into()),
        };
        Ok(Self {
            settings,
            output: Output::of(matches)?,
        })
    }
}

impl Command for Set {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let tx = Transaction::new("set");
        match &self.settings {
            Settings::Pairs(pairs) => {
                let body = json!({ "request_payload": pairs });
                tx.change(context, "PATCH", "/settings/keypair?", Some(&body))?;
            }
            Settings::Json(text) => tx.patch(context, &documents::from_json(text)?)?,
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
        let pairs = |pairs: &[&str]| Settings::Pairs(pairs.iter().map(|p| p.to_string()).collect());
        let json = || Settings::Json("{}".into());
        for (line, expected) in [
            ("a=b c=d=e", Ok((pairs(&["a=b", "c=d=e"]), Output::Text))),
            ("a= -o json", Ok((pairs(&["a="]), Output::Json))),
            ("-j {}", Ok((json(), Output::Text))),
            ("--json {} --output json", Ok((json(), Output::Json))),
            ("", Err("nothing to set")),
            ("a", Err("\"a\" is not of the form KEY=VALUE")),
            ("a=b -j {}", Err("KEY=VALUE and --json do not go together")),
            ("-j {} -j {}", Err("--json is given twice")),
            ("-j", Err("-j needs a value")),
            (
                "a=b -o xml",
                Err("unknown form \"xml\"; there are text and json"),
            ),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Set::parse(&matches));
            let expected = expected.map(|(settings, output)| Set { settings, output });
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
