//! `bulkhead repo refresh`.

use super::Fleet;
use anyhow::Result;

/// Arguments of `repo refresh`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    fleet: Fleet,
}

/// Signs it anew.
pub fn run(args: Args) -> Result<()> {
    let (repository, keys) = args.fleet.open()?;
    repository.refresh(&keys)?;
    super::say("renewed", &repository);
    Ok(())
}
