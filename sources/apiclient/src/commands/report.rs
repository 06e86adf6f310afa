//! `report`: what the host says about itself.

use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes, Word};
use crate::context::Context;
use crate::http::escape_value;
use anyhow::Result;

const FORMAT: Flag = Flag {
    names: &["-f", "--format"],
    takes: Takes::One(Word {
        name: "FORMAT",
        hint: Hint::Choice(&["text", "json"]),
    }),
    help: "text (default) or json",
};
const LEVEL: Flag = Flag {
    names: &["-l", "--level"],
    takes: Takes::One(Word {
        name: "LEVEL",
        hint: Hint::Choice(&["1", "2"]),
    }),
    help: "1 (default) or 2, which checks more",
};
const JSON: Flag = Flag {
    names: &["--json"],
    takes: Takes::Nothing,
    help: "the same as --format json",
};

/// `report`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "report",
    summary: "list the reports, or show one such as boot, node or user-data",
    forms: &["report", "report NAME [OPTION]..."],
    about: &["Shows a report, or without a name lists those that there are."],
    examples: &["report", "report node", "report user-data -f json"],
    flags: &[FORMAT, JSON],
    operands: Operands::One(Hint::Choice(&["boot", "node", "user-data"])),
    ours: true,
    hidden: false,
    parse: |matches| {
        let name = matches.operands()?.pop();
        match name {
            Some(name) => Ok(Box::new(Report::parse(&name, &matches)?)),
            None => Ok(Box::new(List {
                json: format(&matches)?.as_deref() == Some("json"),
            })),
        }
    },
};

/// `report cis`.
pub const CIS: Subcommand = Subcommand {
    name: "report cis",
    summary: "compliance with the CIS benchmark of the operating system",
    forms: &["report cis [OPTION]..."],
    about: &["Exits with 0 even if checks fail; the report says which."],
    examples: &["report cis -l 2", "report cis -f json"],
    flags: &[LEVEL, FORMAT, JSON],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Report::parse("cis", &matches)?)),
};

/// `report cis-k8s`.
pub const CIS_K8S: Subcommand = Subcommand {
    name: "report cis-k8s",
    summary: "compliance with the CIS benchmark of Kubernetes nodes",
    forms: &["report cis-k8s [OPTION]..."],
    about: &[
        "Exits with 0 even if checks fail; the report says which. Variants without Kubernetes \
         have nothing to check.",
    ],
    examples: &["report cis-k8s -l 2"],
    flags: &[LEVEL, FORMAT, JSON],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Report::parse("cis-k8s", &matches)?)),
};

/// `report fips`.
pub const FIPS: Subcommand = Subcommand {
    name: "report fips",
    summary: "whether the host works by FIPS 140-3",
    forms: &["report fips [OPTION]..."],
    about: &["Exits with 0 even if checks fail; the report says which."],
    examples: &["report fips -f json"],
    flags: &[FORMAT, JSON],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Report::parse("fips", &matches)?)),
};

/// The format, where one is asked for. Which ones there are is the server's
/// business.
fn format(matches: &Matches) -> Result<Option<String>, String> {
    if matches.has(&JSON) {
        return Ok(Some("json".into()));
    }
    matches.last(&FORMAT)
}

#[derive(Debug, PartialEq)]
struct Report {
    uri: String,
}

impl Report {
    fn parse(name: &str, matches: &Matches) -> Result<Self, String> {
        let (path, kind) = match name {
            "cis" => ("cis", Some("bottlerocket")),
            "cis-k8s" => ("cis", Some("kubernetes")),
            _ if name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') => (name, None),
            _ => return Err(format!("{name:?} is not the name of a report")),
        };
        let level = matches.last(&LEVEL)?;
        if let Some(level) = &level
            && level.parse::<i32>().is_err()
        {
            return Err(format!("the level {level:?} is not a number"));
        }
        let parameters = [
            ("type", kind.map(str::to_string)),
            ("level", level),
            ("format", format(matches)?),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| {
            let value = value?;
            Some(format!("{name}={}", escape_value(&value)))
        });
        let query: Vec<String> = given.collect();
        let mut uri = format!("/report/{path}");
        if !query.is_empty() {
            uri = format!("{uri}?{}", query.join("&"));
        }
        Ok(Self { uri })
    }
}

impl Command for Report {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let answer = context.send("GET", &self.uri, None)?;
        context.out.write_all(&answer.body)?;
        Ok(0)
    }
}

#[derive(Debug, PartialEq)]
struct List {
    json: bool,
}

impl Command for List {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let list = context.get_json("/report")?;
        if self.json {
            context.print_json(&list)?;
            return Ok(0);
        }
        for report in list.as_array().map(Vec::as_slice).unwrap_or_default() {
            let field = |name: &str| report[name].as_str().unwrap_or_default();
            writeln!(
                context.out,
                "{:<12} {}",
                field("name"),
                field("description")
            )?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use crate::cli;

    #[test]
    fn lines() {
        for (line, expected) in [
            ("report", Ok("List { json: false }")),
            ("report --json", Ok("List { json: true }")),
            ("report boot", Ok("/report/boot")),
            ("report boot -f json", Ok("/report/boot?format=json")),
            (
                "report --json user-data",
                Ok("/report/user-data?format=json"),
            ),
            ("report cis", Ok("/report/cis?type=bottlerocket")),
            (
                "report cis -l 2 --format json",
                Ok("/report/cis?type=bottlerocket&level=2&format=json"),
            ),
            (
                "report -f text cis-k8s",
                Ok("/report/cis?type=kubernetes&format=text"),
            ),
            (
                "report cis-k8s --level 1",
                Ok("/report/cis?type=kubernetes&level=1"),
            ),
            ("report fips -f xml", Ok("/report/fips?format=xml")),
            (
                "report cis -l high",
                Err("the level \"high\" is not a number"),
            ),
            ("report fips -l 1", Err("unknown flag \"-l\"")),
            ("report ../x", Err("\"../x\" is not the name of a report")),
            ("report a b", Err("unexpected word \"b\"")),
        ] {
            let words: Vec<_> = line.split(' ').map(Into::into).collect();
            match (cli::parse(&words, None), expected) {
                (Ok(parsed), Ok(expected)) => {
                    let parsed = format!("{:?}", parsed.command);
                    let report = format!("Report {{ uri: {expected:?} }}");
                    assert!(parsed == expected || parsed == report, "{line}: {parsed}");
                }
                (Err(usage), Err(expected)) => {
                    assert_eq!(usage.fault.as_deref(), Some(expected), "{line}");
                }
                (parsed, _) => panic!("{line}: {parsed:?}"),
            }
        }
    }
}
