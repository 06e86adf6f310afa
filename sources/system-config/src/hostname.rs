//! `hostname`: gives the kernel the name in `/etc/hostname`.

use std::path::Path;

use anyhow::{Context, Result, bail};

const FILE: &str = "/etc/hostname";

/// Sets the host name, unless the file is empty or missing.
pub fn run() -> Result<()> {
    let text = sysutil::fs::read_text_if_present(Path::new(FILE), 4096)?.unwrap_or_default();
    let Some(name) = parse(&text).with_context(|| format!("reading {FILE}"))? else {
        return Ok(());
    };
    nix::unistd::sethostname(name).with_context(|| format!("setting the host name to {name}"))?;
    tracing::info!(name, "host name set");
    Ok(())
}

/// The first line that is neither empty nor a comment, as hostname(5) says.
/// The settings have checked the name; the kernel's limit is all that is left.
fn parse(text: &str) -> Result<Option<&str>> {
    let name = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    match name {
        Some(name) if name.len() > 64 => {
            bail!("{name} has more than the 64 characters that a host name may have")
        }
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_real_line_is_the_name() {
        for (text, expected) in [
            ("node-1\n", Some("node-1")),
            ("# comment\n\n  a.example \n", Some("a.example")),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text).expect("short"), expected, "{text:?}");
        }
        assert!(parse(&"a".repeat(65)).is_err());
    }
}
