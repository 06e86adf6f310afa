//! `bulkhead bench`: what builds and boots cost, and how big things are.

mod api;
mod boots;
mod builds;
mod node;
mod quota;
mod stock_node;
mod updates;

use crate::output;
use crate::vm;
use anyhow::{Context, Result, anyhow};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::store;
use node::Candidate;
use serde::Serialize;
use std::fs;
use std::path::Path;
use stock_node::StockNode;
use test_vm::{disk, firmware};

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
    /// Measure a host of stock Debian packages, too, that becomes a node by cloud-init
    /// with the same kubelet; for variants with Kubernetes
    #[arg(long)]
    stock: bool,
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
    /// How many times as much it is, in processor seconds or bytes, as what it is compared
    /// with: a stock host with the image, a restart into an update with a plain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<f64>,
}

impl Row {
    /// A row about time.
    pub fn time(name: &str, cpu: f64, wall: f64) -> Self {
        Self {
            name: name.to_string(),
            cpu: Some(cpu),
            wall: Some(wall),
            bytes: None,
            times: None,
        }
    }

    /// A row about size.
    pub fn size(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_string(),
            cpu: None,
            wall: None,
            bytes: Some(bytes),
            times: None,
        }
    }

    /// The same measure of something else, to compare with those of the image.
    fn beside(self, what: &str, image: &[Self]) -> Self {
        let same = image.iter().find(|row| row.name == self.name);
        let amount = |row: &Self| row.cpu.or(row.bytes.map(|bytes| bytes as f64));
        let times = same.and_then(|same| Some(amount(&self)? / amount(same)?));
        Self {
            name: format!("{what} {}", self.name),
            times,
            ..self
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
    let update_keys = vm::update_keys(&project)?;

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
    let kubernetes = vm::kubernetes_of(&variant);
    // Made before anything is measured, since it takes the processors for a while.
    let stock = match args.stock {
        true => {
            kubernetes.as_ref().map_err(|error| anyhow!("{error:#}"))?;
            let folder = folder.join("stock-node");
            Some(StockNode::make(&project, &variant, &folder, &progress)?)
        }
        false => None,
    };
    rows.extend(boots::measure(&emulation, &image, &folder, args.boots)?);
    if kubernetes.is_ok() {
        let next = vm::next_image(&project, &twin, Arch::X86_64, !args.no_build, &progress)?;
        eprintln!("A boot as a node of a cluster …");
        let programs = vm::cluster_programs(
            &project,
            &variant,
            Arch::X86_64,
            &vm::More::default(),
            &progress,
        )?;
        let bulkhead = Candidate {
            name: "node",
            image: &image,
            variables: &emulation.variables,
            join: &node::join,
            memory: &node::memory_in_use,
        };
        let measured = node::measure(&emulation, &bulkhead, &programs, &folder)?;
        let mut compared = Vec::new();
        if let Some(stock) = &stock {
            eprintln!("The same of a host of stock packages …");
            let candidate = Candidate {
                name: "stock",
                image: &stock.image,
                // Its loader is signed by nobody whom our firmware knows.
                variables: &firmware::without_keys(&emulation.emulator)?,
                join: &|cluster, builder| stock.join(cluster, builder),
                memory: &StockNode::memory_in_use,
            };
            let theirs = node::measure(&emulation, &candidate, &programs, &folder)?;
            compared.extend(theirs.into_iter().map(|row| row.beside("stock", &measured)));
        }
        rows.extend(measured);
        rows.extend(compared);
        eprintln!("Updates of that node …");
        let images = (image.as_path(), next.as_path());
        rows.extend(updates::measure(
            &emulation,
            images,
            &update_keys,
            &programs,
            &folder,
        )?);
        rows.push(updates::kubelet(&emulation.emulator, &image, &folder)?);
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
        "{:<46} {:>10} {:>10} {:>12} {:>6}",
        "", "CPU s", "clock s", "size", "times"
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
            "{:<46} {:>10} {:>10} {:>12} {:>6}",
            row.name,
            seconds(row.cpu),
            seconds(row.wall),
            size,
            row.times
                .map_or(String::new(), |times| format!("{times:.1}"))
        );
    }
}
