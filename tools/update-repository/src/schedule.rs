//! Schedules of waves, as people write them.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::time::Duration;
use sysutil::time::Time;
use toml::Table;
use update_metadata::{SEEDS, Waves};

/// Which part of the fleet has its turn how long after a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<(Duration, u32)>);

impl Schedule {
    /// Reads a file of `[[waves]]`, each with `start_after` such as `"4 hours"` and the
    /// `fleet_percentage` that it and the waves before it reach.
    pub fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().context("the schedule is no TOML")?;
        let waves = (table.get("waves").and_then(|waves| waves.as_array()))
            .context("the schedule has no [[waves]]")?;
        let mut schedule = Vec::new();
        for (index, wave) in waves.iter().enumerate() {
            let start = (wave.get("start_after").and_then(|start| start.as_str()))
                .and_then(duration)
                .with_context(|| {
                    format!("waves[{index}].start_after is nothing such as \"4 hours\"")
                })?;
            let percentage = (wave.get("fleet_percentage"))
                .and_then(|part| u32::try_from(part.as_integer()?).ok())
                .filter(|part| (1..=100).contains(part))
                .with_context(|| {
                    format!("waves[{index}].fleet_percentage is no number from 1 to 100")
                })?;
            if let Some((last_start, last)) = schedule.last()
                && (start < *last_start || percentage <= *last)
            {
                bail!("waves[{index}] does not come after the wave before it");
            }
            schedule.push((start, percentage));
        }
        match schedule.last() {
            Some((_, 100)) => Ok(Self(schedule)),
            _ => bail!("the last wave has to reach 100 % of the fleet"),
        }
    }

    /// The waves of a release that is published at `start`.
    pub fn waves(&self, start: Time) -> Result<Waves> {
        // A wave's hosts begin where those of the wave before it end.
        let mut first = 0;
        let mut starts = BTreeMap::new();
        for (after, percentage) in &self.0 {
            starts.insert(first, start.plus(after.as_secs()).to_string());
            first = SEEDS * percentage / 100;
        }
        Ok(starts.try_into()?)
    }
}

impl Default for Schedule {
    /// One host in a hundred after an hour, all of them within six days.
    fn default() -> Self {
        let waves = [
            (1, 1),
            (4, 5),
            (24, 15),
            (48, 40),
            (96, 60),
            (120, 90),
            (144, 100),
        ];
        Self(waves.map(|(hours, part)| (hours_long(hours), part)).into())
    }
}

fn hours_long(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

/// Reads `90 minutes`, `4 hours`, `1 day` or `2 weeks`.
pub fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_once(' ')?;
    let seconds = match unit.strip_suffix('s').unwrap_or(unit) {
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        _ => return None,
    };
    let count: u32 = count.parse().ok()?;
    Some(Duration::from_secs(u64::from(count) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_begins_where_the_one_before_it_ends() {
        let schedule = Schedule::parse(
            "[[waves]]\nstart_after = '1 hour'\nfleet_percentage = 50\n\
             [[waves]]\nstart_after = '2 days'\nfleet_percentage = 100\n",
        )
        .unwrap();
        let waves = schedule.waves(Time(0)).unwrap();
        assert_eq!(waves.turn(0), Some(Time(3_600)));
        assert_eq!(waves.turn(1_024), Some(Time(2 * 86_400)));
        assert_eq!(waves.turn(512), Some(Time((3_600 + 2 * 86_400) / 2)));
    }

    #[test]
    fn the_default_reaches_everybody() {
        let waves = Schedule::default().waves(Time(0)).unwrap();
        assert_eq!(waves.turn(0), Some(Time(3_600)));
        assert_eq!(waves.turn(2_047), Some(Time(144 * 3_600)));
    }

    #[test]
    fn faults_are_named() {
        let wave = |start: &str, part: &str| {
            format!("[[waves]]\nstart_after = {start}\nfleet_percentage = {part}\n")
        };
        for (text, says) in [
            ("x".to_string(), "no TOML"),
            (String::new(), "no [[waves]]"),
            (wave("'soon'", "100"), "waves[0].start_after"),
            (wave("3", "100"), "waves[0].start_after"),
            (wave("'1 hour'", "0"), "waves[0].fleet_percentage"),
            (wave("'1 hour'", "101"), "waves[0].fleet_percentage"),
            (wave("'1 hour'", "50"), "reach 100 %"),
            (
                wave("'2 hours'", "50") + &wave("'1 hour'", "100"),
                "waves[1]",
            ),
            (
                wave("'1 hour'", "50") + &wave("'2 hours'", "50"),
                "waves[1]",
            ),
        ] {
            let error = Schedule::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
