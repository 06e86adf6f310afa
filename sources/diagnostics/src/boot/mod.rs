//! The boot report: phases from firmware to the last unit, the units that one
//! waited for another, and the slowest ones.
//!
//! Times come from systemd (its own and its units' time stamps) and from the
//! marks that init and others write to the kernel log. All of them are
//! microseconds since the kernel started.

mod chain;
mod chart;
mod kernel_log;
mod properties;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::process::Command;

use chain::Unit;
use properties::Blocks;

/// What a boot is complete with.
const LAST_UNIT: &str = "boot-complete.target";
/// What stands in for it when it was not reached.
const LAST_RESORT: &str = "multi-user.target";
/// How many of the slowest units are listed.
const SLOWEST: usize = 10;

/// Where the time of a boot went. Durations and times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// Whether the boot was complete when the report was made.
    pub complete: bool,
    /// From power-on, as far as firmware and loader report it, to the end.
    pub total_us: u64,
    /// What came after what.
    pub phases: Vec<Phase>,
    /// Moments that the host's own programs have marked.
    pub marks: Vec<Mark>,
    /// The units that one waited for another, up to the last one.
    pub critical_path: Vec<Step>,
    /// The units that took longest to start.
    pub slowest: Vec<Step>,
}

/// A stretch of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `firmware`, `loader`, `kernel`, `init`, `systemd` or `units`.
    pub name: String,
    /// How long it took; unknown where the platform does not report it.
    pub duration_us: Option<u64>,
}

/// A moment of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What happened.
    pub text: String,
    /// When, since the kernel's start.
    pub at_us: u64,
}

/// A unit's part in the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The unit.
    pub unit: String,
    /// When it began to start, since the kernel's start.
    pub started_us: u64,
    /// How long it took to start.
    pub duration_us: u64,
}

/// Makes the report of the running system's boot.
pub fn boot_report() -> Result<BootReport> {
    let show = |arguments: &[&str]| {
        sysutil::process::stdout(
            Command::new("/usr/bin/systemctl")
                .arg("show")
                .args(arguments),
        )
    };
    let manager = show(&[
        "--property=FirmwareTimestampMonotonic,LoaderTimestampMonotonic,\
         UserspaceTimestampMonotonic,UnitsLoadFinishTimestampMonotonic,FinishTimestampMonotonic",
    ])?;
    let units = show(&[
        "--property=Id,After,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,\
         InactiveEnterTimestampMonotonic",
        "*",
    ])?;
    // Without the right to read it, or when it has run over, the report lacks
    // marks and tells kernel and init together.
    let log = kernel_log::read().unwrap_or_else(|error| {
        tracing::warn!("boot report without marks: {error:#}");
        Vec::new()
    });
    Ok(compose(&manager, &units, &log))
}

/// The report from what systemd and the kernel say.
fn compose(manager: &str, units: &str, log: &[String]) -> BootReport {
    let manager = Blocks::parse(manager)
        .into_iter()
        .next()
        .unwrap_or_default();
    let time = |name: &str| manager.time(&format!("{name}TimestampMonotonic"));
    let units: Vec<Unit> = Blocks::parse(units)
        .iter()
        .filter_map(Unit::from_block)
        .collect();
    let marks = kernel_log::marks(log);

    let finished = |name: &'static str| {
        units
            .iter()
            .find(|unit| unit.name == name)
            .and_then(Unit::finished)
            .map(move |at| (name, at))
    };
    let complete = finished(LAST_UNIT);
    let last = complete.or_else(|| finished(LAST_RESORT));
    let end = last.map(|(_, at)| at).or_else(|| time("Finish"));

    let phases = phases(&marks, &time, end);
    let critical_path = last
        .map(|(name, _)| chain::critical(&units, name))
        .unwrap_or_default();
    BootReport {
        complete: complete.is_some(),
        total_us: phases.iter().filter_map(|phase| phase.duration_us).sum(),
        phases,
        marks,
        critical_path,
        slowest: chain::slowest(&units, SLOWEST),
    }
}

/// Cuts the time up at the moments that are known.
fn phases(marks: &[Mark], time: &dyn Fn(&str) -> Option<u64>, end: Option<u64>) -> Vec<Phase> {
    let mark = |text: &str| {
        marks
            .iter()
            .find(|mark| mark.text == text)
            .map(|mark| mark.at_us)
    };
    let firmware = time("Firmware");
    let loader = time("Loader");
    let init = mark("init started");
    let handed_over = mark("starting systemd").or_else(|| time("Userspace"));
    let loaded = time("UnitsLoadFinish");
    let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);

    // Firmware and loader are given as the time before the kernel's start.
    let mut phases = vec![("firmware", between(loader, firmware)), ("loader", loader)];
    match init {
        Some(_) => {
            phases.push(("kernel", init));
            phases.push(("init", between(init, handed_over)));
        }
        None => phases.push(("kernel and init", handed_over)),
    }
    phases.push(("systemd", between(handed_over, loaded)));
    phases.push(("units", between(loaded, end)));
    phases
        .into_iter()
        .map(|(name, duration_us)| Phase {
            name: name.to_owned(),
            duration_us,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const MANAGER: &str = "\
FirmwareTimestampMonotonic=0
LoaderTimestampMonotonic=0
UserspaceTimestampMonotonic=5300000
UnitsLoadFinishTimestampMonotonic=9100000
FinishTimestampMonotonic=20800000
";

    const UNITS: &str = "\
Id=boot-complete.target
After=bless-boot.service sysinit.target multi-user.target
InactiveExitTimestampMonotonic=20700000
ActiveEnterTimestampMonotonic=20700000
InactiveEnterTimestampMonotonic=0

Id=bless-boot.service
After=multi-user.target basic.target
InactiveExitTimestampMonotonic=19000000
ActiveEnterTimestampMonotonic=20700000
InactiveEnterTimestampMonotonic=0

Id=multi-user.target
After=apiserver.service chronyd.service
InactiveExitTimestampMonotonic=19000000
ActiveEnterTimestampMonotonic=19000000
InactiveEnterTimestampMonotonic=0

Id=apiserver.service
After=prepare-storage.service system.slice
InactiveExitTimestampMonotonic=12000000
ActiveEnterTimestampMonotonic=15500000
InactiveEnterTimestampMonotonic=0

Id=chronyd.service
After=apiserver.service
InactiveExitTimestampMonotonic=15600000
ActiveEnterTimestampMonotonic=18900000
InactiveEnterTimestampMonotonic=0

Id=prepare-storage.service
After=-.mount
InactiveExitTimestampMonotonic=9200000
ActiveEnterTimestampMonotonic=11900000
InactiveEnterTimestampMonotonic=0

Id=never.service
After=
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=0
";

    fn log() -> Vec<String> {
        [
            "6,1,100,-;Linux version 6.12",
            "27,2,4700000,-;bulkhead: init started",
            "27,3,5100000,-;bulkhead: root verified, slot A, version 0.1.0",
            "27,4,5250000,-;bulkhead: starting systemd",
            "27,5,15400000,-;bulkhead: API ready",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn a_recorded_boot_is_shown() {
        let report = compose(MANAGER, UNITS, &log());
        expect![[r#"
            Boot complete after 20.7 s

            firmware           not reported
            loader             not reported
            kernel             4.700 s  #############
            init               0.550 s  ##
            systemd            3.850 s  ###########
            units             11.600 s  ################################

            Marks
               4.700 s  init started
               5.100 s  root verified, slot A, version 0.1.0
               5.250 s  starting systemd
              15.400 s  API ready

            Critical path: what the end waited for
               9.200 s  +  2.700 s  prepare-storage.service
              12.000 s  +  3.500 s  apiserver.service
              15.600 s  +  3.300 s  chronyd.service
              19.000 s              multi-user.target
              19.000 s  +  1.700 s  bless-boot.service
              20.700 s              boot-complete.target

            Slowest to start
               3.500 s  apiserver.service
               3.300 s  chronyd.service
               2.700 s  prepare-storage.service
               1.700 s  bless-boot.service
        "#]]
        .assert_eq(&report.to_string());
    }

    #[test]
    fn firmware_and_loader_count_when_they_report() {
        let manager = MANAGER
            .replace(
                "FirmwareTimestampMonotonic=0",
                "FirmwareTimestampMonotonic=3000000",
            )
            .replace(
                "LoaderTimestampMonotonic=0",
                "LoaderTimestampMonotonic=1000000",
            );
        let report = compose(&manager, UNITS, &log());
        let durations: Vec<_> = report
            .phases
            .iter()
            .map(|phase| (phase.name.as_str(), phase.duration_us))
            .collect();
        assert_eq!(
            durations[..2],
            [("firmware", Some(2_000_000)), ("loader", Some(1_000_000))]
        );
        assert_eq!(report.total_us, 23_700_000);
    }

    #[test]
    fn without_marks_kernel_and_init_are_one() {
        let report = compose(MANAGER, UNITS, &[]);
        assert_eq!(report.phases[2].name, "kernel and init");
        assert_eq!(report.phases[2].duration_us, Some(5_300_000));
        assert_eq!(report.total_us, 20_700_000);
    }

    #[test]
    fn an_unfinished_boot_is_reported_as_far_as_it_came() {
        let units = UNITS.replace(
            "InactiveExitTimestampMonotonic=20700000\nActiveEnterTimestampMonotonic=20700000",
            "InactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0",
        );
        let report = compose(MANAGER, &units, &log());
        assert!(!report.complete);
        assert_eq!(report.total_us, 19_000_000);
        assert_eq!(
            report.critical_path.last().map(|s| s.unit.as_str()),
            Some("multi-user.target")
        );
        let nothing = compose("", "", &[]);
        assert_eq!(
            (
                nothing.complete,
                nothing.total_us,
                nothing.critical_path.len()
            ),
            (false, 0, 0)
        );
        assert!(nothing.to_string().starts_with("Boot not complete"));
    }

    #[test]
    fn the_report_travels_as_json() {
        let report = compose(MANAGER, UNITS, &log());
        let json = serde_json::to_string(&report).expect("JSON");
        assert!(
            json.contains(r#"{"name":"kernel","duration_us":4700000}"#),
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<BootReport>(&json).expect("read"),
            report
        );
    }
}
