//! `bulkhead repo add`.

use super::Place;
use crate::image_choice;
use anyhow::{Context, Result};
use buildsys::image::description::Description;
use std::path::PathBuf;
use sysutil::time::Time;
use update_metadata::Waves;
use update_repository::Release;

/// Arguments of `repo add`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Folder of the image, as the build made it
    #[arg(long)]
    image: PathBuf,
    /// File with the schedule of waves; everybody within six days if not given
    #[arg(long, conflicts_with = "at_once")]
    waves: Option<PathBuf>,
    /// Release to all hosts at once
    #[arg(long)]
    at_once: bool,
    /// When the release begins, as in 2026-11-28T10:20:30Z; now if not given
    #[arg(long, conflicts_with = "at_once")]
    start: Option<String>,
}

/// Adds the image.
pub fn run(args: Args) -> Result<()> {
    let image = Description::read(&args.image)?;
    image_choice::refuse_twin(&image.variant)?;
    let start = match &args.start {
        None => Time::now(),
        Some(text) => Time::parse(text)
            .with_context(|| format!("--start {text} is no moment such as 2026-11-28T10:20:30Z"))?,
    };
    let waves = match args.at_once {
        true => Waves::default(),
        false => super::schedule(args.waves.as_deref())?.waves(start)?,
    };
    let release = Release::in_folder(&args.image, &image.version, image.root_hash, waves)?;
    let repository = args.place.repository(&image.variant, &image.arch);
    repository.add(&args.place.keys.load()?, &release)?;
    super::say(&format!("released {}", image.version), &repository);
    Ok(())
}
