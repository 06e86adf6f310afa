//! The environment that VMware hands to a virtual machine: an XML document
//! (OVF Environment, DSP0243) of which one property is wanted.
//!
//! No XML library: attributes of one element are looked for, in a document that
//! a hypervisor writes. Namespaces are passed over, whatever prefix they have.

use anyhow::{Result, bail};

/// The value of the property `key`: of
/// `<Property oe:key="user-data" oe:value="…"/>`. `None` if there is none.
pub fn property(document: &str, key: &str) -> Result<Option<String>> {
    let mut rest = document;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let (skipped, end) = if rest.starts_with("<!--") {
            (true, "-->")
        } else if rest.starts_with("<![CDATA[") {
            (true, "]]>")
        } else {
            (false, ">")
        };
        let Some(length) = (if skipped {
            rest.find(end)
        } else {
            end_of_tag(rest)
        }) else {
            bail!("the OVF environment is not XML: something is not closed");
        };
        let tag = &rest[1..length];
        rest = &rest[length + end.len()..];
        if skipped {
            continue;
        }
        let name_end = tag
            .find(|c: char| c.is_ascii_whitespace() || c == '/')
            .unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(name_end);
        if local(name) != "Property" {
            continue;
        }
        let attributes = parse_attributes(attributes)?;
        let attribute = |wanted: &str| {
            let found = attributes.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value)
        };
        if attribute("key").map(String::as_str) == Some(key) {
            return Ok(attribute("value").cloned());
        }
    }
    Ok(None)
}

/// Where a tag ends: at the first `>` outside quotes.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    tag.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        None
    })
}

/// A name without the prefix of its namespace.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn parse_attributes(text: &str) -> Result<Vec<(&str, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches(['/', ' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            bail!("the OVF environment is not XML: an attribute has no value");
        };
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let closed = quote.and_then(|quote| after[1..].split_once(quote));
        let Some((value, after)) = closed else {
            bail!("the OVF environment is not XML: a value is not in quotes");
        };
        found.push((local(name.trim()), unescape(value)?));
        rest = after.trim_start();
    }
    Ok(found)
}

fn unescape(text: &str) -> Result<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let Some((name, after)) = after.split_once(';') else {
            bail!("the OVF environment is not XML: a reference is not closed");
        };
        let character = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            number => match (number.strip_prefix("#x"), number.strip_prefix('#')) {
                (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
                (None, Some(digits)) => digits.parse().ok(),
                (None, None) => None,
            }
            .and_then(char::from_u32),
        };
        let Some(character) = character else {
            bail!("the OVF environment is not XML: an unknown reference");
        };
        plain.push(character);
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use proptest::prelude::*;

    const ENVIRONMENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- <Property oe:key="user-data" oe:value="commented out"/> -->
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"
    xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
  <PlatformSection><Kind>VMware > ESXi</Kind></PlatformSection>
  <PropertySection>
    <Property oe:key="hostname" oe:value="a > b"/>
    <Property oe:value = 'W3NldHR&#10;pbmdzXQ=&#x3d;' oe:key="user-data" />
    <Property oe:key="empty"/>
  </PropertySection>
</Environment>"#;

    #[test]
    fn properties_are_found() {
        for (key, expected) in [
            ("user-data", Some("W3NldHR\npbmdzXQ==")),
            ("hostname", Some("a > b")),
            ("empty", None),
            ("nothing", None),
        ] {
            let found = property(ENVIRONMENT, key).expect("an environment");
            assert_eq!(found.as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn what_is_not_xml_is_refused() {
        for document in [
            "<Property key='x'",
            "<!-- ",
            "<Property key>",
            "<Property key=x value='y'>",
            "<Property key='x>",
            "<Property key='&nothing;'>",
            "<Property key='&#1114112;'>",
            "<Property key='&amp'>",
        ] {
            assert!(property(document, "x").is_err(), "{document}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "(<!--|-->|<|>|<Property |key=|'x'|\"|value='y'|&amp;|&#x41;|&|/| |é|x){0,30}"
        ) {
            properties::ovf(text.as_bytes());
        }
    }
}
