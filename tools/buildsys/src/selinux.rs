//! SELinux: the compiled policy and the labels of files.
//!
//! The build computes every label itself, from the `file_contexts` that packages
//! bring, and writes it into the image; the host relabels nothing but what it
//! makes at run time, by the same file.

use anyhow::{Context, Result, bail};
use regex::Regex;
use std::fmt::Write as _;

/// Categories that the policy declares: `c0` to `c1023`, as container runtimes
/// expect.
const CATEGORIES: usize = 1024;

/// Version of the binary policy, which every kernel since 5.10 reads.
pub const POLICY_VERSION: u32 = 33;

/// Name of the policy, a folder below `/etc/selinux`.
pub const POLICY_NAME: &str = "bulkhead";

/// CIL that declares the categories, too many to keep in a file.
pub fn categories() -> String {
    let mut text = String::new();
    let mut order = String::new();
    for category in 0..CATEGORIES {
        let _ = writeln!(text, "(category c{category})");
        let _ = write!(order, " c{category}");
    }
    let _ = writeln!(text, "(categoryorder ({}))", order.trim_start());
    text
}

/// Kind of a file, as the second column of `file_contexts` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file, `--`.
    Regular,
    /// Folder, `-d`.
    Folder,
    /// Symbolic link, `-l`.
    Link,
    /// Block device, `-b`.
    Block,
    /// Character device, `-c`.
    Character,
}

/// Parsed `file_contexts`: which label a path gets.
pub struct FileContexts {
    rules: Vec<Rule>,
}

struct Rule {
    path: Regex,
    kind: Option<FileKind>,
    /// None for `<<none>>`: such files get no label.
    label: Option<String>,
}

impl FileContexts {
    /// Parses the text of a `file_contexts` file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            rules.push(parse_rule(line).with_context(|| format!("line {}: {line:?}", number + 1))?);
        }
        Ok(Self { rules })
    }

    /// The label of the file at `path` (absolute). Of the rules that match, the
    /// last one wins, as in libselinux.
    pub fn label(&self, path: &str, kind: FileKind) -> Option<&str> {
        self.rules
            .iter()
            .rev()
            .find(|rule| rule.kind.is_none_or(|wanted| wanted == kind) && rule.path.is_match(path))
            .and_then(|rule| rule.label.as_deref())
    }
}

fn parse_rule(line: &str) -> Result<Rule> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (path, kind, label) = match columns[..] {
        [path, label] => (path, None, label),
        [path, kind, label] => (path, Some(parse_kind(kind)?), label),
        _ => bail!("a rule has two or three columns: path, kind of file (optional), label"),
    };
    let path = Regex::new(&format!("^(?:{path})$")).context("the path is no regular expression")?;
    let label = match label {
        "<<none>>" => None,
        label if label.split(':').count() >= 4 => Some(label.to_string()),
        _ => bail!("a label reads user:role:type:level"),
    };
    Ok(Rule { path, kind, label })
}

fn parse_kind(kind: &str) -> Result<FileKind> {
    Ok(match kind {
        "--" => FileKind::Regular,
        "-d" => FileKind::Folder,
        "-l" => FileKind::Link,
        "-b" => FileKind::Block,
        "-c" => FileKind::Character,
        _ => bail!("{kind:?} is no kind of file: write --, -d, -l, -b or -c"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_match_wins() {
        let contexts = FileContexts::parse(
            "/.* u:r:os_t:s0\n\n# comment\n/etc(/.*)? u:r:etc_t:s0\n/usr/bin/a -- u:r:a_t:s0\n/sys(/.*)? <<none>>\n",
        )
        .expect("valid");
        for (path, kind, label) in [
            ("/usr/bin/b", FileKind::Regular, Some("u:r:os_t:s0")),
            ("/usr/bin/a", FileKind::Regular, Some("u:r:a_t:s0")),
            ("/usr/bin/a", FileKind::Link, Some("u:r:os_t:s0")),
            ("/etc", FileKind::Folder, Some("u:r:etc_t:s0")),
            ("/etcetera", FileKind::Folder, Some("u:r:os_t:s0")),
            ("/sys/kernel", FileKind::Folder, None),
        ] {
            assert_eq!(contexts.label(path, kind), label, "{path}");
        }
    }

    #[test]
    fn faults_name_the_line() {
        for (text, expected) in [
            ("/a", "line 1"),
            ("\n/a -x u:r:t:s0", "line 2"),
            ("/a( u:r:t:s0", "regular expression"),
            ("/a label", "user:role:type:level"),
        ] {
            let error = match FileContexts::parse(text) {
                Ok(_) => panic!("{text:?} must be refused"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn categories_are_complete() {
        let text = categories();
        assert!(text.contains("(category c0)\n") && text.contains("(category c1023)\n"));
        assert_eq!(text.matches("(category c").count(), CATEGORIES);
    }
}
