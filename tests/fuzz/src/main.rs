//! Every parser of foreign bytes as a target of libFuzzer.
//!
//! A target is a line of [`TARGETS`]: its name, and the function that panics when
//! a promise of the parser is broken; the property tests call the same functions
//! with random input. Which one runs is said by the variable [`CHOICE`]; without
//! it the names are printed. Inputs to start from lie in `corpus/<name>/`.
//!
//! One program for all of them, so that it is compiled and linked once.

#![no_main]

use std::sync::OnceLock;

type Property = fn(&[u8]);

const TARGETS: &[(&str, Property)] = &[
    ("boot-record", boot_slots::properties::boot_record),
    ("deb-archive", deb::properties::deb),
    ("deb-control", deb::properties::control),
    ("deb-dependencies", deb::properties::dependencies),
    ("deb-index", deb::properties::index),
    ("deb-keyring", deb::properties::keyring),
    ("deb-release", deb::properties::release),
    ("deb-signature", deb::properties::signature),
    ("deb-version", deb::properties::version),
    ("fat", early_boot::properties::fat),
    ("iso9660", early_boot::properties::iso9660),
    ("kernel-image-name", boot_slots::properties::entry_name),
    ("net-toml", network::properties::net_toml),
    ("ovf", early_boot::properties::ovf),
    ("partition-table", boot_slots::properties::partition_table),
    ("settings-json", settings::properties::json),
    ("settings-key", settings::properties::key),
    ("settings-toml", settings::properties::toml),
    ("user-data", early_boot::properties::user_data),
    ("verity-superblock", boot_slots::properties::verity_superblock),
    ("websocket", api_types::websocket::properties::decoding),
];

/// Environment variable with the target's name.
const CHOICE: &str = "FUZZ_TARGET";

static CHOSEN: OnceLock<Property> = OnceLock::new();

fn choose() -> Property {
    let wanted = std::env::var(CHOICE).unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, property)) => *property,
        None => {
            for (name, _) in TARGETS {
                println!("{name}");
            }
            std::process::exit(i32::from(!wanted.is_empty()));
        }
    }
}

libfuzzer_sys::fuzz_target!(
    init: { CHOSEN.get_or_init(choose); },
    |bytes: &[u8]| CHOSEN.get_or_init(choose)(bytes)
);
