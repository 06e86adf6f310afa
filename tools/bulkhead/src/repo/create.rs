//! `bulkhead repo create`.

use super::{KeyFolder, good_until};
use anyhow::Result;
use update_repository::Keys;

/// Arguments of `repo create`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    keys: KeyFolder,
    /// For how long hosts may start from this root.json; its key has to sign the next one
    #[arg(long, default_value = "520 weeks")]
    good_for: String,
}

/// Makes keys and `root.json`.
pub fn run(args: Args) -> Result<()> {
    let keys = Keys::create(&args.keys.path()?, good_until(&args.good_for)?)?;
    println!("{}", keys.root_path().display());
    Ok(())
}
