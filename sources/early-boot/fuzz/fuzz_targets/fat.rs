#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| early_boot::properties::fat(bytes));
