//! `bulkhead keys`.

use anyhow::{Context, Result};
use buildsys::keys::{Keys, Role};
use buildsys::project::Project;
use std::path::PathBuf;

/// Arguments of `keys`.
#[derive(clap::Args)]
pub struct Args {
    /// Make new keys; those that exist are never overwritten.
    #[arg(long)]
    create: bool,
    /// Folder of the keys, when it is not keys in the user's data folder.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows the keys.
pub fn run(args: Args) -> Result<()> {
    let folder = match args.folder {
        Some(folder) => folder,
        None => Project::find()?.keys_dir(),
    };
    if args.create {
        Keys::create(&folder)?;
    }
    let keys =
        Keys::load(&folder).with_context(|| format!("no usable keys in {}", folder.display()))?;
    let prints: Vec<(Role, String)> = Role::ALL
        .into_iter()
        .map(|role| Ok((role, keys.fingerprint_of(role)?)))
        .collect::<Result<_>>()?;
    if args.json {
        let prints: serde_json::Map<String, serde_json::Value> = prints
            .into_iter()
            .map(|(role, print)| (role.name().into(), print.into()))
            .collect();
        println!(
            "{}",
            serde_json::json!({ "folder": keys.folder(), "sha256": prints })
        );
    } else {
        println!("{}", keys.folder().display());
        for (role, print) in prints {
            println!("{:4} {print}", role.name());
        }
    }
    Ok(())
}
