//! Lines for whoever watches the machine's console: boot marks, and what went
//! wrong when nobody can log in to ask. They go through the kernel log, so
//! that they keep their order among the kernel's and init's lines, reach every
//! console, and land in the journal.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

const KERNEL_LOG: &str = "/dev/kmsg";

/// What every line starts with.
const PREFIX: &str = "bulkhead: ";

/// Writes `bulkhead: LINE`; add no prefix yourself. The level is "error"
/// whatever the line says, for a kernel started with `quiet` keeps everything
/// below that from the console.
pub fn say(line: &str) {
    write(Path::new(KERNEL_LOG), 3, line);
}

/// As [`say`] at level "critical", by which the journal can find it.
pub fn alarm(line: &str) {
    write(Path::new(KERNEL_LOG), 2, line);
}

/// Falls back to stderr, for there is nobody to return an error to.
fn write(kernel_log: &Path, level: u8, text: &str) {
    for line in text.lines() {
        // One write is one record; facility 3 (daemon) tells the journal that
        // the kernel itself did not say this.
        let record = format!("<{}>{PREFIX}{line}\n", 3 << 3 | level);
        let written = OpenOptions::new()
            .write(true)
            .open(kernel_log)
            .and_then(|mut log| log.write_all(record.as_bytes()));
        if written.is_err() {
            eprintln!("{PREFIX}{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_record() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("kmsg");
        std::fs::write(&log, "").expect("file");
        write(&log, 3, "API ready");
        assert_eq!(
            std::fs::read_to_string(&log).expect("read"),
            "<27>bulkhead: API ready\n"
        );
    }
}
