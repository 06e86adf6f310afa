//! `bulkhead bench`: what builds and boots cost, and how big things are.

mod api;
mod boots;
mod builds;
mod node;
mod quota;

use crate::output;
use crate::vm;
use anyhow::{Context, Result};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::store;
use serde::Serialize;
use std::fs;
use std::path::Path;
use test_vm::disk;

/// Measure: processor seconds of builds and of a boot up to each of its marks, the
/// API's speed, sizes of the image, memory in use.
///
/// On a shared machine the clock says little. Processor seconds repeat within a
/// few per cent, so they are what to compare.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant whose dev twin is built and booted; the project's default if not given
    #[arg(long)]
    variant: Option<String>,
    /// Boot this often and print the median
    #[arg(long, default_value_t = 1)]
    boots: u32,
    /// Boot the latest image as it is, and measure no builds
    #[arg(long)]
    no_build: bool,
    /// Measure a build from nothing, too: the tool compiled anew, then the variant
    /// built with an empty cache, everything downloaded
    #[arg(long, conflicts_with = "no_build")]
    cold: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Processor seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Seconds on the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall: Option<f64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl Row {
    /// A row about time.
    pub fn time(name: &str, cpu: f64, wall: f64) -> Self {
        Self {
            name: name.to_string(),
            cpu: Some(cpu),
            wall: Some(wall),
            bytes: None,
        }
    }

    /// A row about size.
    pub fn size(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_string(),
            cpu: None,
            wall: None,
            bytes: Some(bytes),
        }
    }
}

/// Files of the image whose sizes matter.
const FILES: [&str; 5] = [
    "root.erofs",
    "root.verity",
    "bulkhead.efi",
    "disk.img",
    "apiclient",
];

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    let folder = project.build_dir().join("bench");
    store::remove_tree(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (variant, twin) = vm::pair(&project, args.variant.as_deref());

    let mut rows = Vec::new();
    if !args.no_build {
        let builds = folder.join("builds");
        rows.extend(builds::measure(&project, &variant, &builds, args.cold)?);
        store::remove_tree(&builds)?;
    }
    let image = vm::image(&project, &twin, Arch::X86_64, !args.no_build, &progress)?;
    let emulation = vm::prepare(&project, Arch::X86_64, &folder, &progress)?;
    eprintln!(
        "Acceleration: {} ({})",
        emulation.acceleration, emulation.reason
    );
    rows.extend(boots::measure(&emulation, &image, &folder, args.boots)?);
    if vm::kubernetes_of(&variant).is_ok() {
        eprintln!("A boot as a node of a cluster …");
        let programs = vm::cluster_programs(&project, &variant, Arch::X86_64, &[], &progress)?;
        rows.extend(node::measure(&emulation, &image, programs, &folder)?);
    }
    rows.extend(api::measure(&emulation.emulator, &image, &folder)?);
    rows.extend(sizes(&image)?);
    if args.json {
        output::print_json(&rows)?;
    } else {
        print(&rows);
    }
    store::remove_tree(&folder)
}

fn sizes(image: &Path) -> Result<Vec<Row>> {
    FILES
        .iter()
        .map(|name| {
            let size = disk::allocated(&image.join(name))?;
            Ok(Row::size(&format!("size: {name}"), size))
        })
        .collect()
}

/// Prints the table for people.
fn print(rows: &[Row]) {
    println!(
        "{:<36} {:>10} {:>10} {:>12}",
        "", "CPU s", "clock s", "size"
    );
    for row in rows {
        let seconds = |value: Option<f64>| match value {
            None => String::new(),
            Some(value) if value < 1.0 => format!("{value:.3}"),
            Some(value) => format!("{value:.1}"),
        };
        let size = row.bytes.map_or(String::new(), |bytes| {
            format!("{:.1} MB", bytes as f64 / 1e6)
        });
        println!(
            "{:<36} {:>10} {:>10} {:>12}",
            row.name,
            seconds(row.cpu),
            seconds(row.wall),
            size
        );
    }
}
