//! `bulkhead verify`.

use crate::image_choice::ImageChoice;
use crate::output;
use anyhow::{Result, bail};
use buildsys::image::verify;
use buildsys::progress::Progress;
use buildsys::project::Project;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds the image again elsewhere and compares.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let result = verify::verify(&project, &args.image.request(true), &progress)?;
    if args.json {
        output::print_json(&result)?;
    } else {
        for file in &result.files {
            println!(
                "{:14} {}",
                file.name,
                if file.equal { "the same" } else { "DIFFERENT" }
            );
        }
    }
    if !result.is_equal() {
        bail!(
            "the image cannot be built twice: both are kept, {} and {}",
            result.first,
            result.second
        );
    }
    Ok(())
}
