//! `bulkhead lock`: which archives the build takes in.

use crate::output;
use anyhow::{Result, bail};
use buildsys::fetch::Fetcher;
use buildsys::lock::{self, Change, Lock, Sources};
use buildsys::progress::Progress;
use buildsys::project::Project;
use serde::Serialize;

/// Lock what the archives offer now, or one package of it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only check that the lock has all that is asked for; needs no network.
    #[arg(long)]
    check: bool,
    /// Print what changed as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Lock one source or binary package anew, with what its new version needs.
    Update {
        /// Name of the package.
        name: String,
    },
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    archives: usize,
    bytes: u64,
    changes: &'a [Change],
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    if args.check {
        if args.action.is_some() {
            bail!("--check changes nothing, so it cannot be combined with update");
        }
        let lock = Lock::load(&project)?;
        lock::check(&project, &lock)?;
        return report(&lock, &[], args.json, "has all that is asked for");
    }
    let progress = Progress::new();
    let sources = Sources::debian(Fetcher::new(&project, &progress)?)?;
    let (lock, changes) = match &args.action {
        None => lock::lock_all(&project, &sources, &progress)?,
        Some(Action::Update { name }) => {
            if name.contains('/') {
                bail!("{name:?} is not the name of a package; suites are named in Bulkhead.toml");
            }
            lock::lock_one(&project, &sources, name, &progress)?
        }
    };
    let outcome = match changes.len() {
        0 => "is up to date".to_string(),
        1 => "is written, 1 change".to_string(),
        several => format!("is written, {several} changes"),
    };
    report(&lock, &changes, args.json, &outcome)
}

fn report(lock: &Lock, changes: &[Change], json: bool, outcome: &str) -> Result<()> {
    let archives = lock.archives();
    let bytes = archives.iter().map(|archive| archive.size).sum();
    if json {
        let report = Report {
            archives: archives.len(),
            bytes,
            changes,
        };
        output::print_json(&report)?;
    } else {
        println!(
            "{} {outcome}: {} archives, {} MB",
            lock::FILE_NAME,
            archives.len(),
            bytes / 1_000_000
        );
    }
    Ok(())
}
