//! Powers the machine off when its power button is pressed, which is also how
//! clouds and hypervisors ask a machine to stop.
//!
//! systemd leaves this to logind, which needs a message bus; a host without
//! logins has neither.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Size of the kernel's `struct input_event` on 64-bit machines: two words of
/// time, type, code, value.
const EVENT_SIZE: usize = 24;
/// `EV_KEY` of linux/input-event-codes.h.
const TYPE_KEY: u16 = 1;
/// `KEY_POWER` of the same.
const CODE_POWER: u16 = 116;
/// Value of a key that goes down; 0 is up and 2 is repeated.
const PRESSED: i32 = 1;

/// Waits for the button at `device`, then powers off. Does not return before.
pub fn run(device: &Path) -> Result<()> {
    let reading = || format!("cannot read the power button {}", device.display());
    let mut events = File::open(device).with_context(reading)?;
    let mut event = [0; EVENT_SIZE];
    loop {
        events.read_exact(&mut event).with_context(reading)?;
        if is_press(&event) {
            sysutil::console::say("power button pressed, powering off");
            return sysutil::process::run(Command::new("/usr/bin/systemctl").arg("poweroff"))
                .map(drop)
                .context("cannot power off");
        }
    }
}

fn is_press(event: &[u8; EVENT_SIZE]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (half(16), half(18), value) == (TYPE_KEY, CODE_POWER, PRESSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_SIZE] {
        let mut event = [0xaa; EVENT_SIZE];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_pressing_the_power_key_counts() {
        for (kind, code, value, expected) in [
            (TYPE_KEY, CODE_POWER, PRESSED, true),
            (TYPE_KEY, CODE_POWER, 0, false),
            (TYPE_KEY, CODE_POWER, 2, false),
            (TYPE_KEY, 30, PRESSED, false),
            (0, CODE_POWER, PRESSED, false),
        ] {
            assert_eq!(
                is_press(&event(kind, code, value)),
                expected,
                "{kind} {code} {value}"
            );
        }
    }
}
