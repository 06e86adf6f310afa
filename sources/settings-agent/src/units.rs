//! The service manager, as far as settings need it.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// What can be done to units.
pub trait Units: Send + Sync {
    /// Restarts those of `units` that take part in this boot.
    fn restart(&self, units: &[String]) -> Result<()>;
    /// Reloads those of `units` that run, or restarts them if they cannot reload.
    fn reload(&self, units: &[String]) -> Result<()>;
    /// Reboots the machine, unless something inhibits it.
    fn reboot(&self) -> Result<()>;
}

/// The command that [`Systemd`] runs for a unit, as the API shows it.
pub fn command(restart: bool, unit: &str) -> String {
    let verb = if restart {
        "try-restart"
    } else {
        "try-reload-or-restart"
    };
    format!("systemctl {verb} {unit}")
}

/// systemd, through `systemctl`.
pub struct Systemd;

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

impl Systemd {
    fn run(arguments: &[&str]) -> Result<()> {
        sysutil::process::run(Command::new(SYSTEMCTL).args(arguments)).map(|_| ())
    }

    /// Those of `units` that take part in this boot.
    fn taking_part(units: &[String]) -> Result<Vec<String>> {
        let properties = "--property=Id,Type,ActiveState,ConditionTimestampMonotonic";
        let mut command = Command::new(SYSTEMCTL);
        command.args(["show", properties, "--"]).args(units);
        let shown = sysutil::process::stdout(&mut command)
            .with_context(|| format!("ask for the state of {}", units.join(", ")))?;
        Ok(take_part(&shown))
    }
}

/// The units, of those that `systemctl show` describes, that a change of their
/// configuration concerns: which run, which failed, and which would have run
/// once at boot but had nothing to do. A unit that nothing has asked for yet is
/// not started by a setting.
fn take_part(shown: &str) -> Vec<String> {
    shown
        .split("\n\n")
        .filter_map(|unit| {
            let field = |name: &str| {
                unit.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            };
            let was_asked_for = field("ConditionTimestampMonotonic").is_some_and(|at| at != "0");
            let takes_part = match field("ActiveState")? {
                "inactive" => field("Type") == Some("oneshot") && was_asked_for,
                _ => true,
            };
            takes_part.then(|| field("Id").map(str::to_string))?
        })
        .collect()
}

impl Units for Systemd {
    fn restart(&self, units: &[String]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let units = Self::taking_part(units)?;
        if units.is_empty() {
            return Ok(());
        }
        let mut arguments = vec!["restart", "--"];
        arguments.extend(units.iter().map(String::as_str));
        Self::run(&arguments).with_context(|| format!("restart {}", units.join(", ")))
    }

    fn reload(&self, units: &[String]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let mut arguments = vec!["try-reload-or-restart", "--"];
        arguments.extend(units.iter().map(String::as_str));
        Self::run(&arguments).with_context(|| format!("reload {}", units.join(", ")))
    }

    fn reboot(&self) -> Result<()> {
        // Inhibitors are known to logind, which is asked over the system bus;
        // where there is no bus there is nobody to inhibit anything.
        let mut arguments = vec!["reboot", "--no-block"];
        if Path::new(SYSTEM_BUS).exists() {
            arguments.push("--check-inhibitors=yes");
        }
        Self::run(&arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_that_take_part_are_restarted() {
        let unit = |id: &str, kind: &str, state: &str, asked: &str| {
            format!(
                "Type={kind}\nId={id}\nActiveState={state}\nConditionTimestampMonotonic={asked}\n"
            )
        };
        let shown = [
            unit("runs.service", "notify", "active", "7"),
            unit("stopped.service", "simple", "inactive", "7"),
            unit("never.service", "oneshot", "inactive", "0"),
            unit("skipped.service", "oneshot", "inactive", "7"),
            unit("failed.service", "simple", "failed", "7"),
            unit("starts.service", "notify", "activating", "7"),
        ]
        .join("\n");
        let expected = [
            "runs.service",
            "skipped.service",
            "failed.service",
            "starts.service",
        ];
        assert_eq!(take_part(&shown), expected);
    }
}
