//! What must hold for any bytes at all.
//!
//! Each function takes arbitrary bytes, gives them to one parser and panics when
//! a promise of that parser is broken. The property tests call them with random
//! and nearly valid input, the fuzz targets in `tests/fuzz` with whatever finds new
//! paths through the code.

use crate::archive::{self, Kind};
use crate::control::{Stanza, stanzas};
use crate::index::{Packages, is_plain_path, packages_xz};
use crate::openpgp::{Keyring, verify_cleartext};
use crate::release::{Release, Timestamp};
use crate::version::Version;
use crate::{Error, relation};
use std::cmp::Ordering;
use std::io::Read;

/// Versions are in one order, and equal to themselves.
pub fn version(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let found: Vec<Version> = text
        .split_whitespace()
        .take(3)
        .filter_map(|word| word.parse().ok())
        .collect();
    for a in &found {
        assert_eq!(a.cmp(a), Ordering::Equal);
        assert_eq!(
            a.to_string().parse::<Version>().as_ref(),
            Ok(a),
            "it reads back"
        );
        for b in &found {
            assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} against {b}");
            for c in &found {
                assert!(!(a <= b && b <= c) || a <= c, "{a} ≤ {b} ≤ {c}");
            }
        }
    }
}

/// Stanzas written out again are the same stanzas.
pub fn control(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(found) = stanzas(text) else { return };
    for stanza in found {
        let fields = stanza.fields();
        let written: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        let again = Stanza::parse(&written);
        // Old Macs' line ends and lines that look empty are not kept.
        if !written.contains(['\r', '\u{b}', '\u{c}']) {
            assert_eq!(again.ok().as_ref(), Some(&stanza), "{written:?}");
        }
    }
}

/// Dependencies written out again are the same dependencies.
pub fn dependencies(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(found) = relation::parse(text) else {
        return;
    };
    let written: Vec<String> = found
        .iter()
        .map(|one| {
            one.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect();
    assert_eq!(
        relation::parse(&written.join(", ")).ok().as_ref(),
        Some(&found)
    );
}

/// Paths of packages can be joined to an address; an error ends the index.
pub fn index(bytes: &[u8]) {
    let mut packages = Packages::new(bytes);
    while let Some(package) = packages.next() {
        match package {
            Ok(package) => assert!(is_plain_path(&package.path), "{:?}", package.path),
            Err(_) => assert!(packages.next().is_none(), "nothing comes after an error"),
        }
    }
    if let Ok(packages) = packages_xz(bytes) {
        packages.take(1000).for_each(drop);
    }
}

/// What a release names can be joined to an address, and times read back.
pub fn release(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(release) = Release::parse(text) {
        assert!(release.files.keys().all(|path| is_plain_path(path)));
        assert_eq!(release.date.to_string().parse(), Ok(release.date));
    }
    if let Some(time) = Timestamp::parse_mail(text.trim_end()) {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
}

/// Nobody who has not our keys gets a text accepted.
pub fn signature(bytes: &[u8]) {
    let Ok(keyring) = Keyring::debian() else {
        unreachable!("the keyring is shipped")
    };
    let now = Timestamp::from_unix(1_800_000_000);
    assert!(
        verify_cleartext(bytes, &keyring, now).is_err(),
        "random bytes are signed"
    );
}

/// Reading keys ends well or with an error.
pub fn keyring(bytes: &[u8]) {
    if let Ok(keyring) = Keyring::parse(bytes) {
        let now = Timestamp::from_unix(1_800_000_000);
        assert!(verify_cleartext(b"", &keyring, now).is_err());
    }
}

/// Paths stay inside, and sizes are what is read.
pub fn deb(bytes: &[u8]) {
    let _ = archive::read_control(bytes);
    let mut left = 16_u64 << 20;
    let _ = archive::for_each_entry(bytes, |entry| {
        assert!(is_inside(entry.path()), "{:?}", entry.path());
        if let Kind::Hardlink { target } = entry.kind() {
            assert!(target.is_empty() || is_inside(target), "{target:?}");
        }
        // What a few bytes unpack to can be without end; stop some time.
        let read = std::io::copy(&mut entry.take(left), &mut std::io::sink()).unwrap_or(0);
        left -= read;
        match left {
            0 => Err(Error::Malformed {
                what: "package archive",
                why: "long enough".to_string(),
            }),
            _ => Ok(()),
        }
    });
}

fn is_inside(path: &str) -> bool {
    !path.split('/').any(|part| matches!(part, "" | "." | ".."))
}
