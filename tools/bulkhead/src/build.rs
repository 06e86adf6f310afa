//! `bulkhead build`.

use crate::image_choice::ImageChoice;
use anyhow::{Context, Result};
use buildsys::image;
use buildsys::progress::Progress;
use buildsys::project::Project;

/// Arguments of `build`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
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
    let image = image::build(&project, &args.image.request(args.locked), &progress)?;
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
