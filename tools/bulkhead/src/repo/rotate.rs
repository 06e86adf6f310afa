//! `bulkhead repo rotate`.

use super::{KeyFolder, good_until};
use anyhow::Result;

/// Arguments of `repo rotate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    keys: KeyFolder,
    /// For how long hosts may start from the new root.json
    #[arg(long, default_value = "520 weeks")]
    good_for: String,
}

/// Replaces the key of releases.
pub fn run(args: Args) -> Result<()> {
    let keys = args.keys.load()?.rotate(good_until(&args.good_for)?)?;
    println!("{}", keys.root_path().display());
    eprintln!("now run `bulkhead repo refresh` for each variant, and publish");
    Ok(())
}
