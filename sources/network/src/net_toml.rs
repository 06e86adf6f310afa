//! Reads `net.toml`, in the versions 1 to 3 of its format, and finds everything
//! that is wrong with it.
//!
//! [`interface`] reads the tables of the interfaces, [`rules`] holds what
//! concerns several of them.

mod interface;
mod node;
mod rules;

use toml::de::DeTable;

use crate::fault::Faults;
use crate::model::Configuration;
use node::{Reader, get, line_at};

/// Longer texts are refused.
pub const SIZE_LIMIT: usize = 64 * 1024;

/// The newest version of the format.
const NEWEST: u8 = 3;

/// Reads the bytes of a `net.toml`. `None` if they say nothing, which means that
/// nobody has configured the network.
pub fn parse(bytes: &[u8]) -> Result<Option<Configuration>, Faults> {
    let whole = |line, reason: String| {
        let mut faults = Faults::default();
        faults.add(line, "", reason);
        Err(faults)
    };
    if bytes.len() > SIZE_LIMIT {
        let length = bytes.len();
        let reason = format!("the text has {length} bytes; at most {SIZE_LIMIT} are taken");
        return whole(1, reason);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            return whole(line, "not UTF-8 text".to_owned());
        }
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut faults = Faults::default();
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let reason = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
            faults.add_at(|| line_at(text, offset), "", reason);
        }
        return Err(faults.sorted());
    }
    let mut reader = Reader::new(text, NEWEST);
    let interfaces = document(&mut reader, table.get_ref());
    if reader.faults.is_empty() {
        Ok(Some(Configuration { interfaces }))
    } else {
        Err(reader.faults.sorted())
    }
}

fn document<'d>(reader: &mut Reader<'d>, table: &'d DeTable<'d>) -> Vec<crate::model::Interface> {
    let entries = reader.entries(table, "");
    match get(&entries, "version") {
        Some(node) => {
            if let Some(version) = reader.number(node, 1..=NEWEST.into()) {
                reader.version = version as u8;
            }
        }
        None => {
            let reason = format!("is missing; the newest is version = {NEWEST}");
            reader.faults.add(1, "version", reason);
        }
    }
    let tables = entries.into_iter().filter(|entry| entry.name != "version");
    let drafts: Vec<_> = tables
        .filter_map(|node| interface::read(reader, node))
        .collect();
    if drafts.is_empty() && reader.faults.is_empty() {
        let reason = "no interface is configured; an empty text means that none shall be";
        reader.faults.add(1, "", reason);
    }
    rules::check(reader, &drafts);
    drafts.into_iter().map(|draft| draft.interface).collect()
}

#[cfg(test)]
mod tests;
