use super::*;
use crate::testing::TestKey;

const CREATED: u32 = 1_767_225_600;
const SIGNED: u32 = CREATED + 86_400;
const TEXT: &str = "Origin: Test\n- dashed\n-----BEGIN nothing\n\nend\n";

fn at(seconds: u32) -> Timestamp {
    Timestamp::from_unix(seconds.into())
}

fn verify(message: &[u8], keyring: &Keyring) -> Result<Signed, SignatureError> {
    verify_cleartext(message, keyring, at(SIGNED + 60))
}

#[test]
fn good_signature_gives_the_text() {
    let key = TestKey::new(1, CREATED, 0);
    let signed = verify(&key.sign(TEXT, SIGNED, 0), &key.keyring()).unwrap();
    assert_eq!(
        signed,
        Signed {
            text: TEXT.to_string(),
            signers: vec![key.fingerprint()]
        }
    );
}

#[test]
fn gnupgs_rsa_signature_is_understood() {
    let keyring = Keyring::parse(include_bytes!("data/rsa-key.gpg")).unwrap();
    let message = include_bytes!("data/rsa-message.asc");
    let now = Timestamp::from_unix(1_772_000_000);
    let signed = verify_cleartext(message, &keyring, now).unwrap();
    assert!(
        signed
            .text
            .starts_with("Origin: Test\nCodename: trixie\n- dashed\n-----not a header\n")
    );
    assert!(
        signed.text.ends_with("\ntrailing blanks\nend\n"),
        "{:?}",
        signed.text
    );
    let altered = String::from_utf8_lossy(message).replace("trixie", "trixia");
    assert!(matches!(
        verify_cleartext(altered.as_bytes(), &keyring, now),
        Err(SignatureError::Wrong(_))
    ));
    let later = Timestamp::from_unix(2_082_844_800);
    assert!(matches!(
        verify_cleartext(message, &keyring, later),
        Err(SignatureError::ExpiredKey { .. })
    ));
}

#[test]
fn shipped_keyring_has_the_keys_of_the_release() {
    let keyring = Keyring::debian().unwrap();
    let primary = [
        "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
        "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
        "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
    ];
    for fingerprint in primary {
        let key = keyring
            .keys
            .iter()
            .find(|(found, _)| found.to_string() == fingerprint);
        let (_, key) = key.unwrap();
        assert!(key.expires().is_some(), "{fingerprint} expires some day");
    }
    assert_eq!(
        keyring.keys.len(),
        5,
        "two of the three have a subkey that signs"
    );
}

#[test]
fn bad_signatures_are_refused() {
    let key = TestKey::new(1, CREATED, 30 * 86_400);
    let other = TestKey::new(2, CREATED, 0);
    let message = key.sign(TEXT, SIGNED, 3_600);
    let text = String::from_utf8(message.clone()).unwrap();
    let check = |message: &str, now: u32, expected: &str| {
        let error = verify_cleartext(message.as_bytes(), &key.keyring(), at(now)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        &text.replace("Test", "Best"),
        SIGNED,
        "does not match the text",
    );
    check(
        &text.replace("end\n", "end\nmore\n"),
        SIGNED,
        "does not match the text",
    );
    check(
        &text.replace("\n\nend", "\nend"),
        SIGNED,
        "does not match the text",
    );
    check(&text, SIGNED + 3_600, "the signature of key");
    check(
        &text,
        CREATED + 30 * 86_400,
        "which expired on 2026-01-31T00:00:00Z",
    );
    let foreign = String::from_utf8(other.sign(TEXT, SIGNED, 0)).unwrap();
    check(
        &foreign,
        SIGNED,
        &format!("signed by {}", other.fingerprint()),
    );
    let backdated = String::from_utf8(key.sign(TEXT, CREATED - 1, 0)).unwrap();
    check(&backdated, SIGNED, "does not match the text");
}

#[test]
fn a_key_of_ours_must_not_be_wrong_next_to_good_ones() {
    let (ours, theirs) = (TestKey::new(1, CREATED, 0), TestKey::new(2, CREATED, 0));
    let keys = [ours.export(), theirs.export()].concat();
    let both = Keyring::parse(&keys).unwrap();
    let packets = |message: Vec<u8>| Cleartext::parse(&message).unwrap().signatures;
    let joined = |a: Vec<u8>, b: Vec<u8>| {
        let signatures = STANDARD.encode([packets(a), packets(b)].concat());
        let text = String::from_utf8(ours.sign(TEXT, SIGNED, 0)).unwrap();
        let start = text.find("-----BEGIN PGP SIGNATURE").unwrap();
        let head = &text[..start];
        format!(
            "{head}-----BEGIN PGP SIGNATURE-----\n\n{signatures}\n-----END PGP SIGNATURE-----\n"
        )
    };
    let good = joined(ours.sign(TEXT, SIGNED, 0), theirs.sign(TEXT, SIGNED, 0));
    assert_eq!(verify(good.as_bytes(), &both).unwrap().signers.len(), 2);
    assert_eq!(
        verify(good.as_bytes(), &ours.keyring())
            .unwrap()
            .signers
            .len(),
        1
    );
    let mixed = joined(
        ours.sign(TEXT, SIGNED, 0),
        theirs.sign("other\n", SIGNED, 0),
    );
    assert_eq!(
        verify(mixed.as_bytes(), &both),
        Err(SignatureError::Wrong(theirs.fingerprint()))
    );
}

#[test]
fn messages_without_a_signature_are_refused() {
    let key = TestKey::new(1, CREATED, 0);
    let text = String::from_utf8(key.sign(TEXT, SIGNED, 0)).unwrap();
    let check = |message: &str, expected: &str| {
        let error = verify(message.as_bytes(), &key.keyring()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("", "does not begin");
    check(TEXT, "does not begin");
    check(&format!("unsigned\n{text}"), "does not begin");
    check(&format!("{text}unsigned\n"), "after the signature");
    check(
        &text.replace("Hash: SHA512", "Origin: Evil"),
        "unknown line before the text",
    );
    check(&text.replace("- - dashed", "-dashed"), "begins with a dash");
    check(
        &text.replace("-----BEGIN PGP SIGNATURE-----", ""),
        "begins with a dash",
    );
    check(
        &text.replace("-----END PGP SIGNATURE-----", ""),
        "cut short",
    );
    let start = text.find("SIGNATURE-----\n\n").unwrap() + 16;
    check(
        &format!("{}!{}", &text[..start], &text[start + 1..]),
        "not base64",
    );
    let empty = format!("{}-----END PGP SIGNATURE-----\n", &text[..start]);
    check(&empty, "no key at all");
    assert!(verify(b"\xff", &key.keyring()).is_err());
}

#[test]
fn malformed_keyrings_are_refused() {
    let whole = TestKey::new(1, CREATED, 0).export();
    for end in 1..whole.len() {
        // Cut between two packets it is a shorter keyring, else an error.
        if let Ok(keyring) = Keyring::parse(&whole[..end]) {
            assert_eq!(keyring.keys.len(), 1);
        }
    }
    assert!(matches!(
        Keyring::parse(b""),
        Err(SignatureError::Keyring(_))
    ));
    assert!(matches!(
        Keyring::parse(b"not a keyring"),
        Err(SignatureError::Keyring(_))
    ));
}
