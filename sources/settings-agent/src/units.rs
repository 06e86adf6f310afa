//! The service manager, as far as settings need it.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// What can be done to units.
pub trait Units: Send + Sync {
    /// Restarts those of `units` that take part in this boot, and says which.
    fn restart(&self, units: &[String]) -> Result<Vec<String>>;
    /// Reloads those of `units` that run, or restarts them if they cannot reload,
    /// and says which.
    fn reload(&self, units: &[String]) -> Result<Vec<String>>;
    /// Starts a unit and waits until it has started; one that runs once, until it
    /// has run.
    fn start(&self, unit: &str) -> Result<()>;
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

    /// Those of `units` that `chosen` takes from what `systemctl show` says of them.
    fn choose(units: &[String], chosen: fn(&str) -> Vec<String>) -> Result<Vec<String>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let properties =
            "--property=Id,Type,ActiveState,ConditionResult,ConditionTimestampMonotonic";
        let mut command = Command::new(SYSTEMCTL);
        command.args(["show", properties, "--"]).args(units);
        let shown = sysutil::process::stdout(&mut command)
            .with_context(|| format!("ask for the state of {}", units.join(", ")))?;
        Ok(chosen(&shown))
    }

    /// Has systemd do something to units, of which there may be none. Starts before count for
    /// nothing, since the limit of starts is for units that fail: whoever changes settings
    /// five times in ten seconds wants the last change, too.
    fn have_done(verb: &str, units: Vec<String>) -> Result<Vec<String>> {
        if !units.is_empty() {
            for verb in ["reset-failed", verb] {
                let mut arguments = vec![verb, "--"];
                arguments.extend(units.iter().map(String::as_str));
                Self::run(&arguments).with_context(|| format!("{verb} {}", units.join(", ")))?;
            }
        }
        Ok(units)
    }
}

/// The units, of those that `systemctl show` describes, that a change of their
/// configuration concerns: which run, which failed, and which would have run
/// at boot, or on time, but had nothing to do. A unit that nothing has asked
/// for yet is not started by a setting, nor one that somebody stopped.
fn take_part(shown: &str) -> Vec<String> {
    let takes_part = |unit: &Shown<'_>| match unit.field("ActiveState") {
        None => false,
        Some("inactive") => {
            let asked = unit.field("ConditionTimestampMonotonic");
            let is_timer = unit.field("Id").is_some_and(|id| id.ends_with(".timer"));
            let runs_once = unit.field("Type") == Some("oneshot");
            let had_nothing_to_do = unit.field("ConditionResult") == Some("no");
            (runs_once || is_timer || had_nothing_to_do) && asked.is_some_and(|at| at != "0")
        }
        Some(_) => true,
    };
    names_of(shown, takes_part)
}

/// The units, of those that `systemctl show` describes, that run.
fn run_now(shown: &str) -> Vec<String> {
    let runs = |unit: &Shown<'_>| {
        let state = unit.field("ActiveState");
        matches!(state, Some("active" | "activating" | "reloading"))
    };
    names_of(shown, runs)
}

/// One unit as `systemctl show` describes it.
struct Shown<'s>(&'s str);

impl<'s> Shown<'s> {
    fn field(&self, name: &str) -> Option<&'s str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

fn names_of(shown: &str, chosen: impl Fn(&Shown<'_>) -> bool) -> Vec<String> {
    let units = shown.split("\n\n").map(Shown);
    units
        .filter(chosen)
        .filter_map(|unit| unit.field("Id").map(str::to_string))
        .collect()
}

impl Units for Systemd {
    fn restart(&self, units: &[String]) -> Result<Vec<String>> {
        Self::have_done("restart", Self::choose(units, take_part)?)
    }

    fn reload(&self, units: &[String]) -> Result<Vec<String>> {
        Self::have_done("try-reload-or-restart", Self::choose(units, run_now)?)
    }

    fn start(&self, unit: &str) -> Result<()> {
        Self::run(&["start", "--", unit]).with_context(|| format!("start {unit}"))
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
    fn only_units_that_take_part_are_restarted_and_only_those_that_run_reloaded() {
        let unit = |id: &str, kind: &str, state: &str, asked: &str| {
            format!(
                "Type={kind}\nId={id}\nActiveState={state}\nConditionResult={}\n\
                 ConditionTimestampMonotonic={asked}\n",
                if id.starts_with("skipped") || id.starts_with("never") {
                    "no"
                } else {
                    "yes"
                }
            )
        };
        let shown = [
            unit("runs.service", "notify", "active", "7"),
            unit("stopped.service", "simple", "inactive", "7"),
            unit("never.service", "oneshot", "inactive", "0"),
            unit("skipped.service", "oneshot", "inactive", "7"),
            unit("skipped-too.service", "notify", "inactive", "7"),
            unit("never-too.service", "notify", "inactive", "0"),
            // Timers have no type.
            unit("off.timer", "", "inactive", "7"),
            unit("never.timer", "", "inactive", "0"),
            unit("failed.service", "simple", "failed", "7"),
            unit("starts.service", "notify", "activating", "7"),
        ]
        .join("\n");
        let expected = [
            "runs.service",
            "skipped.service",
            "skipped-too.service",
            "off.timer",
            "failed.service",
            "starts.service",
        ];
        assert_eq!(take_part(&shown), expected);
        assert_eq!(run_now(&shown), ["runs.service", "starts.service"]);
    }
}
