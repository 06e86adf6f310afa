//! The BPF Type Format, as far as finding a function takes it.

use anyhow::{Context, Result, ensure};

const MAGIC: u32 = 0xeb9f;
/// `BTF_KIND_FUNC`.
const FUNCTION: u32 = 12;

/// The number of the function called `name`.
pub(crate) fn function(bytes: &[u8], name: &str) -> Result<Option<u32>> {
    ensure!(
        word(bytes, 0)? & 0xffff == MAGIC,
        "it does not start as a description of types does"
    );
    let header = word(bytes, 4)? as usize;
    let section = |offset: usize| -> Result<&[u8]> {
        let start = header + word(bytes, offset)? as usize;
        let end = start + word(bytes, offset + 4)? as usize;
        bytes.get(start..end).context("a section is cut off")
    };
    let (types, strings) = (section(8)?, section(16)?);
    let mut position = 0;
    // Number 0 is no type.
    let mut number = 1;
    while position < types.len() {
        let (kind, size) = kind_and_size(types, position)?;
        if kind == FUNCTION && string(strings, word(types, position)?)? == name.as_bytes() {
            return Ok(Some(number));
        }
        position += size;
        number += 1;
    }
    Ok(None)
}

/// The kind of the type at `position`, and how many bytes are its.
fn kind_and_size(types: &[u8], position: usize) -> Result<(u32, usize)> {
    let info = word(types, position + 4)?;
    let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
    let more = match kind {
        1 | 14 | 17 => 4,              // integer, variable, tag of a declaration
        3 => 12,                       // array
        4 | 5 | 15 | 19 => 12 * count, // structure, union, section, long enumeration
        6 | 13 => 8 * count,           // enumeration, function's type
        2 | 7..=12 | 16 | 18 => 0,     // pointers, names, functions, floats, tags of types
        _ => anyhow::bail!("there is a type of the unknown kind {kind}"),
    };
    Ok((kind, 12 + more))
}

fn word(bytes: &[u8], position: usize) -> Result<u32> {
    let word = bytes.get(position..position + 4).context("it is cut off")?;
    Ok(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn string(strings: &[u8], offset: u32) -> Result<&[u8]> {
    let rest = strings.get(offset as usize..);
    let rest = rest.context("a name lies outside of the names")?;
    Ok(rest.split(|&byte| byte == 0).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description with an integer, the function's type and the function.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0hook\0";
        let types: [u32; 12] = [
            1,
            1 << 24,
            4,
            32, // number 1: an integer called "int"
            0,
            13 << 24 | 1,
            1,
            0,
            1, // number 2: takes one
            5,
            12 << 24,
            2, // number 3: the function called "hook"
        ];
        let header = [MAGIC | 1 << 16, 24, 0, 48, 48, strings.len() as u32];
        let words = header.iter().chain(&types);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(strings);
        bytes
    }

    #[test]
    fn finds_functions_by_name() {
        let bytes = sample();
        assert_eq!(function(&bytes, "hook").unwrap(), Some(3));
        assert_eq!(function(&bytes, "int").unwrap(), None);
        assert_eq!(function(&bytes, "hoo").unwrap(), None);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(function(&bytes[..length], "none").is_err(), "{length}");
        }
        assert!(function(b"not a description of types", "hook").is_err());
    }
}
