//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::{check, document, encoding, fat, iso9660, ovf};
use settings::{Document, Variant};
use std::io::Cursor;

/// How much of a file is asked for.
const LIMIT: usize = 10_000;

/// Bytes are user data or refused with a reason, and what is left of them has no
/// fault any more.
pub fn user_data(bytes: &[u8]) {
    let Ok(variant) = Variant::parse("metal-core") else {
        return;
    };
    let checked = check(bytes.to_vec(), &variant);
    if let Some(document) = checked.document {
        assert_eq!(
            Document::from_value(&document.to_value()),
            Ok(document.clone())
        );
        assert!(document.foreign_to(&variant).is_empty());
    }
    if let Err(faults) = document::read(bytes.to_vec()) {
        assert!(!faults.is_empty());
        assert!(!checked.faults.is_empty() || encoding::guess_base64(bytes).is_some());
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

/// A device has files, or has none, or is refused; never more of a file than
/// asked for.
pub fn iso9660(bytes: &[u8]) {
    let Ok(Some(mut volume)) = iso9660::Volume::open(Cursor::new(bytes)) else {
        return;
    };
    // Damage may keep it from being read; that is all that it may do.
    let _ = volume.top_files();
    for path in [
        &["readme.txt"][..],
        &["openstack", "latest", "user_data"],
        &["openstac", "latest", "user_dat"],
    ] {
        if let Ok(Some(file)) = volume.read_file(path, LIMIT) {
            assert!(file.len() <= LIMIT + 1);
        }
    }
}

/// An environment has the property, or has it not, or is refused.
pub fn ovf(bytes: &[u8]) {
    if let Ok(Some(value)) = ovf::property(&String::from_utf8_lossy(bytes), "x") {
        // References only get shorter.
        assert!(value.len() <= bytes.len() * 3);
    }
}
