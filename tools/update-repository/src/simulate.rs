//! How a schedule of waves reaches a fleet.

use std::fmt::Write;
use std::time::Duration;
use sysutil::time::Time;
use update_metadata::{SEEDS, Waves};

/// When each host of a fleet takes a release, in seconds after it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout(Vec<u64>);

impl Rollout {
    /// A fleet of `hosts`, which look for updates once in `interval`, each at a moment of its
    /// own. Seeds and moments are spread as chance would, and the same in every run.
    pub fn of(waves: &Waves, start: Time, hosts: u32, interval: Duration) -> Self {
        let interval = interval.as_secs().max(1);
        let taken = (0..u64::from(hosts)).map(|host| {
            let drawn = spread(host);
            let seed = (drawn % u64::from(SEEDS)) as u32;
            let turn = waves
                .turn(seed)
                .map_or(0, |turn| turn.0.saturating_sub(start.0));
            // The first look that is not before the turn.
            let phase = (drawn >> 16) % interval;
            phase + (turn.saturating_sub(phase)).next_multiple_of(interval)
        });
        let mut taken: Vec<u64> = taken.collect();
        taken.sort_unstable();
        Self(taken)
    }

    /// How many hosts have the release after so many seconds.
    pub fn reached(&self, seconds: u64) -> usize {
        self.0.partition_point(|taken| *taken <= seconds)
    }

    /// When the last host has it.
    pub fn end(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.0.len()
    }

    /// A plot of the part of the fleet over time, for a terminal.
    pub fn plot(&self, width: usize, height: usize) -> String {
        let width = width.max(2);
        let part = |column: usize| {
            let moment = self.end() * column as u64 / (width as u64 - 1);
            self.reached(moment) as f64 / self.hosts().max(1) as f64
        };
        let parts: Vec<f64> = (0..width).map(part).collect();
        let mut plot = String::new();
        for row in (1..=height).rev() {
            let level = |row: usize| row as f64 / height as f64;
            let label = match row == height || row * 2 == height {
                true => format!("{:3.0} %", level(row) * 100.0),
                false => String::new(),
            };
            let line = (parts.iter()).map(|part| match *part {
                part if part >= level(row) => '█',
                part if part >= level(row) - 0.5 / height as f64 => '▄',
                _ => ' ',
            });
            let line: String = line.collect();
            // Writing to a string cannot fail.
            let _ = writeln!(plot, "{label:>5} │{}", line.trim_end());
        }
        let _ = writeln!(plot, "{:>5} └{}", "0 %", "─".repeat(width));
        let end = written(self.end());
        let _ = writeln!(plot, "{:>7} {end:>1$}", 0, width - 1);
        plot
    }
}

/// Seconds as people say them.
pub fn written(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{} min", seconds.div_ceil(60)),
        3_600..172_800 => format!("{:.1} h", seconds as f64 / 3_600.0),
        _ => format!("{:.1} days", seconds as f64 / 86_400.0),
    }
}

/// A number that looks drawn: the finaliser of SplitMix64.
fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn rollout(schedule: &str, interval: Duration) -> Rollout {
        let start = Time(1_000_000);
        let waves = Schedule::parse(schedule).unwrap().waves(start).unwrap();
        Rollout::of(&waves, start, 100_000, interval)
    }

    #[test]
    fn a_fleet_follows_its_schedule() {
        let rollout = rollout(
            "[[waves]]\nstart_after = '1 hour'\nfleet_percentage = 10\n\
             [[waves]]\nstart_after = '11 hours'\nfleet_percentage = 100\n",
            Duration::from_secs(1),
        );
        assert_eq!(rollout.reached(3_599), 0);
        // Half of the first wave after half of its time, and all the others when theirs comes.
        for (hours, part) in [(6, 5), (10, 9), (11, 100)] {
            let reached = rollout.reached(hours * 3_600) as f64 / 1_000.0;
            assert!(
                (reached - f64::from(part)).abs() < 0.5,
                "{hours} h: {reached} %"
            );
        }
        assert_eq!(rollout.end(), 11 * 3_600);
    }

    #[test]
    fn hosts_take_it_at_their_next_look() {
        let schedule = "[[waves]]\nstart_after = '1 hour'\nfleet_percentage = 100\n";
        let rollout = rollout(schedule, HOUR);
        assert_eq!(rollout.reached(3_599), 0);
        let half = rollout.reached(3_600 + 1_800) as f64 / 1_000.0;
        assert!((half - 50.0).abs() < 1.0, "{half} %");
        assert_eq!(rollout.reached(2 * 3_600), 100_000);
    }

    #[test]
    fn without_waves_everybody_comes_within_an_interval() {
        let rollout = Rollout::of(&Waves::default(), Time(5), 1_000, HOUR);
        assert_eq!((rollout.reached(3_600), rollout.hosts()), (1_000, 1_000));
    }

    #[test]
    fn a_plot_rises_to_the_right() {
        let rollout = Rollout(vec![0, 10, 20, 30]);
        let plot =
            "100 % │   █\n      │  ██\n 50 % │ ███\n      │████\n  0 % └────\n      0 1 min\n";
        assert_eq!(rollout.plot(4, 4), plot);
    }
}
