//! `bootstrap-commands`: calls of `apiclient` that the settings ask for at boot, one
//! after the other, before anything that they could concern has started.
//!
//! What a command asks for with `mode = "once"` is taken back when it has succeeded.
//! One that fails ends its own list of calls; an essential one ends the boot here,
//! behind the API, which the unit sees to.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const SETTINGS: &str = "/etc/bulkhead/bootstrap-commands.toml";
const APICLIENT: &str = "/usr/bin/apiclient";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// In the order in which they run.
    command: Vec<BootstrapCommand>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootstrapCommand {
    name: String,
    once: bool,
    essential: bool,
    /// Each begins with the word `apiclient`.
    calls: Vec<Vec<String>>,
}

/// Runs those of this boot.
pub fn run() -> Result<()> {
    let text = sysutil::fs::read_text_if_present(Path::new(SETTINGS), 1024 * 1024)?;
    let settings: Settings =
        toml::from_str(&text.unwrap_or_default()).with_context(|| SETTINGS.to_owned())?;
    run_all(&settings.command, &mut |words| {
        // Its arguments may be secret, so neither log nor error may have them.
        let mut command = Command::new(APICLIENT);
        command.args(words).stdin(Stdio::null());
        let output = command
            .output()
            .with_context(|| format!("starting {APICLIENT}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            stderr.trim()
        );
        Ok(())
    })
}

/// Runs commands in their order. `call` runs `apiclient` with words.
fn run_all(
    commands: &[BootstrapCommand],
    call: &mut dyn FnMut(&[String]) -> Result<()>,
) -> Result<()> {
    for command in commands {
        if let Err(error) = run_one(command, call) {
            let what = format!("bootstrap command {}: {error:#}", command.name);
            sysutil::console::say(&what);
            if command.essential {
                bail!("{what}; it is essential, so the boot goes no further");
            }
            tracing::error!("{what}");
        }
    }
    Ok(())
}

fn run_one(
    command: &BootstrapCommand,
    call: &mut dyn FnMut(&[String]) -> Result<()>,
) -> Result<()> {
    for (number, words) in (1..).zip(&command.calls) {
        let Some((_, arguments)) = words.split_first() else {
            bail!("call {number} has no words");
        };
        call(arguments).with_context(|| format!("call {number} of apiclient failed"))?;
    }
    if command.once {
        let off = format!("settings.bootstrap-commands.{}.mode=off", command.name);
        call(&["set".to_owned(), off]).context("it succeeded, but could not be set to off")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: &str = r#"
        [[command]]
        name = "000-storage"
        once = false
        essential = true
        calls = [["apiclient", "ephemeral-storage", "init"], ["apiclient", "ephemeral-storage", "bind"]]
        [[command]]
        name = "100-motd"
        once = true
        essential = false
        calls = [["apiclient", "set", "motd=x"], ["apiclient", "get"]]
    "#;

    fn check(failing: &str, calls: &[&str], error: Option<&str>) {
        let settings: Settings = toml::from_str(COMMANDS).expect("TOML");
        let mut called = Vec::new();
        let result = run_all(&settings.command, &mut |words| {
            called.push(words.join(" "));
            ensure!(words.join(" ") != failing, "no such luck");
            Ok(())
        });
        assert_eq!(called, calls, "{failing}");
        match (result, error) {
            (Ok(()), None) => {}
            (Err(found), Some(part)) => assert!(found.to_string().contains(part), "{found}"),
            (result, _) => panic!("{failing}: {result:?}"),
        }
    }

    #[test]
    fn they_run_in_order_until_one_fails() {
        let off = "set settings.bootstrap-commands.100-motd.mode=off";
        let (init, bind) = ("ephemeral-storage init", "ephemeral-storage bind");
        check("", &[init, bind, "set motd=x", "get", off], None);
        check(
            init,
            &[init],
            Some(
                "bootstrap command 000-storage: call 1 of apiclient failed: no such luck; \
                 it is essential",
            ),
        );
        check(bind, &[init, bind], Some("call 2 of apiclient failed"));
        // What is not essential keeps nothing back, and is tried again at the next boot.
        check("set motd=x", &[init, bind, "set motd=x"], None);
        check(off, &[init, bind, "set motd=x", "get", off], None);
    }
}
