//! What the command line says: its signed part comes first, so that nothing
//! added to it can stand for what the image says.

use crate::outcome::Failure;
use boot_slots::entry::is_version;
use boot_slots::parameters::Parameters;
use boot_slots::verity::RootHash;
use std::fs;
use std::path::Path;

const PATH: &str = "/proc/cmdline";
const ROOT: &str = "bulkhead.root=";
const VERSION: &str = "bulkhead.version=";

/// The image that this kernel belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Its root hash.
    pub root_hash: RootHash,
    /// Its version, as in the name of its unified kernel image.
    pub version: String,
    /// Whether settings have added something to it.
    pub has_settings: bool,
}

impl CommandLine {
    /// Reads the running kernel's.
    pub fn read() -> Result<Self, Failure> {
        let text = fs::read_to_string(PATH).map_err(Failure::on("read", Path::new(PATH)))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let value = |key: &str| {
            text.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
                .ok_or_else(|| Failure::plain(format!("the kernel command line has no {key}")))
        };
        let root_hash = value(ROOT)?;
        let version = value(VERSION)?;
        if !is_version(version) {
            return Err(Failure::plain(format!(
                "{version:?} in {VERSION} is not a version"
            )));
        }
        let root_hash = root_hash
            .parse()
            .map_err(|error| Failure::new(format!("{ROOT}{root_hash}"), error))?;
        Ok(Self {
            root_hash,
            version: version.to_string(),
            has_settings: !Parameters::of_command_line(text).is_empty(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_is_found_among_other_arguments() {
        let hash = "0123456789abcdef".repeat(4);
        let text = format!("console=ttyS0 bulkhead.root={hash} panic=5 bulkhead.version=1.2.0\n");
        let parsed = CommandLine::parse(&text).unwrap();
        assert_eq!(parsed.root_hash.to_string(), hash);
        assert_eq!(parsed.version, "1.2.0");
        assert!(!parsed.has_settings);
        let text = format!("{} bulkhead.settings a=b\n", text.trim());
        assert!(CommandLine::parse(&text).unwrap().has_settings);
    }

    #[test]
    fn faults_name_the_argument() {
        let hash = "ab".repeat(32);
        for (text, named) in [
            ("bulkhead.version=1".to_string(), "bulkhead.root="),
            (format!("bulkhead.root={hash}"), "bulkhead.version="),
            (
                "bulkhead.root=12 bulkhead.version=1".to_string(),
                "bulkhead.root=12",
            ),
            (
                format!("bulkhead.root={hash} bulkhead.version=../x"),
                "../x",
            ),
            (format!("bulkhead.root={hash} bulkhead.version=1+3"), "1+3"),
        ] {
            let failure = CommandLine::parse(&text).unwrap_err().to_string();
            assert!(failure.contains(named), "{failure}");
        }
    }
}
