//! `bulkhead verify`.

use anyhow::{Context, Result, bail};
use buildsys::image::verify;
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The variant; the project's default when none is given.
    #[arg(long)]
    variant: Option<String>,
    /// Processor architecture: x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds the image again elsewhere and compares.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let result = verify::verify(&project, args.variant, args.arch, &progress)?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&result).context("cannot write JSON")?
        );
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
