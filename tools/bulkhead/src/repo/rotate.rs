//! `bulkhead repo rotate`.

use super::NewRoot;
use anyhow::Result;

/// Arguments of `repo rotate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    new: NewRoot,
}

/// Replaces the key of releases.
pub fn run(args: Args) -> Result<()> {
    let keys = args.new.keys.load()?.rotate(args.new.good_until()?)?;
    println!("{}", keys.root_path().display());
    eprintln!("now run `bulkhead repo refresh` for each variant, and publish");
    Ok(())
}
