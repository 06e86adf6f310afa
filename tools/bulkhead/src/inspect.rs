//! `bulkhead inspect`.

use crate::image_choice::ImageChoice;
use crate::output;
use anyhow::Result;
use buildsys::image::description::Description;
use buildsys::image::inspect;
use buildsys::progress;
use buildsys::project::Project;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: ImageChoice,
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
        let files = inspect::package_files(&project, name, args.image.arch)?;
        if args.json {
            output::print_json(&files)?;
        } else {
            files.iter().for_each(|file| println!("{file}"));
        }
        return Ok(());
    }
    let variant = args.image.variant(&project);
    let description = inspect::latest(&project, variant, args.image.arch)?;
    if args.json {
        output::print_json(&description)?;
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
    for (title, lines) in [
        ("packages", &image.packages),
        ("Go modules", &image.go_modules),
    ] {
        println!("{title:13} {}", lines.len());
        for line in lines {
            println!("  {:28} {:32} {}", line.name, line.version, line.source);
        }
    }
}
