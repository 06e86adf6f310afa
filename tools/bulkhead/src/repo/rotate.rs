//! `bulkhead repo rotate`.

use super::NewRoot;
use anyhow::Result;
use update_repository::{Holders, Keys, NewKey, Progress, Role};

/// Arguments of `repo rotate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    new: NewRoot,
    /// Replace the keys of the root, and not those of releases
    #[arg(long)]
    root: bool,
    /// A key that comes in the place of those that there are, as for `repo create`; repeat it
    /// for several. A new one if not given
    #[arg(long, value_name = "KEY")]
    key: Vec<NewKey>,
    /// How many of them have to sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u64,
}

/// Replaces the keys of releases, or those of the root.
pub fn run(args: Args) -> Result<()> {
    let folder = args.new.keys.path()?;
    let role = if args.root { Role::Root } else { Role::Release };
    let holders = Holders::new(args.key, args.threshold)?;
    let until = args.new.good_until()?;
    let made = args
        .new
        .keys
        .load()?
        .replace(role, &holders, until, args.new.draft)?;
    super::tell(&made, &Keys::draft_path(&folder));
    if matches!(made, Progress::Taken(_)) {
        eprintln!("now run `bulkhead repo refresh` for each variant, and publish");
    }
    Ok(())
}
