//! Folders of files whose names depend on the settings.
//!
//! A template begins each file with `{{ file("name") }}`, which renders a mark
//! that no setting can hold; [`split`] parts the text at the marks.

use anyhow::{Context, Result, bail, ensure};
use minijinja::{Error, ErrorKind};
use std::collections::BTreeMap;

/// On both sides of a file's name. Settings of one line have no control characters.
const MARK: char = '\u{1}';

/// What templates call as `file`: the beginning of the file `name`.
pub(crate) fn begin(name: &str) -> Result<String, Error> {
    if is_good(name) {
        Ok(format!("{MARK}{name}{MARK}"))
    } else {
        let reason = format!("{name:?} is not a name for a file in a folder of the settings");
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    }
}

/// A path without `..`, hidden parts, or characters that need quotes anywhere.
fn is_good(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    name.len() <= 255
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain))
}

/// The files of a rendered text, by their names.
pub(crate) fn split(text: &str) -> Result<Vec<(String, String)>> {
    let mut parts = text.split(MARK);
    let before = parts.next().unwrap_or_default();
    ensure!(
        before.trim().is_empty(),
        "the template has a text before its first file(…): {:?}",
        before.trim()
    );
    let mut files = BTreeMap::new();
    while let Some(name) = parts.next() {
        let text = parts
            .next()
            .context("a control character of the settings looks like a file's mark")?;
        ensure!(
            is_good(name),
            "{name:?} is not a name for a file in a folder of the settings"
        );
        // The line that the mark stands on is not the file's.
        let text = text.strip_prefix('\n').unwrap_or(text);
        if files.insert(name.to_string(), text.to_string()).is_some() {
            bail!("the template makes the file {name} twice");
        }
    }
    Ok(files.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_split_at_their_marks() {
        let text = format!(
            "\n{}\na = 1\n{}\nb\n",
            begin("b/hosts.toml").expect("a name"),
            begin("a").expect("a name")
        );
        let expected = [("a", "b\n"), ("b/hosts.toml", "a = 1\n")];
        let expected = expected.map(|(name, text)| (name.to_string(), text.to_string()));
        assert_eq!(split(&text).expect("files"), expected);
        assert!(split("").expect("nothing").is_empty());
        for (text, reason) in [
            ("x\u{1}a\u{1}\n", "before its first file"),
            ("\u{1}a\u{1}\n\u{1}a\u{1}\n", "the file a twice"),
            ("\u{1}a", "looks like a file's mark"),
            ("\u{1}../a\u{1}\n", "is not a name for a file"),
        ] {
            let error = split(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn names_of_files() {
        for name in [
            "a",
            "_default/hosts.toml",
            "registry.example.com:5000/hosts.toml",
            "[fd00::a]:5000/hosts.toml",
        ] {
            assert!(begin(name).is_ok(), "{name}");
        }
        for name in [
            "", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/.b", "a b", "a\n", "*", "ü", "a\u{1}",
        ] {
            assert!(begin(name).is_err(), "{name}");
        }
    }
}
