//! In which form commands of ours show what they have found.

use crate::cli::{Flag, Hint, Matches, Takes, Word};

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Chooses the form.
pub const OUTPUT: Flag = Flag {
    names: &["-o", "--output"],
    takes: Takes::One(Word {
        name: "FORM",
        hint: Hint::Choice(&["text", "json"]),
    }),
    help: "text (default) or json",
};

/// Short for `--output json`.
pub const JSON: Flag = Flag {
    names: &["--json"],
    takes: Takes::Nothing,
    help: "the same as --output json",
};

impl Output {
    /// The form that is asked for.
    pub fn of(matches: &Matches) -> Result<Self, String> {
        match matches.last(&OUTPUT)?.as_deref() {
            Some("json") => Ok(Self::Json),
            Some("text") if matches.has(&JSON) => {
                Err("--json and --output text do not go together".into())
            }
            None if matches.has(&JSON) => Ok(Self::Json),
            None | Some("text") => Ok(Self::Text),
            Some(other) => Err(format!("unknown form {other:?}; there are text and json")),
        }
    }
}
