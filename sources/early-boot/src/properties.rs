//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::{document, fat};
use std::io::Cursor;

/// Bytes are user data or refused with a reason.
pub fn user_data(bytes: &[u8]) {
    if let Err(faults) = document::read(bytes.to_vec()) {
        assert!(!faults.is_empty());
    }
}

/// A device has the file, or has it not, or is refused; never more of it than
/// asked for.
pub fn fat(bytes: &[u8]) {
    const LIMIT: usize = 10_000;
    if let Ok(Some(file)) = fat::read_top_file(Cursor::new(bytes), "user-data.toml", LIMIT) {
        assert!(file.len() <= LIMIT + 1);
    }
}
