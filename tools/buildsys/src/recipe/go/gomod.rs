//! What a `go.mod` says, as far as the build goes by it.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A `go.mod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoMod {
    /// The toolchain that builds: the `toolchain` line, or the `go` line where there
    /// is none.
    pub toolchain: GoVersion,
    /// Module → version, replacements applied.
    versions: BTreeMap<String, String>,
}

impl GoMod {
    /// Reads the text of a `go.mod`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut language: Option<GoVersion> = None;
        let mut toolchain: Option<GoVersion> = None;
        let mut versions = BTreeMap::new();
        let mut replacements: Vec<(String, String)> = Vec::new();
        for (number, words) in directives(text) {
            let line = || format!("line {number}: {}", words.join(" "));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words[..] {
                ["go", version] => language = Some(version.parse().with_context(line)?),
                ["toolchain", name] => {
                    let version = name.strip_prefix("go").unwrap_or(name);
                    toolchain = Some(version.parse().with_context(line)?);
                }
                ["require", module, version] => {
                    versions.insert(module.to_string(), version.to_string());
                }
                ["replace", module, "=>", _, version]
                | ["replace", module, _, "=>", _, version] => {
                    replacements.push((module.to_string(), version.to_string()));
                }
                ["replace", ..] => bail!(
                    "{}: what replaces a module must be another one, with its version, for go.sum pins nothing else",
                    line()
                ),
                _ => {}
            }
        }
        for (module, version) in replacements {
            if let Some(known) = versions.get_mut(&module) {
                *known = version;
            }
        }
        let language = language.context("it has no go line")?;
        let toolchain = toolchain.unwrap_or_else(|| language.clone());
        ensure!(
            language <= toolchain,
            "it wants Go {language}, but its toolchain line says go{toolchain}: raise that line"
        );
        ensure!(
            toolchain.0.len() == 3,
            "it names no exact toolchain: add a line such as `toolchain go{toolchain}.1`"
        );
        Ok(Self {
            toolchain,
            versions,
        })
    }

    /// The module that has the package `import`, and its version.
    pub fn module_of(&self, import: &str) -> Option<(&str, &str)> {
        self.versions
            .iter()
            .filter(|(module, _)| {
                import
                    .strip_prefix(module.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .max_by_key(|(module, _)| module.len())
            .map(|(module, version)| (module.as_str(), version.as_str()))
    }
}

/// The directives of a `go.mod`, each with the number of its line; those in
/// parentheses with the word before them.
fn directives(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or(line);
        let words = line.split_whitespace();
        let mut words: Vec<String> = words
            .map(|word| word.trim_matches(['"', '`']).to_string())
            .collect();
        match (words.as_slice(), &block) {
            ([], _) => {}
            ([end], Some(_)) if end == ")" => block = None,
            ([name, open], None) if open == "(" => block = Some(name.clone()),
            (_, Some(name)) => {
                words.insert(0, name.clone());
                found.push((index + 1, words));
            }
            (_, None) => found.push((index + 1, words)),
        }
    }
    found
}

/// A released version of Go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoVersion(Vec<u32>);

impl FromStr for GoVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers {
            Some(numbers) if (2..=3).contains(&numbers.len()) => Ok(Self(numbers)),
            _ => bail!("{text:?} is not a release of Go, such as 1.26.5"),
        }
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_toolchain() {
        let text = r#"
            module bulkhead/sample
            go 1.25.0 // the language
            toolchain go1.26.5
            require example.org/single v1.0.0
            require (
                example.org/tool v1.2.3
                "example.org/tool/api" v0.2.0 // indirect
                example.org/old v0.0.0
            )
            replace (
                example.org/old => example.org/new v0.5.0
                example.org/unused v1.0.0 => example.org/other v9.0.0
            )
            tool example.org/tool/cmd/tool
        "#;
        let module = GoMod::parse(text).unwrap();
        assert_eq!(module.toolchain.to_string(), "1.26.5");
        for (import, expected) in [
            ("example.org/single", Some(("example.org/single", "v1.0.0"))),
            (
                "example.org/tool/cmd/tool",
                Some(("example.org/tool", "v1.2.3")),
            ),
            (
                "example.org/tool/api/v1",
                Some(("example.org/tool/api", "v0.2.0")),
            ),
            ("example.org/old/x", Some(("example.org/old", "v0.5.0"))),
            ("example.org/tools", None),
            ("example.org/unused", None),
        ] {
            assert_eq!(module.module_of(import), expected, "{import}");
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        for (text, expected) in [
            ("module m", "no go line"),
            ("go 1.26", "no exact toolchain"),
            (
                "go 1.26.9\ntoolchain go1.26.5",
                "wants Go 1.26.9, but its toolchain line says go1.26.5",
            ),
            ("go 1.26rc1", "line 1: go 1.26rc1"),
            ("go 1.26.0\ntoolchain go1.26.5-custom", "line 2: toolchain"),
            (
                "go 1.26.5\nreplace example.org/x => ../x",
                "line 2: replace example.org/x => ../x",
            ),
        ] {
            let error = format!("{:#}", GoMod::parse(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(
            GoMod::parse("go 1.26.5").unwrap().toolchain.to_string(),
            "1.26.5"
        );
    }
}
