//! As much of DER as certificates and signatures need.

use anyhow::{Context, Result, bail};

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
pub const UTF8_STRING: u8 = 0x0c;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// Tag of a context-specific element that holds others.
pub const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Tag of a context-specific element that holds bytes.
pub const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// An element of the parts, one after the other.
pub fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length as u8),
        _ => {
            let digits = length.to_be_bytes();
            let digits = &digits[length.leading_zeros() as usize / 8..];
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend(digits);
        }
    }
    parts.iter().for_each(|part| bytes.extend(*part));
    bytes
}

/// An object identifier.
pub fn oid(numbers: &[u32]) -> Vec<u8> {
    let mut content = vec![(numbers[0] * 40 + numbers[1]) as u8];
    for number in &numbers[2..] {
        let mut digits = vec![(number & 0x7f) as u8];
        let mut rest = number >> 7;
        while rest > 0 {
            digits.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        content.extend(digits.iter().rev());
    }
    element(OBJECT_IDENTIFIER, &[&content])
}

/// A positive integer from its big-endian bytes.
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(bytes.len().saturating_sub(1));
    let bytes = &bytes[start..];
    let sign: &[u8] = if bytes.first().is_none_or(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    element(INTEGER, &[sign, bytes])
}

/// An algorithm identifier, with the NULL parameters that RSA and SHA-2 have.
pub fn algorithm(numbers: &[u32]) -> Vec<u8> {
    element(SEQUENCE, &[&oid(numbers), &[0x05, 0x00]])
}

/// An element that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

/// Takes the first element off `bytes`.
pub fn read<'a>(bytes: &mut &'a [u8]) -> Result<Element<'a>> {
    let all = *bytes;
    let (&tag, rest) = all.split_first().context("an element is missing")?;
    let (&first, rest) = rest.split_first().context("a length is missing")?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest
                .split_at_checked(usize::from(first & 0x7f))
                .context("a length is cut off")?;
            (
                digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
                rest,
            )
        }
        _ => bail!("a length is of a form that is not in use"),
    };
    let (content, rest) = rest
        .split_at_checked(length)
        .context("an element is cut off")?;
    *bytes = rest;
    Ok(Element {
        tag,
        content,
        whole: &all[..all.len() - rest.len()],
    })
}

/// Takes the first element off `bytes`, which must have this tag.
pub fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Result<Element<'a>> {
    let element = read(bytes)?;
    if element.tag != tag {
        bail!(
            "an element has the tag {:#04x} instead of {tag:#04x}",
            element.tag
        );
    }
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        assert_eq!(
            oid(&[1, 2, 840, 113549, 1, 1, 11]),
            [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]
        );
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0]), [2, 1, 0]);
        assert_eq!(element(SEQUENCE, &[&[1], &[2, 3]]), [0x30, 3, 1, 2, 3]);
        assert_eq!(element(OCTET_STRING, &[&[0; 200]])[..3], [4, 0x81, 200]);
        assert_eq!(element(OCTET_STRING, &[&[0; 300]])[..4], [4, 0x82, 1, 44]);
    }

    proptest! {
        #[test]
        fn elements_survive(tag in any::<u8>(), content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut bytes = element(tag, &[&content]);
            bytes.push(9);
            let mut rest = bytes.as_slice();
            let read = read(&mut rest).unwrap();
            prop_assert_eq!(read.tag, tag);
            prop_assert!(read.content == content);
            prop_assert_eq!(read.whole.len() + 1, bytes.len());
            prop_assert_eq!(rest, &[9]);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut rest = bytes.as_slice();
            while read(&mut rest).is_ok() {}
        }
    }
}
