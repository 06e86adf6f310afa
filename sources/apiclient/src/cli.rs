//! Command lines. Each subcommand is one entry of [`SUBCOMMANDS`], with its
//! flags; parsing, help, completion scripts and the reference page are all made
//! from it.
//!
//! The rules are Bottlerocket's, which programs rely on: global flags are
//! recognised anywhere until a `--`, even inside the command of `exec`; some
//! flags take all words up to the next flag; asking for help is an error with
//! status 2.

pub mod completions;
mod help;
mod matches;
pub mod reference;

pub use crate::commands::SUBCOMMANDS;
pub use matches::Matches;
#[cfg(test)]
pub(crate) use matches::matches_of;

use crate::context::Context;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// A subcommand, as everybody has to know it.
#[derive(Debug)]
pub struct Subcommand {
    /// Its name, of one word or two, such as `update check`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What may follow its name, one form per entry.
    pub forms: &'static [&'static str],
    /// What one has to know, in paragraphs.
    pub about: &'static [&'static str],
    /// Command lines that make sense, without the program's name.
    pub examples: &'static [&'static str],
    /// Its flags.
    pub flags: &'static [Flag],
    /// What its other words are.
    pub operands: Operands,
    /// Whether Bottlerocket's client does not have it.
    pub ours: bool,
    /// Whether only other programs call it.
    pub hidden: bool,
    /// Makes sense of its words.
    pub parse: fn(Matches) -> Result<Box<dyn Command>, String>,
}

/// A flag of a subcommand, or a global one.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its names, short ones first.
    pub names: &'static [&'static str],
    /// What follows it.
    pub takes: Takes,
    /// What it does.
    pub help: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// One word, whatever it looks like.
    One(Word),
    /// All words up to the next flag.
    Many(Word),
}

/// A word that is to be filled in.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// How help calls it.
    pub name: &'static str,
    /// What it can be.
    pub hint: Hint,
}

/// What a word can be, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Anything.
    Any,
    /// The name of a setting.
    Key,
    /// The name of a setting, and an equals sign.
    Assignment,
    /// The beginning of the name of a setting, a service and so on.
    Prefix,
    /// A file.
    File,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// What the words of a subcommand are that belong to no flag.
#[derive(Clone, Copy, Debug)]
pub enum Operands {
    /// There are none.
    None,
    /// At most one.
    One(Hint),
    /// As many as one likes.
    Many(Hint),
    /// Two, after which nothing is a flag any more; a `--` before either of
    /// them is left out.
    ThenVerbatim(Hint),
}

/// Something that can be done.
pub trait Command: fmt::Debug {
    /// Does it; gives back the exit status.
    fn run(&self, context: &mut Context<'_>) -> anyhow::Result<u8>;
}

/// A command line that makes sense.
#[derive(Debug)]
pub struct Invocation {
    /// Where the server listens.
    pub socket: PathBuf,
    /// Whether to tell more on standard error.
    pub verbose: bool,
    /// What to do.
    pub command: Box<dyn Command>,
}

/// A command line that makes no sense, or one that asks for help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What is wrong; nothing if help was asked for.
    pub fault: Option<String>,
    /// How it is done right.
    pub text: String,
}

/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "BULKHEAD_API_SOCKET";

const SOCKET_PATH: Flag = Flag {
    names: &["-s", "--socket-path"],
    takes: Takes::One(Word {
        name: "PATH",
        hint: Hint::File,
    }),
    help: "where the API listens; default: BULKHEAD_API_SOCKET, else /run/api.sock",
};
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
const LOG_LEVEL: Flag = Flag {
    names: &["--log-level"],
    takes: Takes::One(Word {
        name: "LEVEL",
        hint: Hint::Choice(LEVELS),
    }),
    help: "off, error, warn, info (default), debug or trace",
};
const VERBOSE: Flag = Flag {
    names: &["-v", "--verbose"],
    takes: Takes::Nothing,
    help: "the same as --log-level debug: each request and its status on standard error",
};
const HELP: Flag = Flag {
    names: &["-h", "--help"],
    takes: Takes::Nothing,
    help: "this text, or that of a subcommand",
};

/// The flags that are recognised anywhere on the line, until a `--`.
pub const GLOBAL: &[Flag] = &[SOCKET_PATH, LOG_LEVEL, VERBOSE, HELP];

impl Flag {
    /// Whether it is called so.
    pub fn is(&self, word: &OsStr) -> bool {
        self.names.iter().any(|name| word == *name)
    }
}

impl Subcommand {
    /// The first word of its name, and the second if there is one.
    fn words(&self) -> (&'static str, Option<&'static str>) {
        match self.name.split_once(' ') {
            Some((first, second)) => (first, Some(second)),
            None => (self.name, None),
        }
    }
}

/// Makes sense of the words after the program's name. `environment` is the
/// value of [`SOCKET_VARIABLE`].
pub fn parse(words: &[OsString], environment: Option<PathBuf>) -> Result<Invocation, Usage> {
    let mut socket = environment
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| api_types::SOCKET.into());
    let mut verbose = false;
    let mut help = false;
    let mut rest: Vec<&OsStr> = Vec::new();
    let mut words = words.iter().map(OsString::as_os_str);
    // The subcommand is not known yet, so faults of global flags show the
    // general text.
    let general = |fault: String| Usage {
        fault: Some(fault),
        text: help::general(),
    };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| general(format!("{} needs a value", word.display())))
        };
        if SOCKET_PATH.is(word) {
            socket = value()?.into();
        } else if LOG_LEVEL.is(word) {
            let level = value()?.to_string_lossy().to_ascii_lowercase();
            match level.as_str() {
                "debug" | "trace" => verbose = true,
                _ if LEVELS.contains(&level.as_str()) => {}
                _ => return Err(general(format!("unknown log level {level:?}"))),
            }
        } else if VERBOSE.is(word) {
            verbose = true;
        } else if HELP.is(word) {
            help = true;
        } else if word == "--" {
            rest.push(word);
            rest.extend(words.by_ref());
        } else {
            rest.push(word);
        }
    }
    Ok(Invocation {
        socket,
        verbose,
        command: subcommand(&rest, help)?,
    })
}

fn subcommand(words: &[&OsStr], help: bool) -> Result<Box<dyn Command>, Usage> {
    let (subcommand, words) = match find(words) {
        Found::Subcommand(subcommand, words) => (subcommand, words),
        Found::Group(group, word) => {
            let fault = match word {
                _ if help => None,
                Some(word) => Some(unknown("subcommand", word, names_after(group))),
                None => Some(format!("{group} needs a subcommand")),
            };
            let text = help::group(group);
            return Err(Usage { fault, text });
        }
        Found::Nothing(word) => {
            let fault = match word {
                _ if help => None,
                Some(word) => Some(unknown("subcommand", word, first_words())),
                None => Some("no subcommand".to_string()),
            };
            let text = help::general();
            return Err(Usage { fault, text });
        }
    };
    let usage = |fault| Usage {
        fault,
        text: help::of(subcommand),
    };
    if help {
        return Err(usage(None));
    }
    Matches::new(subcommand, words)
        .and_then(subcommand.parse)
        .map_err(|fault| usage(Some(fault)))
}

enum Found<'w> {
    Subcommand(&'static Subcommand, &'w [&'w OsStr]),
    /// The first of two words, and what stands in the second's place.
    Group(&'static str, Option<&'w OsStr>),
    Nothing(Option<&'w OsStr>),
}

fn find<'w>(words: &'w [&'w OsStr]) -> Found<'w> {
    let Some((&first, rest)) = words.split_first() else {
        return Found::Nothing(None);
    };
    // `raw` can be left out, so anything that starts with a flag is raw.
    if first != "--" && first.as_encoded_bytes().starts_with(b"-") {
        return Found::Subcommand(&crate::commands::raw::SUBCOMMAND, words);
    }
    let mut group = None;
    let mut short = None;
    for subcommand in SUBCOMMANDS {
        match subcommand.words() {
            (name, None) if first == name => short = Some(subcommand),
            (name, Some(second)) if first == name => {
                if rest.first().is_some_and(|word| *word == second) {
                    return Found::Subcommand(subcommand, &rest[1..]);
                }
                group = Some(name);
            }
            _ => {}
        }
    }
    match (short, group) {
        (Some(subcommand), _) => Found::Subcommand(subcommand, rest),
        (None, Some(group)) => Found::Group(group, rest.first().copied()),
        (None, None) => Found::Nothing(Some(first)),
    }
}

/// The first words of all subcommands, each once.
fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = SUBCOMMANDS
        .iter()
        .filter(|subcommand| !subcommand.hidden)
        .map(|subcommand| subcommand.words().0)
        .collect();
    words.dedup();
    words
}

/// The second words of the subcommands that begin with a word.
fn names_after(group: &str) -> Vec<&'static str> {
    SUBCOMMANDS
        .iter()
        .map(|subcommand| subcommand.words())
        .filter(|(first, _)| *first == group)
        .filter_map(|(_, second)| second)
        .collect()
}

/// Says that a word is not known, and which known one is most like it.
fn unknown(what: &str, word: &OsStr, known: Vec<&str>) -> String {
    let word = word.to_string_lossy();
    let nearest = known
        .into_iter()
        .map(|name| (distance(&word, name), name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min();
    match nearest {
        Some((_, name)) => format!("unknown {what} {word:?}; did you mean {name}?"),
        None => format!("unknown {what} {word:?}"),
    }
}

/// How many letters have to be put in, taken out or replaced.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in [
            "-s /a get os -v",
            "get -s /a --verbose os",
            "get os -v --socket-path /a",
            "get --log-level DEBUG os -s /b -s /a",
            "exec admin -s /a ls -v",
        ] {
            let parsed = parse(&words(line), Some("/env".into())).expect(line);
            assert_eq!(parsed.socket, PathBuf::from("/a"), "{line}");
            assert!(parsed.verbose, "{line}");
        }
        for line in ["exec -- admin ls -v -s /a", "exec admin -- ls -v -s /a"] {
            let parsed = parse(&words(line), None).expect(line);
            assert_eq!(parsed.socket, PathBuf::from("/run/api.sock"), "{line}");
            assert!(!parsed.verbose, "{line}");
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
            ("", Some("no subcommand"), "[SUBCOMMAND]"),
            (
                "frobnicate",
                Some("unknown subcommand \"frobnicate\""),
                "[SUBCOMMAND]",
            ),
            ("sett a=b", Some("did you mean set?"), "[SUBCOMMAND]"),
            ("--help", None, "[SUBCOMMAND]"),
            ("frobnicate --help", None, "[SUBCOMMAND]"),
            ("get -s", Some("-s needs a value"), "[SUBCOMMAND]"),
            (
                "get --log-level loud",
                Some("unknown log level"),
                "[SUBCOMMAND]",
            ),
            ("set -h", None, "set KEY=VALUE..."),
            ("get --help os", None, "get [PREFIX]..."),
            ("-u /x -h", None, "[raw] -u URI"),
            ("-z", Some("unknown flag \"-z\""), "[raw] -u URI"),
            ("raw --dat x", Some("did you mean --data?"), "[raw] -u URI"),
            ("raw -u /x y", Some("unexpected word \"y\""), "[raw] -u URI"),
            ("reboot now", Some("unexpected word \"now\""), "reboot"),
            ("update", Some("update needs a subcommand"), "update check"),
            ("update chek", Some("did you mean check?"), "update check"),
            ("update -h", None, "update check"),
            ("update apply -h", None, "update apply [OPTION]..."),
        ] {
            let usage = parse(&words(line), None).expect_err(line);
            match (fault, &usage.fault) {
                (None, None) => {}
                (Some(expected), Some(fault)) => {
                    assert!(fault.contains(expected), "{line}: {fault}");
                }
                _ => panic!("{line}: {:?}", usage.fault),
            }
            let start = format!("Usage: apiclient {text}");
            assert!(usage.text.starts_with(&start), "{line}: {}", usage.text);
        }
    }

    #[test]
    fn the_table_is_sound() {
        for (index, subcommand) in SUBCOMMANDS.iter().enumerate() {
            let name = subcommand.name;
            let earlier = &SUBCOMMANDS[..index];
            assert!(earlier.iter().all(|other| other.name != name), "{name}");
            assert!(!subcommand.forms.is_empty() && !subcommand.about.is_empty());
            let mut names: Vec<&str> = Vec::new();
            for flag in GLOBAL.iter().chain(subcommand.flags) {
                assert!(flag.names.iter().any(|name| name.starts_with("--")));
                for flag_name in flag.names {
                    assert!(!names.contains(flag_name), "{name} {flag_name}");
                    names.push(flag_name);
                }
            }
        }
    }

    #[test]
    fn examples_make_sense() {
        for subcommand in SUBCOMMANDS {
            for example in subcommand.examples {
                // What a shell would put in or send elsewhere is not looked at.
                let line = example.split(['|', '<', '>']).next().unwrap_or_default();
                let line = line.replace(['\'', '"'], "");
                if let Err(usage) = parse(&words(&line), None) {
                    panic!("{example}: {:?}", usage.fault);
                }
            }
        }
    }

    #[test]
    fn distances() {
        for (one, other, expected) in [
            ("", "", 0),
            ("set", "set", 0),
            ("sett", "set", 1),
            ("chek", "check", 1),
            ("gte", "get", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
