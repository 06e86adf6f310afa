//! `bulkhead repo limit`.

use super::Place;
use anyhow::Result;

/// Arguments of `repo limit`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// The variant
    #[arg(long)]
    variant: String,
    /// Processor architecture
    #[arg(long, default_value = "x86_64")]
    arch: String,
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
    let repository = args.place.repository(&args.variant, &args.arch);
    repository.limit(&args.place.keys.load()?, &version)?;
    super::say(&format!("hosts go up to {version}"), &repository);
    Ok(())
}
