//! `bulkhead repo simulate`.

use super::schedule;
use anyhow::{Context, Result};
use std::path::PathBuf;
use sysutil::time::Time;
use update_repository::duration;
use update_repository::simulate::{Rollout, written};

/// Arguments of `repo simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// File with the schedule of waves; the one of releases without any if not given
    #[arg(long)]
    waves: Option<PathBuf>,
    /// How many hosts the fleet has
    #[arg(long, default_value_t = 100_000)]
    hosts: u32,
    /// How often a host looks for updates
    #[arg(long, default_value = "1 hour")]
    interval: String,
    /// Say how many hosts have the release when it is recalled after so long, as in "2 days"
    #[arg(long)]
    recall_after: Option<String>,
}

/// Shows when how much of the fleet has a release.
pub fn run(args: Args) -> Result<()> {
    let long = |name: &str, text: &str| {
        duration(text).with_context(|| format!("{name} {text} is nothing such as \"2 days\""))
    };
    let start = Time::now();
    let waves = schedule(args.waves.as_deref())?.waves(start)?;
    let interval = long("--interval", &args.interval)?;
    let recall = (args.recall_after.as_deref())
        .map(|text| long("--recall-after", text))
        .transpose()?;
    let rollout = Rollout::of(&waves, start, args.hosts, interval);
    println!("{}", rollout.plot(64, 16));
    println!("part of the fleet   after");
    let end = rollout.end();
    for part in [1_u64, 5, 10, 25, 50, 75, 90, 99, 100] {
        let hosts = (rollout.hosts() as u64 * part).div_ceil(100);
        println!(
            "{part:>15} %   {}",
            written(first(end, |at| rollout.reached(at) as u64 >= hosts))
        );
    }
    if let Some(recall) = recall {
        let reached = rollout.reached(recall.as_secs());
        println!(
            "recalled after {}: {reached} of {} hosts have it and go back",
            written(recall.as_secs()),
            rollout.hosts()
        );
    }
    Ok(())
}

/// The first second up to `end` of which something is true that then stays true.
fn first(end: u64, is_true: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_true(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
