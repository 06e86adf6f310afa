//! Messages on the console and in the kernel's log, which the journal reads.

use std::fs::{self, OpenOptions};
use std::io::Write;

const KERNEL_LOG: &str = "/dev/kmsg";
const CONSOLE: &str = "/dev/console";
/// First number: messages below this level reach the console.
const CONSOLE_LEVEL: &str = "/proc/sys/kernel/printk";

/// A mark that boots are measured by.
pub fn mark(text: &str) {
    write(5, text);
}

/// Something is odd, but the boot goes on.
pub fn warn(text: &str) {
    write(4, text);
}

/// The boot ends.
pub fn error(text: &str) {
    write(3, text);
}

/// There is nobody to tell when a message cannot be written.
fn write(level: u8, text: &str) {
    let line = format!("bulkhead: {text}\n");
    let logged = OpenOptions::new()
        .write(true)
        .open(KERNEL_LOG)
        .and_then(|mut log| log.write_all(format!("<{level}>{line}").as_bytes()));
    if logged.is_err() || level >= console_level() {
        let _ = OpenOptions::new()
            .write(true)
            .open(CONSOLE)
            .and_then(|mut console| console.write_all(line.as_bytes()));
    }
}

fn console_level() -> u8 {
    let levels = fs::read_to_string(CONSOLE_LEVEL).unwrap_or_default();
    levels
        .split_whitespace()
        .next()
        .and_then(|level| level.parse().ok())
        .unwrap_or(u8::MAX)
}
