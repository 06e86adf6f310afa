//! `bulkhead repo validate`.

use super::KeyFolder;
use anyhow::{Context, Result};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use test_vm::files::{Manner, serve};
use update_repository::validate;

/// Arguments of `repo validate`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the repository, which is looked at through a web server on this machine
    #[arg(long, conflicts_with_all = ["metadata", "targets"], requires = "variant")]
    repo: Option<PathBuf>,
    /// The variant, for a folder
    #[arg(long)]
    variant: Option<String>,
    /// Processor architecture, for a folder
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// Address of the published metadata, as in settings.updates.metadata-base-url
    #[arg(long, required_unless_present = "repo", requires = "targets")]
    metadata: Option<String>,
    /// Address of the published files, as in settings.updates.targets-base-url
    #[arg(long, requires = "metadata")]
    targets: Option<String>,
    /// The root.json that hosts have; the one beside the keys if not given
    #[arg(long)]
    root: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyFolder,
}

/// Checks it.
pub fn run(args: Args) -> Result<()> {
    let root = match &args.root {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => args.keys.load()?.root().to_vec(),
    };
    let (metadata, targets) = match (&args.repo, args.metadata, args.targets) {
        (Some(folder), ..) => {
            let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
            let port = listener.local_addr().context("cannot listen")?.port();
            serve(listener, folder, Manner::Ranges);
            let variant = args.variant.unwrap_or_default();
            let folder = format!("http://127.0.0.1:{port}");
            (
                format!("{folder}/{variant}/{}", args.arch),
                format!("{folder}/targets"),
            )
        }
        (None, metadata, targets) => (metadata.unwrap_or_default(), targets.unwrap_or_default()),
    };
    for checked in validate(&root, &metadata, &targets)? {
        let update = &checked.update;
        println!(
            "{} {} {}: {} bytes, good",
            update.variant, update.arch, update.version, checked.bytes
        );
    }
    Ok(())
}
