//! os-release(5): what this system calls itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Largest file that is believed to be an os-release.
const SIZE_LIMIT: u64 = 64 * 1024;

/// The fields of an os-release file. A field that is not there is empty, as
/// the format's manual asks of readers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OsRelease {
    fields: BTreeMap<String, String>,
}

impl OsRelease {
    /// Reads `/etc/os-release`, else `/usr/lib/os-release`, below `root`.
    pub fn read(root: &Path) -> Result<OsRelease> {
        let etc = root.join("etc/os-release");
        let path = if etc.exists() {
            etc
        } else {
            root.join("usr/lib/os-release")
        };
        let bytes =
            crate::fs::read_limited(&path, SIZE_LIMIT).context("reading what system this is")?;
        Ok(OsRelease::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Takes the fields out of the file's text. Lines that are no assignment
    /// are passed over.
    pub fn parse(text: &str) -> OsRelease {
        let fields = text
            .lines()
            .filter_map(|line| {
                let (key, value) = line.trim().split_once('=')?;
                let plain =
                    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                plain.then(|| (key.to_owned(), unquote(value)))
            })
            .collect();
        OsRelease { fields }
    }

    /// A field by its name in the file, such as `VERSION_ID`.
    pub fn get(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// `PRETTY_NAME`: the name for people.
    pub fn pretty_name(&self) -> &str {
        self.get("PRETTY_NAME")
    }

    /// `VARIANT_ID`: which image this is.
    pub fn variant_id(&self) -> &str {
        self.get("VARIANT_ID")
    }

    /// `VERSION_ID`: the version without a leading `v`.
    pub fn version_id(&self) -> &str {
        self.get("VERSION_ID")
    }

    /// `BUILD_ID`: eight hex digits that stand for all it was built from.
    pub fn build_id(&self) -> &str {
        self.get("BUILD_ID")
    }
}

/// A value without its quotes and escapes: shell quoting as the format allows it, and as the
/// service manager's files of variables have it. Single or double quotes are around the value,
/// and backslashes before `"`, `$`, `` ` `` and themselves in the latter.
pub fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value
        .strip_prefix('"')
        .and_then(|v| v.strip_suffix('"'))
        .unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes() {
        for (line, expected) in [
            ("KEY=plain", "plain"),
            ("KEY=\"two words\"", "two words"),
            ("KEY='single \"inside\"'", "single \"inside\""),
            (r#"KEY="a \"b\" \\ \$c""#, r#"a "b" \ $c"#),
            ("KEY=", ""),
            ("KEY=\"", "\""),
            ("KEY=a=b", "a=b"),
            ("  KEY=indented  ", "indented"),
            ("# KEY=comment", ""),
            ("no assignment", ""),
        ] {
            assert_eq!(OsRelease::parse(line).get("KEY"), expected, "{line}");
        }
    }

    #[test]
    fn reads_below_a_root_and_prefers_etc() {
        let root = tempfile::tempdir().expect("folder");
        assert!(OsRelease::read(root.path()).is_err());
        std::fs::create_dir_all(root.path().join("usr/lib")).expect("folder");
        std::fs::create_dir_all(root.path().join("etc")).expect("folder");
        std::fs::write(root.path().join("usr/lib/os-release"), "VERSION_ID=1.0.0\n").expect("file");
        let read = OsRelease::read(root.path()).expect("read");
        assert_eq!((read.version_id(), read.variant_id()), ("1.0.0", ""));
        std::fs::write(root.path().join("etc/os-release"), "VERSION_ID=2.0.0\n").expect("file");
        assert_eq!(
            OsRelease::read(root.path()).expect("read").version_id(),
            "2.0.0"
        );
    }
}
