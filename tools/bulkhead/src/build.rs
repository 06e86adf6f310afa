//! `bulkhead build`.

use anyhow::{Context, Result};
use buildsys::image::{self, BuildRequest};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};

/// Arguments of `build`.
#[derive(clap::Args)]
pub struct Args {
    /// The variant; `<variant>-dev` is its twin with the dev door.
    #[arg(long)]
    variant: Option<String>,
    /// Processor architecture: x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Fail where the lock would have to change.
    #[arg(long)]
    locked: bool,
    /// Print the image's description as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds the image.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let request = BuildRequest {
        variant: args.variant,
        arch: args.arch,
        locked: args.locked,
    };
    let image = image::build(&project, &request, &progress)?;
    if args.json {
        let text = serde_json::to_string_pretty(&image.description).context("cannot write JSON")?;
        println!("{text}");
        return Ok(());
    }
    let state = if image.rebuilt { "built" } else { "up to date" };
    eprintln!(
        "{} {}: {state}",
        image.description.variant, image.description.version
    );
    println!("{}", image.folder.display());
    Ok(())
}
