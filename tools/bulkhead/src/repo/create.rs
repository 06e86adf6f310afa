//! `bulkhead repo create`.

use super::NewRoot;
use anyhow::Result;
use update_repository::Keys;

/// Arguments of `repo create`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    new: NewRoot,
}

/// Makes keys and `root.json`.
pub fn run(args: Args) -> Result<()> {
    let keys = Keys::create(&args.new.keys.path()?, args.new.good_until()?)?;
    println!("{}", keys.root_path().display());
    Ok(())
}
