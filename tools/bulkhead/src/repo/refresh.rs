//! `bulkhead repo refresh`.

use super::Place;
use anyhow::Result;

/// Arguments of `repo refresh`.
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
}

/// Signs it anew.
pub fn run(args: Args) -> Result<()> {
    let repository = args.place.repository(&args.variant, &args.arch);
    repository.refresh(&args.place.keys.load()?)?;
    super::say("renewed", &repository);
    Ok(())
}
