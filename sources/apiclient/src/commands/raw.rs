//! `raw`: a request as it is.

use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes, Word};
use crate::context::Context;
use anyhow::Result;

const URI: Flag = Flag {
    names: &["-u", "--uri"],
    takes: Takes::One(Word {
        name: "URI",
        hint: Hint::Any,
    }),
    help: "path and query, such as /settings?prefix=ntp",
};
const METHOD: Flag = Flag {
    names: &["-m", "-X", "--method"],
    takes: Takes::One(Word {
        name: "METHOD",
        hint: Hint::Choice(&["GET", "POST", "PATCH", "PUT", "DELETE"]),
    }),
    help: "default GET",
};
const DATA: Flag = Flag {
    names: &["-d", "--data"],
    takes: Takes::One(Word {
        name: "DATA",
        hint: Hint::Any,
    }),
    help: "body, sent as application/json",
};

/// `raw`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "raw",
    summary: "send a request as it is (the default subcommand)",
    forms: &["[raw] -u URI [OPTION]..."],
    about: &[
        "Shows the body of the answer. If its status is not 2xx, says so on standard error, \
            in the form \"Status 404 when GETing /x: ...\", and exits with 1.",
    ],
    examples: &[
        "raw -u /os",
        "-u /updates/status",
        "raw -m POST -u /actions/refresh-updates",
    ],
    flags: &[URI, METHOD, DATA],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Raw::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Raw {
    uri: String,
    method: String,
    data: Option<String>,
}

impl Raw {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let uri = matches.last(&URI)?.ok_or("-u URI is missing")?;
        if !uri.starts_with('/') {
            return Err(format!("{uri:?} does not begin with /"));
        }
        let method = matches.last(&METHOD)?.unwrap_or_else(|| "GET".into());
        if method.is_empty() || !method.bytes().all(|c| c.is_ascii_alphabetic()) {
            return Err(format!("{method:?} is not a method"));
        }
        Ok(Self {
            uri,
            method,
            data: matches.last(&DATA)?,
        })
    }
}

impl Command for Raw {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let data = self.data.as_ref().map(String::as_bytes);
        // Programs know the lone status line of verbose raw requests.
        let answer = context.client().send(&self.method, &self.uri, data)?;
        if context.verbose {
            writeln!(context.err, "{}", answer.status)?;
        }
        if !answer.body.is_empty() {
            context.out.write_all(&answer.body)?;
            context.out.write_all(b"\n")?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let raw = |uri: &str, method: &str, data: Option<&str>| Raw {
            uri: uri.into(),
            method: method.into(),
            data: data.map(str::to_string),
        };
        for (line, expected) in [
            ("-u /x", Ok(raw("/x", "GET", None))),
            ("-m POST --uri /x -d {}", Ok(raw("/x", "POST", Some("{}")))),
            ("-X PATCH -u /x", Ok(raw("/x", "PATCH", None))),
            (
                "-u /x --method PUT --data -1",
                Ok(raw("/x", "PUT", Some("-1"))),
            ),
            ("-u /x -u /y", Ok(raw("/y", "GET", None))),
            ("", Err("-u URI is missing")),
            ("-u x", Err("\"x\" does not begin with /")),
            ("-u /x -m", Err("-m needs a value")),
            ("-u /x -m P@T", Err("\"P@T\" is not a method")),
            ("-u /x y", Err("unexpected word \"y\"")),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Raw::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
