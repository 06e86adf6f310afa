//! `bulkhead build`.

use crate::image_choice::ImageChoice;
use crate::output;
use anyhow::Result;
use buildsys::lock::FetchOptions;
use buildsys::manifest::Name;
use buildsys::progress::Progress;
use buildsys::project::Project;
use buildsys::{image, package};
use std::collections::BTreeMap;

/// Arguments of `build`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
    /// Build this package instead of an image, and print the folder with its files.
    #[arg(long, value_name = "NAME", conflicts_with = "variant", value_parser = name)]
    package: Vec<Name>,
    /// Fail where the lock would have to change.
    #[arg(long)]
    locked: bool,
    /// Print JSON: the image's description, or the folders of packages.
    #[arg(long)]
    json: bool,
}

/// Builds the image.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    if !args.package.is_empty() {
        return build_packages(&project, &args, &progress);
    }
    let image = image::build(&project, &args.image.request(args.locked), &progress)?;
    if args.json {
        output::print_json(&image.description)?;
        return Ok(());
    }
    let state = if image.rebuilt { "built" } else { "up to date" };
    eprintln!(
        "{} {}: {state}",
        image.description.variant, image.description.version
    );
    if project.update_root().is_none() {
        eprintln!(
            "it takes no updates: `bulkhead repo create` makes the keys of a repository that \
             images trust which are built after it (docs/updates.md)"
        );
    }
    println!("{}", image.folder.display());
    Ok(())
}

fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_string())
}

fn build_packages(project: &Project, args: &Args, progress: &Progress) -> Result<()> {
    let options = FetchOptions {
        locked: args.locked,
    };
    let trees = package::build(project, &args.package, args.image.arch, options, progress)?;
    if args.json {
        let folders: BTreeMap<&str, _> = trees
            .iter()
            .map(|tree| (tree.name.as_str(), tree.path()))
            .collect();
        output::print_json(&folders)?;
    } else {
        trees
            .iter()
            .for_each(|tree| println!("{}", tree.path().display()));
    }
    Ok(())
}
