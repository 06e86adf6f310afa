//! Runs scenarios one after the other and adds up what they cost.

use crate::stage::{Setup, Stage};
use crate::{Scenario, Tier};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

/// How a scenario ended.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub name: &'static str,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Where its console logs and disks were kept, if it failed.
    pub kept: Option<PathBuf>,
    /// What it measured.
    pub notes: Vec<String>,
    /// Processor seconds of everything it ran.
    pub cpu: f64,
    /// Those among them that were spent on a machine which later scenarios start
    /// from, too. They are not held against this one.
    pub shared: f64,
    /// What it may take.
    pub budget: f64,
    /// Seconds on the clock.
    pub wall: f64,
}

/// How several scenarios ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Each scenario's outcome.
    pub outcomes: Vec<Outcome>,
    /// Tiers whose scenarios took longer than they may together.
    pub over_limit: Vec<String>,
}

impl Summary {
    /// Number of scenarios that did what they should.
    pub fn passed(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failure.is_none())
            .count()
    }

    /// Number of scenarios that did not.
    pub fn failed(&self) -> usize {
        self.outcomes.len() - self.passed()
    }

    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.failed() == 0 && self.over_limit.is_empty()
    }
}

/// Runs `scenarios`, telling `started` and `ended` of each. `go_on` is asked before
/// each; its error ends the run, as after Ctrl-C.
pub fn run(
    setup: &Setup,
    scenarios: &[&'static Scenario],
    mut started: impl FnMut(&Scenario),
    mut ended: impl FnMut(&Outcome),
    mut go_on: impl FnMut() -> Result<()>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    for scenario in scenarios {
        go_on()?;
        started(scenario);
        let outcome = run_one(setup, scenario)?;
        // A scenario that failed because the run was interrupted says nothing.
        go_on()?;
        ended(&outcome);
        summary.outcomes.push(outcome);
    }
    summary.over_limit = over_limit(scenarios, &summary.outcomes);
    Ok(summary)
}

fn run_one(setup: &Setup, scenario: &Scenario) -> Result<Outcome> {
    let folder = setup.folder.join(scenario.name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (cpu, clock) = (setup.emulator.spent(), Instant::now());
    let mut stage = Stage::new(setup, folder.clone());
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut stage)));
    let mut outcome = Outcome {
        name: scenario.name,
        failure: match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("the scenario itself broke; its message is above".to_string()),
        },
        kept: None,
        notes: stage.take_notes(),
        cpu: setup.emulator.spent() - cpu,
        shared: stage.shared(),
        budget: scenario.budget,
        wall: clock.elapsed().as_secs_f64(),
    };
    let own = outcome.cpu - outcome.shared;
    if outcome.failure.is_none() && own > outcome.budget {
        outcome.failure = Some(format!(
            "it took {own:.0} CPU seconds, {:.0} more than its budget",
            own - outcome.budget
        ));
    }
    if outcome.failure.is_some() {
        outcome.kept = Some(folder);
    } else {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(outcome)
}

fn over_limit(scenarios: &[&'static Scenario], outcomes: &[Outcome]) -> Vec<String> {
    [Tier::One, Tier::Two]
        .into_iter()
        .filter_map(|tier| {
            let sum: f64 = scenarios
                .iter()
                .zip(outcomes)
                .filter(|(scenario, _)| scenario.tier <= tier)
                .map(|(_, outcome)| outcome.cpu)
                .sum();
            (sum > tier.limit()).then(|| {
                format!(
                    "tier {} took {sum:.0} CPU seconds, its limit is {:.0}",
                    tier.number(),
                    tier.limit()
                )
            })
        })
        .collect()
}
