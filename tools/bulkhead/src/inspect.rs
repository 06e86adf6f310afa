//! `bulkhead inspect`.

use anyhow::{Context, Result};
use buildsys::image::description::Description;
use buildsys::image::inspect;
use buildsys::progress;
use buildsys::project::{Arch, Project};

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The variant; the project's default when none is given.
    #[arg(long)]
    variant: Option<String>,
    /// Processor architecture: x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// List the files of this locked Debian package instead.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows what an image, or a Debian package, holds.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    if let Some(name) = &args.package {
        let files = inspect::package_files(&project, name, args.arch)?;
        if args.json {
            println!(
                "{}",
                serde_json::to_string_pretty(&files).context("cannot write JSON")?
            );
        } else {
            files.iter().for_each(|file| println!("{file}"));
        }
        return Ok(());
    }
    let variant = args
        .variant
        .as_deref()
        .unwrap_or(&project.config.release.default_variant);
    let description = inspect::latest(&project, variant, args.arch)?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&description).context("cannot write JSON")?
        );
    } else {
        print_description(&description);
    }
    Ok(())
}

fn print_description(image: &Description) {
    let size = progress::size;
    println!("variant       {} for {}", image.variant, image.arch);
    println!("version       {} (build {})", image.version, image.build_id);
    println!("kernel        {}", image.kernel);
    println!("root hash     {}", image.root_hash);
    println!(
        "root          {} in {} files",
        size(image.sizes.root),
        image.sizes.files
    );
    println!("kernel image  {}", size(image.sizes.kernel_image));
    println!("disk          {}", size(image.sizes.disk));
    println!("signed");
    for (path, digest) in &image.authenticode {
        println!("  {path:44} {digest}");
    }
    println!("packages      {}", image.packages.len());
    for package in &image.packages {
        println!(
            "  {:28} {:32} {}",
            package.name, package.version, package.source
        );
    }
}
