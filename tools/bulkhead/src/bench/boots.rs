//! Boots: what each mark costs, and the memory in use afterwards.

use super::Row;
use crate::vm;
use anyhow::Result;
use buildsys::signals;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine};

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
pub const SETTLED: Duration = Duration::from_secs(60);

/// The median of each row over `times` boots of the image in `image`.
pub fn measure(
    emulation: &vm::Emulation,
    image: &Path,
    folder: &Path,
    times: u32,
) -> Result<Vec<Row>> {
    let times = times.max(1);
    let mut boots = Vec::new();
    for number in 1..=times {
        eprintln!("Boot {number} of {times} …");
        boots.push(boot(emulation, image, &folder.join(number.to_string()))?);
        signals::check()?;
    }
    Ok(medians(&boots))
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
    let mut probe = Probe::connect(&machine.probe_socket())?;
    let memory = probe.meminfo()?;
    let journal = probe.run(&[
        "journalctl",
        "--boot",
        "--unit=apiserver.service",
        "--output=cat",
    ])?;
    if let Some(seconds) = settings_brought_up(&journal.stdout) {
        rows.push(Row {
            wall: None,
            ..Row::time(
                "boot: API start to files rendered, in the guest",
                seconds,
                0.0,
            )
        });
    }
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

/// The processor seconds in what the API server says of its start.
fn settings_brought_up(journal: &str) -> Option<f64> {
    let (_, rest) = journal.split_once("settings brought up in ")?;
    let milliseconds: f64 = rest.split(' ').next()?.parse().ok()?;
    Some(milliseconds / 1000.0)
}

/// Waits for `time`, or until the machine is off.
pub fn wait(machine: &Machine, time: Duration) -> Result<()> {
    let started = Instant::now();
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
                times: None,
            }
        })
        .collect()
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
