//! The boot report as text.

use std::fmt;

use super::{BootReport, Step};

/// Characters of the longest bar.
const BAR: u64 = 32;

impl fmt::Display for BootReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.complete {
            "complete after"
        } else {
            "not complete; so far"
        };
        writeln!(f, "Boot {state} {} s", tenths(self.total_us))?;

        writeln!(f)?;
        let longest = self
            .phases
            .iter()
            .filter_map(|phase| phase.duration_us)
            .max()
            .unwrap_or(0);
        for phase in &self.phases {
            match phase.duration_us {
                Some(duration) => {
                    let bar = "#".repeat(bar(duration, longest));
                    writeln!(f, "{:<16} {:>7} s  {bar}", phase.name, seconds(duration))?;
                }
                None => writeln!(f, "{:<16}   not reported", phase.name)?,
            }
        }
        if !self.marks.is_empty() {
            writeln!(f, "\nMarks")?;
            for mark in &self.marks {
                writeln!(f, "{:>8} s  {}", seconds(mark.at_us), mark.text)?;
            }
        }
        if !self.critical_path.is_empty() {
            writeln!(f, "\nCritical path: what the end waited for")?;
            for Step {
                unit,
                started_us,
                duration_us,
            } in &self.critical_path
            {
                let duration = match duration_us {
                    0 => " ".repeat(12),
                    duration => format!("+{:>7} s  ", seconds(*duration)),
                };
                let line = format!("{:>8} s  {duration:<12}{unit}", seconds(*started_us));
                writeln!(f, "{line}")?;
            }
        }
        if !self.slowest.is_empty() {
            writeln!(f, "\nSlowest to start")?;
            for step in &self.slowest {
                writeln!(f, "{:>8} s  {}", seconds(step.duration_us), step.unit)?;
            }
        }
        Ok(())
    }
}

/// A bar in proportion to the longest; anything at all gets one character.
fn bar(duration: u64, longest: u64) -> usize {
    let length = match longest {
        0 => 0,
        longest => (duration * BAR).div_ceil(longest),
    };
    length as usize
}

fn seconds(us: u64) -> String {
    format!("{}.{:03}", us / 1_000_000, us / 1000 % 1000)
}

fn tenths(us: u64) -> String {
    format!("{}.{}", us / 1_000_000, us / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bars() {
        assert_eq!(seconds(0), "0.000");
        assert_eq!(seconds(12_034_567), "12.034");
        assert_eq!(tenths(12_934_567), "12.9");
        for (duration, longest, expected) in [(0, 0, 0), (0, 9, 0), (1, 1000, 1), (9, 9, 32)] {
            assert_eq!(bar(duration, longest), expected);
        }
    }
}
