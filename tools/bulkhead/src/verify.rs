//! `bulkhead verify`.

use crate::image::name;
use crate::image_choice::ImageChoice;
use crate::output;
use anyhow::{Result, bail};
use buildsys::image::verify::{self, Comparison};
use buildsys::manifest::Name;
use buildsys::progress::Progress;
use buildsys::project::Project;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
    /// A package to build again instead of the image, such as admin; more of them may be
    /// given.
    #[arg(long = "package", value_name = "PACKAGE", value_parser = name, conflicts_with = "variant")]
    packages: Vec<Name>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds the image, or packages, again elsewhere and compares.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    if args.packages.is_empty() {
        let result = verify::verify(&project, &args.image.request(true), &progress)?;
        if args.json {
            output::print_json(&result)?;
        } else {
            print(&result);
        }
        return judge("image", &[result]);
    }
    let results = verify::verify_packages(&project, &args.packages, args.image.arch, &progress)?;
    if args.json {
        output::print_json(&results)?;
    } else {
        results.iter().for_each(print);
    }
    judge("package", &results)
}

fn print(result: &Comparison) {
    for file in &result.files {
        println!(
            "{:14} {}",
            file.name,
            if file.equal { "the same" } else { "DIFFERENT" }
        );
    }
}

fn judge(what: &str, results: &[Comparison]) -> Result<()> {
    match results.iter().find(|result| !result.is_equal()) {
        Some(result) => bail!(
            "the {what} cannot be built twice: both are kept, {} and {}",
            result.first,
            result.second
        ),
        None => Ok(()),
    }
}
