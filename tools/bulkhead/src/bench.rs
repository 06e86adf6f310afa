//! `bulkhead bench`: what a boot costs, and how big things are.

use crate::vm;
use anyhow::{Context, Result};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::{signals, store};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine, disk};

/// Measure: processor seconds of the emulator up to each mark of a boot, sizes of
/// the image, memory in use.
///
/// On a shared machine the clock says little. Processor seconds repeat within a
/// few per cent, so they are what to compare.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Variant whose dev twin is booted; the project's default if not given
    #[arg(long)]
    variant: Option<String>,
    /// Boot this often and print the median
    #[arg(long, default_value_t = 1)]
    boots: u32,
    /// Boot the latest image as it is
    #[arg(long)]
    no_build: bool,
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

/// Marks of a boot: what they mean, and the console line that shows them.
const MARKS: [(&str, &str); 6] = [
    ("boot: loader started", "BdsDxe: starting"),
    ("boot: init started", "bulkhead: init started"),
    ("boot: root verified", "bulkhead: root verified"),
    ("boot: systemd started", "bulkhead: starting systemd"),
    ("boot: API answers", "bulkhead: API ready"),
    ("boot: complete", "bulkhead: boot complete"),
];
/// Processor seconds that a boot may take.
const BOOT: f64 = 200.0;
/// After so long memory in use has settled.
const SETTLED: Duration = Duration::from_secs(60);
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
    let (_, twin) = vm::pair(&project, args.variant.as_deref());
    let image = vm::image(&project, &twin, Arch::X86_64, !args.no_build, &progress)?;
    let folder = project.build_dir().join("bench");
    store::remove_tree(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let emulation = vm::prepare(&project, &folder, &progress)?;
    eprintln!(
        "Acceleration: {} ({})",
        emulation.acceleration, emulation.reason
    );

    let mut rows = Vec::new();
    let mut boots = Vec::new();
    for number in 1..=args.boots.max(1) {
        eprintln!("Boot {number} of {} …", args.boots.max(1));
        boots.push(boot(&emulation, &image, &folder.join(number.to_string()))?);
        signals::check()?;
    }
    rows.extend(medians(&boots));
    for name in FILES {
        rows.push(Row::size(
            &format!("size: {name}"),
            disk::allocated(&image.join(name))?,
        ));
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).context("cannot write the table")?
        );
    } else {
        print(&rows);
    }
    store::remove_tree(&folder)
}

/// Boots once; the first boot of a fresh disk, as a new node's is.
fn boot(emulation: &vm::Emulation, image: &Path, folder: &Path) -> Result<Vec<Row>> {
    let mut builder = Builder::new(image, folder, &emulation.variables, emulation.acceleration);
    builder.disk = Disk::Overlay { size: None };
    let mut machine = builder.start(&emulation.emulator)?;
    let mut rows = Vec::new();
    for (name, line) in MARKS {
        // Marks need not come in this order, so each is looked for from the start.
        machine.rewind();
        let found = machine.wait_for(line, BOOT)?;
        rows.push(Row::time(name, found.cpu, found.wall));
    }
    let complete = (machine.cpu_seconds(), machine.wall_seconds());
    wait(&machine, SETTLED)?;
    let memory = Probe::connect(&machine.probe_socket())?.meminfo()?;
    let idle = (
        machine.cpu_seconds() - complete.0,
        machine.wall_seconds() - complete.1,
    );
    rows.push(Row::time("idle after the boot", idle.0, idle.1));
    rows.push(Row::size("memory in use", memory.total - memory.available));
    let before = (machine.cpu_seconds(), machine.wall_seconds());
    machine.power_off(BOOT)?;
    rows.push(Row::time(
        "power-off",
        machine.cpu_seconds() - before.0,
        machine.wall_seconds() - before.1,
    ));
    Ok(rows)
}

fn wait(machine: &Machine, time: Duration) -> Result<()> {
    let started = std::time::Instant::now();
    while started.elapsed() < time && !machine.has_ended() {
        signals::check()?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The median of each row over several runs, which have the same rows.
fn medians(runs: &[Vec<Row>]) -> Vec<Row> {
    fn median<T: Copy + PartialOrd>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
        let mut values: Vec<T> = values.collect::<Option<_>>()?;
        values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        values.get(values.len() / 2).copied()
    }
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    first
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let column = || runs.iter().filter_map(|run| run.get(index));
            Row {
                name: row.name.clone(),
                cpu: median(column().map(|row| row.cpu)),
                wall: median(column().map(|row| row.wall)),
                bytes: median(column().map(|row| row.bytes)),
            }
        })
        .collect()
}

/// Prints the table for people.
pub fn print(rows: &[Row]) {
    println!(
        "{:<28} {:>10} {:>10} {:>12}",
        "", "CPU s", "clock s", "size"
    );
    for row in rows {
        let seconds =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1}"));
        let size = row.bytes.map_or(String::new(), |bytes| {
            format!("{:.1} MB", bytes as f64 / 1e6)
        });
        println!(
            "{:<28} {:>10} {:>10} {:>12}",
            row.name,
            seconds(row.cpu),
            seconds(row.wall),
            size
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_of_each_row() {
        let run = |cpu, bytes| vec![Row::time("a", cpu, cpu * 2.0), Row::size("b", bytes)];
        let rows = medians(&[run(3.0, 30), run(1.0, 10), run(2.0, 20)]);
        assert_eq!(rows, run(2.0, 20));
        assert_eq!(medians(&[run(5.0, 50)]), run(5.0, 50));
        assert!(medians(&[]).is_empty());
    }
}
