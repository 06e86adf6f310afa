//! `bulkhead repo limit`.

use super::Fleet;
use anyhow::Result;

/// Arguments of `repo limit`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    fleet: Fleet,
    /// The newest version that hosts may run; those of newer ones go back
    #[arg(long)]
    max_version: String,
}

/// Recalls what is newer.
pub fn run(args: Args) -> Result<()> {
    let version = args
        .max_version
        .clone()
        .try_into()
        .map_err(anyhow::Error::msg)?;
    let (repository, keys) = args.fleet.open()?;
    repository.limit(&keys, &version)?;
    super::say(&format!("hosts go up to {version}"), &repository);
    Ok(())
}
