//! `lockdown`: raises the kernel's lockdown to the level in the settings. The
//! kernel never lowers it; that takes a restart.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const SETTINGS: &str = "/etc/bulkhead/kernel.toml";
const KERNEL: &str = "/sys/kernel/security/lockdown";

#[derive(Deserialize)]
struct Settings {
    lockdown: Option<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    None,
    Integrity,
    Confidentiality,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Raises the level of the running kernel if the settings ask for more.
pub fn run() -> Result<()> {
    apply(Path::new(SETTINGS), Path::new(KERNEL))
}

fn apply(settings: &Path, kernel: &Path) -> Result<()> {
    let text = sysutil::fs::read_text_if_present(settings, 64 * 1024)?.unwrap_or_default();
    let parsed: Settings =
        toml::from_str(&text).with_context(|| format!("reading {}", settings.display()))?;
    let Some(wanted) = parsed.lockdown else {
        return Ok(());
    };
    let text = sysutil::fs::read_text_if_present(kernel, 4096)?.unwrap_or_default();
    let current = current(&text).with_context(|| format!("reading {}", kernel.display()))?;
    if wanted > current {
        std::fs::write(kernel, wanted.name())
            .with_context(|| format!("raising the kernel's lockdown to {}", wanted.name()))?;
        tracing::info!(level = wanted.name(), "lockdown raised");
    } else if wanted < current {
        tracing::warn!(
            current = current.name(),
            wanted = wanted.name(),
            "the kernel's lockdown can only be raised"
        );
    }
    Ok(())
}

/// The level in brackets, as in `none [integrity] confidentiality`.
fn current(text: &str) -> Result<Level> {
    let word = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Ok(match word {
        Some("none") => Level::None,
        Some("integrity") => Level::Integrity,
        Some("confidentiality") => Level::Confidentiality,
        _ => bail!(
            "{:?} names no level: has this kernel lockdown?",
            text.trim()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_only_ever_raised() {
        let folder = tempfile::tempdir().expect("folder");
        let settings = folder.path().join("kernel.toml");
        let kernel = folder.path().join("lockdown");
        let integrity = "none [integrity] confidentiality\n";
        for (wanted, expected) in [
            ("", integrity),
            ("lockdown = \"none\"", integrity),
            ("lockdown = \"integrity\"", integrity),
            ("lockdown = \"confidentiality\"", "confidentiality"),
        ] {
            std::fs::write(&settings, wanted).expect("file");
            std::fs::write(&kernel, integrity).expect("file");
            apply(&settings, &kernel).expect("applied");
            assert_eq!(
                std::fs::read_to_string(&kernel).expect("read"),
                expected,
                "{wanted}"
            );
        }
        std::fs::write(&settings, "lockdown = \"total\"").expect("file");
        let error = format!(
            "{:#}",
            apply(&settings, &kernel).expect_err("unknown level")
        );
        assert!(error.contains("kernel.toml"), "{error}");
        std::fs::write(&settings, "lockdown = \"integrity\"").expect("file");
        std::fs::remove_file(&kernel).expect("removed");
        assert!(apply(&settings, &kernel).is_err());
    }
}
