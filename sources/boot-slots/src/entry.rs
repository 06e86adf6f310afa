//! Names of unified kernel images and the order in which they boot.
//!
//! systemd-boot's automatic boot assessment keeps its counters in the file name,
//! `bulkhead_1.2.0+3.efi` → `bulkhead_1.2.0+2-1.efi` → … → `bulkhead_1.2.0+0-3.efi`,
//! and a name without counters is an image that has proved itself. The order is
//! systemd-boot's too: exhausted entries last, then the newest version first.
//!
//! Uses `core` and `alloc` only, since `boot-fallback` runs without an operating
//! system and includes this file.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

/// Tries that a new image gets.
pub const NEW_TRIES: u32 = 3;

/// How the name of every image begins.
pub const PREFIX: &str = "bulkhead_";
const SUFFIX: &str = ".efi";

/// Where an image stands in boot counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// It completed a boot; no counters.
    Blessed,
    /// `+LEFT-DONE`: it may be tried `left` more times and was tried `done` times.
    Counting {
        /// Tries left; at 0 the boot loader takes it only when nothing else is there.
        left: u32,
        /// Tries made.
        done: u32,
    },
}

impl Tries {
    /// What an image has that failed too often.
    pub const EXHAUSTED: Self = Self::Counting {
        left: 0,
        done: NEW_TRIES,
    };

    /// A new image.
    pub const NEW: Self = Self::Counting {
        left: NEW_TRIES,
        done: 0,
    };

    /// An image that is not to boot, and was not tried: it waits to be activated, or has
    /// stood back for an older one.
    pub const WITHHELD: Self = Self::Counting { left: 0, done: 0 };

    /// Whether the boot loader puts it behind all others.
    pub fn is_exhausted(self) -> bool {
        matches!(self, Self::Counting { left: 0, .. })
    }

    /// Whether it is behind all others because its tries failed.
    pub fn has_failed(self) -> bool {
        self.is_exhausted() && self != Self::WITHHELD
    }
}

/// A unified kernel image on the EFI system partition, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Version of the image.
    pub version: String,
    /// Boot counting.
    pub tries: Tries,
}

impl Entry {
    /// An image that has proved itself.
    pub fn blessed(version: &str) -> Self {
        Self {
            version: version.to_string(),
            tries: Tries::Blessed,
        }
    }

    /// The same image with other counters.
    pub fn with_tries(&self, tries: Tries) -> Self {
        Self {
            version: self.version.clone(),
            tries,
        }
    }

    /// Reads a file name. `None` for every file that is not an image of ours.
    /// Names are compared without regard to case, as the file system does.
    pub fn parse(file_name: &str) -> Option<Self> {
        let prefix = file_name.get(..PREFIX.len())?;
        let stem_end = file_name.len().checked_sub(SUFFIX.len())?;
        let suffix = file_name.get(stem_end..)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) || !suffix.eq_ignore_ascii_case(SUFFIX) {
            return None;
        }
        let stem = file_name.get(PREFIX.len()..stem_end)?;
        let (version, tries) = match stem.split_once('+') {
            None => (stem, Tries::Blessed),
            Some((version, counters)) => {
                let (left, done) = match counters.split_once('-') {
                    None => (counters, "0"),
                    Some(pair) => pair,
                };
                (
                    version,
                    Tries::Counting {
                        left: number(left)?,
                        done: number(done)?,
                    },
                )
            }
        };
        is_version(version).then(|| Self {
            version: version.to_string(),
            tries,
        })
    }

    /// The order in which entries boot; the first is the default.
    pub fn boot_order(&self, other: &Self) -> Ordering {
        self.tries
            .is_exhausted()
            .cmp(&other.tries.is_exhausted())
            .then_with(|| compare_versions(&other.version, &self.version))
            .then_with(|| self.counters().cmp(&other.counters()))
    }

    /// Among entries of one version: the blessed one, then the one with most left.
    fn counters(&self) -> (bool, core::cmp::Reverse<u32>, u32) {
        match self.tries {
            Tries::Blessed => (false, core::cmp::Reverse(0), 0),
            Tries::Counting { left, done } => (true, core::cmp::Reverse(left), done),
        }
    }
}

/// The file name.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.version)?;
        match self.tries {
            Tries::Blessed => {}
            Tries::Counting { left, done: 0 } => write!(f, "+{left}")?,
            Tries::Counting { left, done } => write!(f, "+{left}-{done}")?,
        }
        f.write_str(SUFFIX)
    }
}

/// The images among files with these names, the first to boot first.
pub fn in_boot_order<N: AsRef<str>>(names: &[N]) -> Vec<Entry> {
    let entries = names.iter().filter_map(|name| Entry::parse(name.as_ref()));
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by(Entry::boot_order);
    entries
}

/// Whether `text` can be an image's version: no counters, no path, and short
/// enough for a file name. `+` is out because it starts the counters.
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'~' | b'^'))
}

/// Compares versions by the UAPI group's version format specification, as
/// systemd-boot does.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let mut a = a.as_bytes();
    let mut b = b.as_bytes();
    loop {
        a = skip_ignored(a);
        b = skip_ignored(b);
        // A tilde sorts before everything, even before the end.
        match (a.first() == Some(&b'~'), b.first() == Some(&b'~')) {
            (true, true) => {
                a = &a[1..];
                b = &b[1..];
                continue;
            }
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        // A separator present on one side only makes that side the older one.
        let mut skipped = false;
        for separator in *b"-^." {
            match (a.first() == Some(&separator), b.first() == Some(&separator)) {
                (true, true) => {
                    a = &a[1..];
                    b = &b[1..];
                    skipped = true;
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if skipped {
            continue;
        }
        let by_digits = is_digit(a) || is_digit(b);
        let belongs = |c: &u8| {
            if by_digits {
                c.is_ascii_digit()
            } else {
                c.is_ascii_alphabetic()
            }
        };
        let (part_a, rest_a) = split_while(a, belongs);
        let (part_b, rest_b) = split_while(b, belongs);
        let order = if by_digits {
            if part_a.is_empty() || part_b.is_empty() {
                // Numbers are newer than letters.
                return part_a.len().cmp(&part_b.len());
            }
            let part_a = trim_zeros(part_a);
            let part_b = trim_zeros(part_b);
            part_a
                .len()
                .cmp(&part_b.len())
                .then_with(|| part_a.cmp(part_b))
        } else {
            // Upper case sorts before lower case, as in ASCII.
            part_a.cmp(part_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        a = rest_a;
        b = rest_b;
    }
}

fn skip_ignored(mut text: &[u8]) -> &[u8] {
    while let Some((first, rest)) = text.split_first() {
        if first.is_ascii_alphanumeric() || matches!(first, b'~' | b'-' | b'^' | b'.') {
            break;
        }
        text = rest;
    }
    text
}

fn is_digit(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}

fn split_while(text: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    split_while(digits, |c| *c == b'0').1
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let counting = |left, done| Tries::Counting { left, done };
        for (name, expected) in [
            ("bulkhead_1.2.0.efi", Some(("1.2.0", Tries::Blessed))),
            ("bulkhead_1.2.0+3.efi", Some(("1.2.0", counting(3, 0)))),
            ("bulkhead_1.2.0+2-1.efi", Some(("1.2.0", counting(2, 1)))),
            ("BULKHEAD_1.2.0+0-3.EFI", Some(("1.2.0", counting(0, 3)))),
            (
                "bulkhead_0.1.0-rc1.efi",
                Some(("0.1.0-rc1", Tries::Blessed)),
            ),
            ("bulkhead_.efi", None),
            ("bulkhead_+3.efi", None),
            ("bulkhead_1.0+.efi", None),
            ("bulkhead_1.0+3-.efi", None),
            ("bulkhead_1.0+x.efi", None),
            ("bulkhead_1.0+3+3.efi", None),
            ("bulkhead_1.0+99999999999.efi", None),
            ("bulkhead_1.0.efi.new", None),
            ("bulkhead_1/0.efi", None),
            ("other_1.0.efi", None),
            (".efi", None),
            ("", None),
        ] {
            let parsed = Entry::parse(name).map(|entry| (entry.version, entry.tries));
            let expected = expected.map(|(version, tries)| (version.to_string(), tries));
            assert_eq!(parsed, expected, "{name}");
        }
    }

    #[test]
    fn versions() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, expected) in [
            ("1.0.0", "1.0.0", Equal),
            ("1.0.0", "1.0.1", Less),
            ("1.9.0", "1.10.0", Less),
            ("2.0.0", "1.99.99", Greater),
            ("1.0", "1.0.1", Less),
            ("1.0~rc1", "1.0", Less),
            ("1.0~rc1", "1.0~rc2", Less),
            ("1.0-1", "1.0.1", Less),
            ("1.0^post", "1.0", Greater),
            ("1.0.0a", "1.0.0", Greater),
            ("1.0.a", "1.0.1", Less),
            ("007", "7", Equal),
            ("a", "B", Greater),
            ("", "1", Less),
            ("", "~", Greater),
        ] {
            assert_eq!(compare_versions(a, b), expected, "{a} and {b}");
            assert_eq!(compare_versions(b, a), expected.reverse(), "{b} and {a}");
        }
    }

    #[test]
    fn order_is_that_of_the_boot_loader() {
        let mut names = [
            "bulkhead_3.0.0+0-3.efi",
            "bulkhead_1.0.0.efi",
            "bulkhead_2.0.0+3.efi",
            "bulkhead_2.0.0.efi",
            "bulkhead_1.9.0+0-3.efi",
            "bulkhead_1.10.0+1-2.efi",
        ]
        .map(|name| Entry::parse(name).unwrap());
        names.sort_by(Entry::boot_order);
        let order: Vec<String> = names.iter().map(|entry| entry.to_string()).collect();
        assert_eq!(
            order,
            [
                "bulkhead_2.0.0.efi",
                "bulkhead_2.0.0+3.efi",
                "bulkhead_1.10.0+1-2.efi",
                "bulkhead_1.0.0.efi",
                "bulkhead_3.0.0+0-3.efi",
                "bulkhead_1.9.0+0-3.efi",
            ]
        );
    }

    proptest! {
        #[test]
        fn names_survive(version in "[0-9a-z.~^-]{1,64}", left in any::<u32>(), done in any::<u32>(), blessed in any::<bool>()) {
            let tries = if blessed { Tries::Blessed } else { Tries::Counting { left, done } };
            let entry = Entry { version, tries };
            prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        }

        #[test]
        fn any_text_is_a_name_or_not(name in ".{0,40}") {
            crate::properties::entry_name(name.as_bytes());
            crate::properties::entry_name(alloc::format!("bulkhead_{name}.efi").as_bytes());
        }

        #[test]
        fn versions_have_one_order(mut versions in proptest::collection::vec("[0-9a-c.~^-]{0,8}", 3)) {
            versions.sort_by(|a, b| compare_versions(a, b));
            for pair in versions.windows(2) {
                prop_assert_ne!(compare_versions(&pair[0], &pair[1]), Ordering::Greater);
                prop_assert_eq!(compare_versions(&pair[0], &pair[1]), compare_versions(&pair[1], &pair[0]).reverse());
            }
            prop_assert_ne!(compare_versions(&versions[0], &versions[2]), Ordering::Greater);
        }
    }
}
