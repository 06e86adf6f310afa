//! Whether an unhealthy system restarts.

use boot_slots::entry::{Entry, Tries};

/// What becomes of an unhealthy system.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays up, for the reason given.
    Stay(&'static str),
    /// It restarts, for the reason given.
    Restart(&'static str),
}

/// Decides from the names on the ESP. The boot loader has taken the running
/// try off the counter already, so that the last try shows none left. `may_pass` is
/// whether the same image may do better when it is started again.
pub fn decide(entries: &[Entry], running: &str, may_pass: bool) -> Verdict {
    let tries = entries
        .iter()
        .filter(|entry| entry.version == running)
        .map(|entry| entry.tries);
    let mut blessed = false;
    let mut tries_left = false;
    for tries in tries {
        match tries {
            Tries::Blessed => blessed = true,
            Tries::Counting { left, .. } => tries_left |= left > 0,
        }
    }
    let other_usable = entries
        .iter()
        .any(|entry| entry.version != running && !entry.tries.is_exhausted());
    if blessed {
        Verdict::Stay("it was good before")
    } else if tries_left && (may_pass || other_usable) {
        Verdict::Restart("it has tries left")
    } else if other_usable {
        Verdict::Restart("its tries are used up and there is another image")
    } else {
        Verdict::Stay("there is no other image to try")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trial_that_leads_somewhere_restarts() {
        // Whether it restarts, and whether it does where only another image can do better.
        for (names, restart, for_another) in [
            (&["bulkhead_2.efi", "bulkhead_1.efi"][..], false, false),
            (&["bulkhead_2+2-1.efi", "bulkhead_1.efi"], true, true),
            (&["bulkhead_2+2-1.efi"], true, false),
            (&["bulkhead_2+0-3.efi", "bulkhead_1.efi"], true, true),
            (&["bulkhead_2+0-3.efi", "bulkhead_1+1-2.efi"], true, true),
            (&["bulkhead_2+2-1.efi", "bulkhead_1+0-3.efi"], true, false),
            (&["bulkhead_2+0-3.efi", "bulkhead_1+0-3.efi"], false, false),
            (&["bulkhead_2+0-3.efi"], false, false),
            // Both names of a rename that was cut off.
            (&["bulkhead_2+2-1.efi", "bulkhead_2.efi"], false, false),
            // Started by other means than a file of ours.
            (&[], false, false),
            (&["bulkhead_1.efi"], true, true),
        ] {
            let entries: Vec<Entry> = names.iter().filter_map(|name| Entry::parse(name)).collect();
            assert_eq!(entries.len(), names.len());
            for (may_pass, expected) in [(true, restart), (false, for_another)] {
                let verdict = decide(&entries, "2", may_pass);
                let restarts = matches!(verdict, Verdict::Restart(_));
                assert_eq!(restarts, expected, "{names:?} {may_pass} {verdict:?}");
            }
        }
    }
}
