//! `bulkhead repo key`.

use anyhow::Result;
use update_repository::public_key;

/// Arguments of `repo key`.
#[derive(clap::Args)]
pub struct Args {
    /// The key: a file, or where it is
    key: String,
    /// Draw the key first, into that file
    #[arg(long)]
    new: bool,
}

/// Shows the public half.
pub fn run(args: &Args) -> Result<()> {
    println!("{}", public_key(&args.key, args.new)?);
    Ok(())
}
