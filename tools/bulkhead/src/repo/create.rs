//! `bulkhead repo create`.

use super::KeyFolder;
use anyhow::{Context, Result};
use sysutil::time::Time;
use update_repository::{Keys, duration};

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
    let good_for = duration(&args.good_for).with_context(|| {
        format!(
            "--good-for {} is nothing such as \"52 weeks\"",
            args.good_for
        )
    })?;
    let keys = Keys::create(&args.keys.path()?, Time::now().plus(good_for.as_secs()))?;
    println!("{}", keys.root_path().display());
    Ok(())
}
