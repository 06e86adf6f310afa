//! Seconds since 1970 as dates of UTC: as RFC 3339 writes them, and without marks.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// What the clock says.
    pub fn now() -> Self {
        // A clock before 1970 is one of 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| since.as_secs()))
    }

    /// This many seconds later.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0 + seconds)
    }

    /// As in signatures: `20261128T102030Z`.
    pub fn compact(self) -> String {
        let (year, month, day, hour, minute, second) = self.parts();
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// Reads `2026-11-28T10:20:30Z` or `20261128T102030Z`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let number = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
        if !(1970..=9999).contains(&year) {
            return None;
        }
        let time =
            Self(days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second);
        // What is no date, or is written otherwise, does not come back as it was.
        [time.compact(), time.to_string()]
            .contains(&text.to_string())
            .then_some(time)
    }

    fn parts(self) -> (u64, u64, u64, u64, u64, u64) {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March, in cycles of 400 of them.
        let shifted = days + 719_468;
        let (cycle, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let of_month = day - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = cycle * 400 + year + carry;
        let of_day = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        (year, month, of_month, of_day.0, of_day.1, of_day.2)
    }
}

/// Days from 1970 to a date.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day;
    (365 * year + year / 4 - year / 100 + year / 400 + of_year).saturating_sub(719_469)
}

impl fmt::Display for Time {
    /// As in documents: `2026-11-28T10:20:30Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.parts();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_369_353_600, "2013-05-24T00:00:00Z"),
            (1_577_836_800, "2020-01-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_796_998_830, "2026-12-11T14:20:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Time(seconds).to_string(), text);
            let compact = text.replace(['-', ':'], "");
            assert_eq!(Time(seconds).compact(), compact);
            for text in [text, &compact] {
                assert_eq!(Time::parse(text), Some(Time(seconds)), "{text}");
            }
        }
        for bad in [
            "",
            "2026-11-28",
            "2026-11-28T10:20:30",
            "2026-11-28T10:20:30+01:00",
            "2026-02-29T10:20:30Z",
            "2026-00-01T10:20:30Z",
            "2026-13-01T10:20:30Z",
            "1969-12-31T23:59:59Z",
            "2026-11-28T10:20:60Z",
            "20261128102030",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }
}
