//! `bulkhead repo create`.

use super::NewRoot;
use anyhow::Result;
use update_repository::{Holders, Keys, NewKey};

/// Arguments of `repo create`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    new: NewRoot,
    /// A key of the root: "new", a file with one or with its public half (see `repo key`), or
    /// where one is, as in aws-kms://[PROFILE]/KEY, aws-ssm://[PROFILE]/PARAMETER or
    /// file:///PATH; repeat it for several. A new one if not given
    #[arg(long, value_name = "KEY")]
    root_key: Vec<NewKey>,
    /// How many keys of the root have to sign a root.json
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: u64,
    /// A key of releases, as for the root
    #[arg(long, value_name = "KEY")]
    release_key: Vec<NewKey>,
    /// How many keys of releases have to sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    release_threshold: u64,
}

/// Makes keys and `root.json`.
pub fn run(args: Args) -> Result<()> {
    let root = Holders::new(args.root_key, args.root_threshold)?;
    let release = Holders::new(args.release_key, args.release_threshold)?;
    let folder = args.new.keys.path()?;
    let until = args.new.good_until()?;
    let made = Keys::make(&folder, (&root, &release), until, args.new.draft)?;
    super::tell(&made, &Keys::draft_path(&folder));
    Ok(())
}
