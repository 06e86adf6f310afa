//! Which unit waited for which.

use super::Step;
use super::properties::Block;

/// A unit with its moments.
#[derive(Debug)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The units that it is ordered behind.
    after: Vec<String>,
    /// When it began to start.
    started: u64,
    /// When it was up, or over, for one that only runs once.
    finished: Option<u64>,
}

impl Unit {
    /// A unit that began to start; others play no part.
    pub fn from_block(block: &Block) -> Option<Unit> {
        let started = block.time("InactiveExitTimestampMonotonic")?;
        let moment = |key| block.time(key).filter(|at| *at >= started);
        let finished = moment("ActiveEnterTimestampMonotonic")
            .or_else(|| moment("InactiveEnterTimestampMonotonic"));
        let name = block.get("Id").to_owned();
        let after = block
            .get("After")
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        Some(Unit {
            name,
            after,
            started,
            finished,
        })
    }

    /// When it was up.
    pub fn finished(&self) -> Option<u64> {
        self.finished
    }

    fn step(&self) -> Step {
        Step {
            unit: self.name.clone(),
            started_us: self.started,
            duration_us: self.finished.map_or(0, |at| at - self.started),
        }
    }
}

/// The chain that ends with the unit `last`: before each unit the one, of
/// those it is ordered behind, that was up latest before it started.
pub fn critical(units: &[Unit], last: &str) -> Vec<Step> {
    let find = |name: &str| units.iter().find(|unit| unit.name == name);
    let mut chain: Vec<&Unit> = Vec::new();
    let mut next = find(last);
    while let Some(unit) = next {
        chain.push(unit);
        next = unit
            .after
            .iter()
            .filter_map(|name| find(name))
            // A unit restarted since then was up after what waited for it.
            .filter(|before| before.finished.is_some_and(|at| at <= unit.started))
            // Equal moments must not lead in a circle.
            .filter(|before| !chain.iter().any(|seen| seen.name == before.name))
            .max_by_key(|before| (before.finished, before.started));
    }
    chain.iter().rev().map(|unit| unit.step()).collect()
}

/// The units that took longest to start, longest first.
pub fn slowest(units: &[Unit], count: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = units
        .iter()
        .map(Unit::step)
        .filter(|step| step.duration_us > 0)
        .collect();
    steps.sort_by(|a, b| {
        b.duration_us
            .cmp(&a.duration_us)
            .then_with(|| a.unit.cmp(&b.unit))
    });
    steps.truncate(count);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, after: &[&str], started: u64, finished: u64) -> Unit {
        Unit {
            name: name.to_owned(),
            after: after.iter().map(|name| name.to_string()).collect(),
            started,
            finished: Some(finished),
        }
    }

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.unit.as_str()).collect()
    }

    #[test]
    fn the_chain_follows_what_was_up_last() {
        let units = [
            unit("end", &["slow", "quick", "unknown"], 50, 60),
            unit("slow", &["start"], 10, 50),
            unit("quick", &["start"], 10, 20),
            unit("start", &[], 1, 10),
            // Up only after the end had started: not what it waited for.
            unit("late", &[], 40, 55),
        ];
        assert_eq!(names(&critical(&units, "end")), ["start", "slow", "end"]);
        assert_eq!(names(&critical(&units, "missing")), [""; 0]);
    }

    #[test]
    fn circles_end() {
        let units = [unit("a", &["b"], 5, 5), unit("b", &["a"], 5, 5)];
        assert_eq!(names(&critical(&units, "a")), ["b", "a"]);
    }

    #[test]
    fn slowest_first_and_no_more_than_asked_for() {
        let units = [
            unit("b", &[], 0, 5),
            unit("a", &[], 0, 5),
            unit("c", &[], 0, 9),
            unit("target", &[], 5, 5),
        ];
        assert_eq!(names(&slowest(&units, 2)), ["c", "a"]);
        assert_eq!(names(&slowest(&units, 9)), ["c", "a", "b"]);
    }
}
