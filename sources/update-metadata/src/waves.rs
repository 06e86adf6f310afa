//! Waves: when the turn of each host comes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sysutil::time::Time;

/// Hosts have seeds below this.
pub const SEEDS: u32 = 2048;

/// The first seed of each wave, and when that wave starts. A wave ends when the next one
/// starts; its hosts come one after the other in between. The last has no end: all its
/// hosts come when it starts. Without any wave all hosts come at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<u32, String>", into = "BTreeMap<u32, String>")]
pub struct Waves(BTreeMap<u32, Time>);

/// Why waves are not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavesError {
    /// A start is no moment.
    #[error("wave {0}: {1:?} is no moment such as 2026-11-28T10:20:30Z")]
    Moment(u32, String),
    /// Hosts below the first wave would never have a turn.
    #[error("the waves start at seed {0}, and not at 0")]
    Start(u32),
    /// A wave belongs to no host.
    #[error("wave {0}: seeds end at 2047")]
    Beyond(u32),
    /// A later wave starts sooner.
    #[error("wave {0} starts before the one that precedes it")]
    Order(u32),
}

impl Waves {
    /// When the turn of the host with this seed comes; nothing means at once.
    pub fn turn(&self, seed: u32) -> Option<Time> {
        let (first, start) = self.0.range(..=seed).next_back()?;
        let Some((next, end)) = self.0.range(seed.saturating_add(1)..).next() else {
            return Some(*start);
        };
        // Of 64 bits: seconds up to the year 9999 times 2048 seeds fit.
        let length = end.0 - start.0;
        Some(start.plus(length * u64::from(seed - first) / u64::from(next - first)))
    }
}

impl TryFrom<BTreeMap<u32, String>> for Waves {
    type Error = WavesError;

    fn try_from(texts: BTreeMap<u32, String>) -> Result<Self, WavesError> {
        let mut waves = BTreeMap::new();
        let mut last: Option<Time> = None;
        for (seed, text) in texts {
            let start = Time::parse(&text).ok_or(WavesError::Moment(seed, text))?;
            match last {
                None if seed != 0 => return Err(WavesError::Start(seed)),
                Some(last) if start < last => return Err(WavesError::Order(seed)),
                _ if seed >= SEEDS => return Err(WavesError::Beyond(seed)),
                _ => {}
            }
            last = Some(start);
            waves.insert(seed, start);
        }
        Ok(Self(waves))
    }
}

impl From<Waves> for BTreeMap<u32, String> {
    fn from(waves: Waves) -> Self {
        let text = |(seed, start): (u32, Time)| (seed, start.to_string());
        waves.0.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(starts: &[(u32, u64)]) -> Result<Waves, WavesError> {
        let text = |&(seed, start): &(u32, u64)| (seed, Time(start).to_string());
        starts
            .iter()
            .map(text)
            .collect::<BTreeMap<_, _>>()
            .try_into()
    }

    #[test]
    fn turns() {
        let waves = waves(&[(0, 1_000), (100, 2_000), (200, 3_000)]).unwrap();
        for (seed, turn) in [
            (0, 1_000),
            (1, 1_010),
            (99, 1_990),
            (100, 2_000),
            (150, 2_500),
            (2_047, 3_000),
            (u32::MAX, 3_000),
        ] {
            assert_eq!(waves.turn(seed), Some(Time(turn)), "{seed}");
        }
        assert_eq!(Waves::default().turn(5), None);
    }

    #[test]
    fn faults() {
        assert_eq!(waves(&[(1, 0)]), Err(WavesError::Start(1)));
        assert_eq!(waves(&[(0, 0), (2_048, 1)]), Err(WavesError::Beyond(2_048)));
        assert_eq!(waves(&[(0, 2), (5, 1)]), Err(WavesError::Order(5)));
    }
}
