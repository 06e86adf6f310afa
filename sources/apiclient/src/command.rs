//! Command lines. The rules are Bottlerocket's, which programs rely on: global
//! flags are recognised anywhere, until a `--`; help is an error with status 2.

use std::path::PathBuf;

/// A command line that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Where the server listens.
    pub socket: PathBuf,
    /// Whether to tell more on stderr.
    pub verbose: bool,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a request as it is.
    Raw {
        /// Path and query.
        uri: String,
        /// Method.
        method: String,
        /// Body.
        data: Option<String>,
    },
    /// Show what is under some prefixes of names.
    Get {
        /// Prefixes.
        prefixes: Vec<String>,
        /// Prefixes of what is left out.
        exclude: Vec<String>,
        /// Without white space, keys in code point order.
        canonical: bool,
    },
    /// Show what is at a path of the API.
    GetUri(String),
    /// Set settings.
    Set(Assignment),
    /// Remove what the user has set.
    Unset(Vec<String>),
    /// Set settings from documents.
    Apply(Vec<String>),
    /// Reboot.
    Reboot,
    /// List the reports.
    Reports,
    /// Show a report.
    Report {
        /// Its name.
        name: String,
        /// `text` or `json`.
        format: String,
    },
}

/// Settings on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// Texts of the form `key=value`.
    Pairs(Vec<String>),
    /// An object.
    Json(String),
}

/// A command line that makes no sense, or one that asks for help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What is wrong; nothing if help was asked for.
    pub fault: Option<String>,
    /// How it is done right.
    pub text: &'static str,
}

const GENERAL: &str = "\
Usage: apiclient [SUBCOMMAND] [OPTION]...

Talks to the API of this host.

Options, anywhere on the line:
  -s, --socket-path PATH   where the API listens; default: BULKHEAD_API_SOCKET,
                           else /run/api.sock
  --log-level LEVEL        off, error, warn, info (default), debug or trace
  -v, --verbose            the same as --log-level debug
  -h, --help               this text, or that of a subcommand

Subcommands:
  raw       send a request as it is (the default subcommand)
  get       show settings and facts about the system
  set       change settings
  unset     give settings back to their defaults
  apply     change settings by documents
  reboot    reboot the host
  report    show reports
";

const RAW: &str = "\
Usage: apiclient [raw] -u URI [OPTION]...

  -u, --uri URI            path and query, such as /settings?prefix=ntp
  -m, -X, --method METHOD  default GET
  -d, --data DATA          body, sent as application/json

Shows the body of the answer. Exit status 1 if the answer's status is not 2xx.
";

const GET: &str = "\
Usage: apiclient get [PREFIX]... [OPTION]...
       apiclient get /URI

Shows, as JSON, everything whose name begins with a PREFIX such as settings.ntp
or os.version; without any, os. and settings. A URI is a path of the API.

  --exclude PREFIX         leave out what begins with PREFIX; may be repeated
  --canonicalize           as canonical JSON, without white space
";

const SET: &str = "\
Usage: apiclient set KEY=VALUE...
       apiclient set --json JSON

Sets all of the settings or, if one of them is refused, none. A part of a key
with a dot in it is quoted: kernel.sysctl.\"vm.swappiness\"=10. A VALUE that looks
like a boolean or a number is sent as one; a list, or a text that looks like a
number, needs JSON:

  -j, --json JSON          an object, such as {\"ntp\": {\"time-servers\": [\"a\"]}}
";

const UNSET: &str = "\
Usage: apiclient unset KEY...

Takes back what was set: the settings, or all settings of a table, return to
what the host generates or to their defaults.
";

const APPLY: &str = "\
Usage: apiclient apply [URI]...

Sets all settings of documents in TOML or JSON, each with a top-level table
`settings`, or none of them. Later documents win over earlier ones.

A URI is file:///PATH, base64:DOCUMENT, or - for standard input, which is also
what is read without any.
";

const REBOOT: &str = "\
Usage: apiclient reboot

Reboots the host.
";

const REPORT: &str = "\
Usage: apiclient report
       apiclient report boot|user-data|… [-f text|json]

Shows a report, or without a name lists those that there are.

  -f, --format FORMAT      text (default) or json
";

/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "BULKHEAD_API_SOCKET";

/// Makes sense of the words after the program's name. `environment` is the
/// value of [`SOCKET_VARIABLE`].
pub fn parse(words: &[String], environment: Option<PathBuf>) -> Result<Invocation, Usage> {
    let mut socket = environment
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| api_types::SOCKET.into());
    let mut verbose = false;
    let mut help = false;
    let mut rest: Vec<String> = Vec::new();
    let mut words = words.iter();
    // The usage text of the subcommand is not known yet, so faults of global
    // flags show the general one.
    let general = |fault: String| Usage {
        fault: Some(fault),
        text: GENERAL,
    };
    while let Some(word) = words.next() {
        let mut value = |flag: &str| {
            words
                .next()
                .cloned()
                .ok_or_else(|| general(format!("{flag} needs a value")))
        };
        match word.as_str() {
            "-s" | "--socket-path" => socket = value(word)?.into(),
            "--log-level" => {
                let level = value(word)?.to_ascii_lowercase();
                match level.as_str() {
                    "debug" | "trace" => verbose = true,
                    "off" | "error" | "warn" | "info" => {}
                    _ => return Err(general(format!("unknown log level {level:?}"))),
                }
            }
            "-v" | "--verbose" => verbose = true,
            "-h" | "--help" => help = true,
            "--" => {
                rest.push(word.clone());
                rest.extend(words.by_ref().cloned());
            }
            _ => rest.push(word.clone()),
        }
    }
    let command = subcommand(&rest, help)?;
    Ok(Invocation {
        socket,
        verbose,
        command,
    })
}

fn subcommand(words: &[String], help: bool) -> Result<Command, Usage> {
    type Parse = fn(Words<'_>) -> Result<Command, String>;
    let known: &[(&str, &'static str, Parse)] = &[
        ("raw", RAW, raw),
        ("get", GET, get),
        ("set", SET, set),
        ("unset", UNSET, unset),
        ("apply", APPLY, apply),
        ("reboot", REBOOT, reboot),
        ("report", REPORT, report),
    ];
    let named = words
        .first()
        .and_then(|first| known.iter().find(|(name, ..)| name == first));
    let (text, parse, words) = match named {
        Some((_, text, parse)) => (*text, *parse, &words[1..]),
        // `raw` can be left out, so anything that starts with a flag is raw.
        None => match words.first() {
            Some(first) if first.starts_with('-') && first != "--" => (RAW, raw as Parse, words),
            first => {
                let fault = match first {
                    _ if help => None,
                    Some(word) => Some(format!("unknown subcommand {word:?}")),
                    None => Some("no subcommand".to_string()),
                };
                return Err(Usage {
                    fault,
                    text: GENERAL,
                });
            }
        },
    };
    if help {
        return Err(Usage { fault: None, text });
    }
    parse(Words { words }).map_err(|fault| Usage {
        fault: Some(fault),
        text,
    })
}

/// The words of a subcommand, one after the other.
struct Words<'w> {
    words: &'w [String],
}

impl<'w> Words<'w> {
    fn next(&mut self) -> Option<&'w str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn value(&mut self, flag: &str) -> Result<String, String> {
        self.next()
            .map(str::to_string)
            .ok_or_else(|| format!("{flag} needs a value"))
    }
}

fn unknown(word: &str) -> String {
    format!("unknown argument {word:?}")
}

fn raw(mut words: Words<'_>) -> Result<Command, String> {
    let (mut uri, mut method, mut data) = (None, "GET".to_string(), None);
    while let Some(word) = words.next() {
        match word {
            "-u" | "--uri" => uri = Some(words.value(word)?),
            "-m" | "-X" | "--method" => method = words.value(word)?,
            "-d" | "--data" => data = Some(words.value(word)?),
            _ => return Err(unknown(word)),
        }
    }
    let uri = uri.ok_or("-u URI is missing")?;
    if !uri.starts_with('/') {
        return Err(format!("{uri:?} does not begin with /"));
    }
    if method.is_empty() || !method.bytes().all(|c| c.is_ascii_alphabetic()) {
        return Err(format!("{method:?} is not a method"));
    }
    Ok(Command::Raw { uri, method, data })
}

fn get(mut words: Words<'_>) -> Result<Command, String> {
    let (mut names, mut exclude, mut canonical) = (Vec::new(), Vec::new(), false);
    while let Some(word) = words.next() {
        match word {
            "--exclude" => exclude.push(words.value(word)?),
            "--canonicalize" => canonical = true,
            _ if word.starts_with('-') => return Err(unknown(word)),
            _ => names.push(word.to_string()),
        }
    }
    match names.iter().filter(|name| name.starts_with('/')).count() {
        0 => Ok(Command::Get {
            prefixes: names,
            exclude,
            canonical,
        }),
        1 if names.len() == 1 && exclude.is_empty() && !canonical => {
            Ok(Command::GetUri(names.remove(0)))
        }
        _ => Err("a URI stands alone: without prefixes, other URIs and options".into()),
    }
}

fn set(mut words: Words<'_>) -> Result<Command, String> {
    let (mut pairs, mut json) = (Vec::new(), None);
    while let Some(word) = words.next() {
        match word {
            "-j" | "--json" if json.is_some() => return Err(format!("{word} is given twice")),
            "-j" | "--json" => json = Some(words.value(word)?),
            _ if word.starts_with('-') => return Err(unknown(word)),
            _ if word.contains('=') => pairs.push(word.to_string()),
            _ => return Err(format!("{word:?} is not of the form KEY=VALUE")),
        }
    }
    match (pairs.is_empty(), json) {
        (true, Some(json)) => Ok(Command::Set(Assignment::Json(json))),
        (false, None) => Ok(Command::Set(Assignment::Pairs(pairs))),
        (false, Some(_)) => Err("KEY=VALUE and --json do not go together".into()),
        (true, None) => Err("nothing to set".into()),
    }
}

fn unset(words: Words<'_>) -> Result<Command, String> {
    let keys = plain(words)?;
    if keys.is_empty() {
        return Err("nothing to unset".into());
    }
    Ok(Command::Unset(keys))
}

fn apply(mut words: Words<'_>) -> Result<Command, String> {
    let mut inputs = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "-" => inputs.push(word.to_string()),
            _ if word.starts_with('-') => return Err(unknown(word)),
            _ => inputs.push(word.to_string()),
        }
    }
    if inputs.iter().filter(|input| *input == "-").count() > 1 {
        return Err("standard input can be read only once".into());
    }
    Ok(Command::Apply(inputs))
}

fn reboot(mut words: Words<'_>) -> Result<Command, String> {
    match words.next() {
        None => Ok(Command::Reboot),
        Some(word) => Err(unknown(word)),
    }
}

fn report(mut words: Words<'_>) -> Result<Command, String> {
    let (mut name, mut format) = (None, "text".to_string());
    while let Some(word) = words.next() {
        match word {
            "-f" | "--format" => format = words.value(word)?,
            "--json" => format = "json".to_string(),
            _ if word.starts_with('-') || name.is_some() => return Err(unknown(word)),
            _ => name = Some(word.to_string()),
        }
    }
    match name {
        None => Ok(Command::Reports),
        Some(name) if name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') => {
            Ok(Command::Report { name, format })
        }
        Some(name) => Err(format!("{name:?} is not the name of a report")),
    }
}

fn plain(mut words: Words<'_>) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            return Err(unknown(word));
        }
        list.push(word.to_string());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_string).collect()
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn command_lines() {
        let raw = |uri: &str, method: &str, data: Option<&str>| Command::Raw {
            uri: uri.into(),
            method: method.into(),
            data: data.map(str::to_string),
        };
        let get = |prefixes: &[&str]| Command::Get {
            prefixes: texts(prefixes),
            exclude: vec![],
            canonical: false,
        };
        for (line, command) in [
            ("raw -u /x", raw("/x", "GET", None)),
            ("-u /x", raw("/x", "GET", None)),
            ("-m POST --uri /x -d {}", raw("/x", "POST", Some("{}"))),
            ("raw -X PATCH -u /x", raw("/x", "PATCH", None)),
            ("get", get(&[])),
            ("get settings. os", get(&["settings.", "os"])),
            ("get /os", Command::GetUri("/os".into())),
            (
                "get settings --exclude settings.pki --canonicalize",
                Command::Get {
                    prefixes: texts(&["settings"]),
                    exclude: texts(&["settings.pki"]),
                    canonical: true,
                },
            ),
            (
                "set a=b c=d=e",
                Command::Set(Assignment::Pairs(texts(&["a=b", "c=d=e"]))),
            ),
            ("set -j {}", Command::Set(Assignment::Json("{}".into()))),
            ("unset a b", Command::Unset(texts(&["a", "b"]))),
            ("apply", Command::Apply(vec![])),
            (
                "apply - file:///x",
                Command::Apply(texts(&["-", "file:///x"])),
            ),
            ("reboot", Command::Reboot),
            ("report", Command::Reports),
            (
                "report boot -f json",
                Command::Report {
                    name: "boot".into(),
                    format: "json".into(),
                },
            ),
        ] {
            let parsed = parse(&words(line), None);
            assert_eq!(parsed.map(|parsed| parsed.command), Ok(command), "{line}");
        }
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in [
            "-s /a get os -v",
            "get -s /a --verbose os",
            "get os -v --socket-path /a",
            "get --log-level DEBUG os -s /b -s /a",
        ] {
            let parsed = parse(&words(line), Some("/env".into())).expect(line);
            assert_eq!(parsed.socket, PathBuf::from("/a"), "{line}");
            assert!(parsed.verbose, "{line}");
        }
        let socket = |environment: Option<&str>| {
            let parsed = parse(&words("get"), environment.map(PathBuf::from));
            parsed.expect("a command").socket
        };
        assert_eq!(socket(Some("/env")), PathBuf::from("/env"));
        assert_eq!(socket(Some("")), PathBuf::from("/run/api.sock"));
        assert_eq!(socket(None), PathBuf::from("/run/api.sock"));
    }

    #[test]
    fn faulty_command_lines_show_how_it_is_done() {
        for (line, fault, text) in [
            ("", Some("no subcommand"), GENERAL),
            ("frobnicate", Some("unknown subcommand"), GENERAL),
            ("--help", None, GENERAL),
            ("set -h", None, SET),
            ("get --help os", None, GET),
            ("-u /x -h", None, RAW),
            ("raw", Some("-u URI is missing"), RAW),
            ("raw -u x", Some("does not begin with /"), RAW),
            ("raw -u /x -m", Some("-m needs a value"), RAW),
            ("raw -u /x -m P@T", Some("not a method"), RAW),
            ("raw -u /x y", Some("unknown argument"), RAW),
            ("-z", Some("unknown argument"), RAW),
            ("get /os settings", Some("stands alone"), GET),
            ("get --exclude", Some("needs a value"), GET),
            ("set", Some("nothing to set"), SET),
            ("set a", Some("not of the form"), SET),
            ("set a=b -j {}", Some("do not go together"), SET),
            ("set -j {} -j {}", Some("twice"), SET),
            ("unset", Some("nothing to unset"), UNSET),
            ("apply - -", Some("only once"), APPLY),
            ("apply -x", Some("unknown argument"), APPLY),
            ("reboot now", Some("unknown argument"), REBOOT),
            ("report ../x", Some("not the name of a report"), REPORT),
            ("get -s", Some("needs a value"), GENERAL),
            ("get --log-level loud", Some("unknown log level"), GENERAL),
        ] {
            let usage = parse(&words(line), None).expect_err(line);
            match (fault, &usage.fault) {
                (None, None) => {}
                (Some(expected), Some(fault)) => {
                    assert!(fault.contains(expected), "{line}: {fault}");
                }
                _ => panic!("{line}: {:?}", usage.fault),
            }
            assert_eq!(usage.text, text, "{line}");
        }
    }
}
