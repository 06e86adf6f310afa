//! The properties of `deb::properties` over random and nearly valid bytes.

use deb::properties;
use deb::testing::{TestKey, make_deb};
use proptest::collection::vec;
use proptest::prelude::*;

const INDEX: &str = "Package: a\nSource: src (1.0)\nVersion: 1:2-3\nArchitecture: amd64\n\
    Depends: libc6 (>= 2.38), a | b (<< 2)\nFilename: pool/a_1.deb\nSize: 17\n\
    SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\n";
const RELEASE: &str = "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 02:10:46 UTC\n\
    SHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/a\n";

/// Valid bytes with a few changes: cuts, flips, insertions, repetitions.
fn nearly(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..5_u8, any::<u8>());
    vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = valid.clone();
        for (index, kind, value) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => bytes.insert(at, value),
                3 => bytes.truncate(at.max(bytes.len() / 2)),
                _ => bytes.extend_from_within(at..bytes.len().min(at + usize::from(value))),
            }
        }
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn versions(text in "([0-9]{1,2}:)?[0-9a-z.+~:-]{1,12} [0-9a-z.+~-]{1,12} [0-9.~-]{1,8}") {
        properties::version(text.as_bytes());
    }

    #[test]
    fn control_files(text in "([A-Za-z-]{0,4}:?[ a-z.\t]{0,6}\n? ?){0,12}", bytes in any_bytes()) {
        properties::control(text.as_bytes());
        properties::control(&bytes);
    }

    #[test]
    fn dependencies(text in "([a-c0-9]{0,3}(:any)?( \\([<>=]{0,2} ?[0-9.~-]{0,4}\\))?[,|]? ?){0,6}") {
        properties::dependencies(text.as_bytes());
    }

    #[test]
    fn indexes(bytes in nearly(INDEX.repeat(3).into_bytes()), noise in any_bytes()) {
        properties::index(&bytes);
        properties::index(&noise);
    }

    #[test]
    fn compressed_indexes(bytes in nearly(deb::testing::compress(INDEX.repeat(3).as_bytes()))) {
        properties::index(&bytes);
    }

    #[test]
    fn releases(bytes in nearly(RELEASE.as_bytes().to_vec()), noise in any_bytes()) {
        properties::release(&bytes);
        properties::release(&noise);
    }

    #[test]
    fn times(text in "[A-Z][a-z]{2}, [0-9]{1,2} (Jan|Feb|Dec|Xyz) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC") {
        properties::release(text.as_bytes());
    }

    #[test]
    fn signatures(bytes in nearly(TestKey::new(1, 1, 0).sign(RELEASE, 2, 0)), noise in any_bytes()) {
        properties::signature(&bytes);
        properties::signature(&noise);
    }

    #[test]
    fn altered_text_is_never_accepted(bytes in nearly(TestKey::new(1, 1, 0).sign(RELEASE, 2, 0))) {
        let now = deb::release::Timestamp::from_unix(1_800_000_000);
        let keyring = TestKey::new(1, 1, 0).keyring();
        if let Ok(signed) = deb::openpgp::verify_cleartext(&bytes, &keyring, now) {
            prop_assert_eq!(signed.text, RELEASE);
        }
    }

    #[test]
    fn keyrings(bytes in nearly(TestKey::new(1, 1, 9).export()), noise in any_bytes()) {
        properties::keyring(&bytes);
        properties::keyring(&noise);
    }

    #[test]
    fn archives(bytes in nearly(deb_archive()), noise in any_bytes()) {
        properties::deb(&bytes);
        properties::deb(&[b"!<arch>\n", noise.as_slice()].concat());
    }

    #[test]
    fn tar_archives(tar in nearly(deb::testing::make_tar(&entries())), noise in any_bytes()) {
        for tar in [tar, noise] {
            let members: [(&str, &[u8]); 2] = [("control.tar", &tar), ("data.tar", &tar)];
            properties::deb(&deb::testing::make_ar(&members));
        }
    }
}

fn entries() -> Vec<(&'static str, deb::archive::Kind, &'static [u8])> {
    use deb::archive::Kind;
    vec![
        (
            "./control",
            Kind::File {
                mode: 0o644,
                size: 3,
                modified: 0,
            },
            b"A:1",
        ),
        ("./bin/", Kind::Directory { mode: 0o755 }, b""),
        (
            "./bin/x",
            Kind::Symlink {
                target: "../y".to_string(),
            },
            b"",
        ),
        (
            "./bin/y",
            Kind::Hardlink {
                target: "./control".to_string(),
            },
            b"",
        ),
    ]
}

fn deb_archive() -> Vec<u8> {
    make_deb("Package: a\nVersion: 1\nArchitecture: all\n", &entries())
}
