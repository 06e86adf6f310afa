//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::{document, fat};
use std::io::Cursor;

/// How much of a file is asked for.
const LIMIT: usize = 10_000;

/// Bytes are user data or refused with a reason.
pub fn user_data(bytes: &[u8]) {
    if let Err(faults) = document::read(bytes.to_vec()) {
        assert!(!faults.is_empty());
    }
}

/// A device has the file, or has it not, or is refused; never more of it than
/// asked for.
pub fn fat(bytes: &[u8]) {
    let Ok(mut volume) = fat::Volume::open(Cursor::new(bytes)) else {
        return;
    };
    // Damage may keep it from being read; that is all that it may do.
    let _ = volume.label();
    for path in [&["user-data.toml"][..], &["efi", "user-data.toml"]] {
        if let Ok(Some(file)) = volume.read_file(path, LIMIT) {
            assert!(file.len() <= LIMIT + 1);
        }
    }
}
