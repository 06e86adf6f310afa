//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::{Faults, net_toml, networkd};

/// Bytes say nothing, are a configuration that renders, or are refused with
/// faults on lines that exist.
pub fn net_toml(bytes: &[u8]) {
    match net_toml::parse(bytes) {
        Ok(None) => assert!(String::from_utf8_lossy(bytes).trim().is_empty()),
        Ok(Some(configuration)) => {
            let files = networkd::render(&configuration);
            assert!(files.len() > configuration.interfaces().len());
            for (name, text) in files {
                assert!(!name.contains('/'), "{name}");
                let mut sections = 0;
                for line in text.lines().filter(|line| !line.is_empty()) {
                    sections += usize::from(line.starts_with('['));
                    assert!(sections > 0, "{line}");
                    assert!(line.starts_with('[') || line.contains('='), "{line}");
                    assert!(!line.ends_with('\\'), "{line}");
                }
            }
        }
        Err(faults) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(!faults.is_empty());
            assert!(faults.iter().count() <= Faults::LIMIT);
            for fault in faults.iter() {
                assert!((1..=lines).contains(&fault.line), "{fault}");
                assert!(!fault.reason.is_empty());
            }
        }
    }
}
