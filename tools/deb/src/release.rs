//! `Release` files: what a suite consists of, as its `InRelease` signs it.

use crate::Error;
use crate::control::stanzas;
use crate::digest::Sha256Digest;
use crate::index::is_plain_path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A suite's index of indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Names that the suite goes by.
    pub suite: String,
    /// The release's name, which stays when a suite moves on to the next one.
    pub codename: String,
    /// When the suite was published.
    pub date: Timestamp,
    /// When the index stops being current, if it does.
    pub valid_until: Option<Timestamp>,
    /// Architectures that have indexes.
    pub architectures: Vec<String>,
    /// Whether indexes are also found by their digest, which survives an
    /// update of the mirror in the middle of a download.
    pub by_hash: bool,
    /// Whether packages for all architectures are listed in an index of their
    /// own only.
    pub separate_all: bool,
    /// Path of each index → its size and digest.
    pub files: BTreeMap<String, (u64, Sha256Digest)>,
}

impl Release {
    /// Reads the text of a `Release` file, or what an `InRelease` file signs.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let found = stanzas(text)?;
        let [stanza] = found.as_slice() else {
            return Err(malformed(format!(
                "it has {} stanzas instead of one",
                found.len()
            )));
        };
        let words = |field| stanza.get(field).unwrap_or_default().split_whitespace();
        let date = |field: &str, text: &str| {
            Timestamp::parse_mail(text)
                .ok_or_else(|| malformed(format!("{field} is {text:?}, which is no date in UTC")))
        };
        let mut files = BTreeMap::new();
        for line in stanza
            .require("SHA256")?
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let (path, entry) = parse_file(line)
                .ok_or_else(|| malformed(format!("{:?} is not a line of SHA256", line.trim())))?;
            files.insert(path, entry);
        }
        let has_all = words("Architectures").any(|architecture| architecture == "all");
        let all_is_included =
            words("No-Support-for-Architecture-all").any(|what| what == "Packages");
        Ok(Self {
            suite: stanza.get("Suite").unwrap_or_default().to_string(),
            codename: stanza.require("Codename")?.to_string(),
            date: date("Date", stanza.require("Date")?)?,
            valid_until: stanza
                .get("Valid-Until")
                .map(|text| date("Valid-Until", text))
                .transpose()?,
            architectures: words("Architectures").map(str::to_string).collect(),
            by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            separate_all: has_all && !all_is_included,
            files,
        })
    }
}

fn parse_file(line: &str) -> Option<(String, (u64, Sha256Digest))> {
    let mut words = line.split_whitespace();
    let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
    (words.next().is_none() && is_plain_path(path))
        .then_some((path.to_string(), (size.parse().ok()?, digest.parse().ok()?)))
}

/// A point in time in UTC, to the second; written as `2026-09-12T07:55:41Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Timestamp {
    /// From seconds since 1970.
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// The time that this machine's clock shows.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        }))
    }

    /// Reads the form of mail headers, `Sat, 12 Sep 2026 07:55:41 UTC`.
    pub fn parse_mail(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [weekday, day, month, year, time, zone] = words[..] else {
            return None;
        };
        if !weekday.ends_with(',') || !matches!(zone, "UTC" | "GMT" | "Z" | "+0000") {
            return None;
        }
        let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
        let clock: Vec<&str> = time.split(':').collect();
        let [hour, minute, second] = clock[..] else {
            return None;
        };
        Self::from_parts(
            number(year)?,
            month,
            number(day)?,
            [number(hour)?, number(minute)?, number(second)?],
        )
    }

    /// The form that dated archives have in their addresses,
    /// `20260912T075541Z`.
    pub fn compact(self) -> String {
        self.to_string().replace(['-', ':'], "")
    }

    fn from_parts(
        year: i64,
        month: i64,
        day: i64,
        [hour, minute, second]: [i64; 3],
    ) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let valid = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(month, leap)).contains(&day)
            && (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..60).contains(&second);
        valid.then(|| {
            let days = days_before_year(year) - days_before_year(1970)
                + (1..month)
                    .map(|earlier| days_in(earlier, leap))
                    .sum::<i64>()
                + day
                - 1;
            Self(((days * 24 + hour) * 60 + minute) * 60 + second)
        })
    }

    fn parts(self) -> (i64, i64, i64, [i64; 3]) {
        let (mut days, seconds) = (self.0.div_euclid(86400), self.0.rem_euclid(86400));
        days += days_before_year(1970);
        // A guess that is at most one year off, then corrected.
        let mut year = days * 400 / 146_097 + 1;
        while days_before_year(year) > days {
            year -= 1;
        }
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let leap = days_before_year(year + 1) - days_before_year(year) == 366;
        let mut day = days - days_before_year(year);
        let mut month = 1;
        while day >= days_in(month, leap) {
            day -= days_in(month, leap);
            month += 1;
        }
        (
            year,
            month,
            day + 1,
            [seconds / 3600, seconds / 60 % 60, seconds % 60],
        )
    }
}

/// Days of the proleptic Gregorian calendar before the first of January.
fn days_before_year(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400)
}

/// Days that `month` has.
fn days_in(month: i64, leap: bool) -> i64 {
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn number(text: &str) -> Option<i64> {
    (text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let parse = || {
            let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
            let (date, time): (Vec<&str>, Vec<&str>) =
                (date.split('-').collect(), time.split(':').collect());
            let ([year, month, day], [hour, minute, second]) = (&date[..], &time[..]) else {
                return None;
            };
            Self::from_parts(
                number(year)?,
                number(month)?,
                number(day)?,
                [number(hour)?, number(minute)?, number(second)?],
            )
        };
        parse().ok_or_else(|| InvalidTimestamp(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, [hour, minute, second]) = self.parts();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: write it like 2026-09-12T07:55:41Z")]
pub struct InvalidTimestamp(String);

fn malformed(why: String) -> Error {
    Error::Malformed {
        what: "release file",
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: stable-updates\nCodename: trixie-updates\n\
        Date: Sat, 21 Nov 2026 02:10:46 UTC\nValid-Until: Sat, 28 Nov 2026 02:10:46 UTC\n\
        Acquire-By-Hash: yes\nNo-Support-for-Architecture-all: Packages\n\
        Architectures: all amd64 arm64\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/a\n";

    #[test]
    fn release_is_read() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.codename, "trixie-updates");
        assert_eq!(release.date.to_string(), "2026-11-21T02:10:46Z");
        assert_eq!(
            release.valid_until.unwrap().unix() - release.date.unix(),
            7 * 86400
        );
        assert!(release.by_hash && !release.separate_all);
        assert_eq!(release.files["main/a"], (0, Sha256Digest::of(b"")));
        let without = TEXT.replace("No-Support-for-Architecture-all: Packages\n", "");
        assert!(Release::parse(&without).unwrap().separate_all);
    }

    #[test]
    fn malformed_releases_are_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(TEXT.contains(from));
            let error = Release::parse(&TEXT.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("Date: Sat, 21 Nov", "Date: Sat, 31 Nov", "no date in UTC");
        check(
            "Valid-Until: Sat, 28 Nov 2026 02:10:46 UTC",
            "Valid-Until: later",
            "no date in UTC",
        );
        check("        0 main/a", " 0", "not a line of SHA256");
        check("main/a", "../a", "not a line of SHA256");
        check("SHA256", "SHA1", "SHA256 is missing");
        check("Suite: stable-updates\n", "\n", "2 stanzas");
    }

    #[test]
    fn times() {
        let check = |mail: &str, expected: Option<&str>| {
            let found = Timestamp::parse_mail(mail);
            assert_eq!(
                found.map(|time| time.to_string()).as_deref(),
                expected,
                "{mail}"
            );
            if let Some(time) = found {
                assert_eq!(time.to_string().parse(), Ok(time));
            }
        };
        check(
            "Sat, 12 Sep 2026 07:55:41 UTC",
            Some("2026-09-12T07:55:41Z"),
        );
        check(
            "Thu, 01 Jan 1970 00:00:00 +0000",
            Some("1970-01-01T00:00:00Z"),
        );
        check(
            "Thu, 29 Feb 2024 23:59:59 GMT",
            Some("2024-02-29T23:59:59Z"),
        );
        check(
            "Sun, 31 Dec 2000 00:00:00 UTC",
            Some("2000-12-31T00:00:00Z"),
        );
        check("Wed, 29 Feb 2023 00:00:00 UTC", None);
        check("Sat, 12 Sep 2026 07:55:41 CEST", None);
        check("Sat, 12 Sep 2026 24:00:00 UTC", None);
        check("12 Sep 2026 07:55:41 UTC", None);
        assert_eq!(
            Timestamp::from_unix(1_789_199_741).to_string(),
            "2026-09-12T07:55:41Z"
        );
        assert_eq!(
            Timestamp::from_unix(1_789_199_741).compact(),
            "20260912T075541Z"
        );
        assert!("2026-09-12 07:55:41".parse::<Timestamp>().is_err());
    }
}
