//! Control files: stanzas of fields (Debian Policy, section 5.1).

use crate::Error;

/// More fields than any stanza has; looking for one takes time by their number.
const MAX_FIELDS: usize = 256;

/// One stanza: fields in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// Reads one stanza, which must not contain an empty line.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        let mut fields: Vec<(&'a str, &'a str)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let field_end = end_of_field(rest);
            let (field, following) = rest.split_at(field_end);
            rest = following;
            if field.starts_with('#') {
                continue;
            }
            let (name, value) = field.split_once(':').ok_or_else(|| {
                malformed(format!("{:?} is not a field", shorten(field.trim_end())))
            })?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(malformed(format!(
                    "{:?} is not the name of a field",
                    shorten(name)
                )));
            }
            if fields
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                return Err(malformed(format!("the field {name} is there twice")));
            }
            if fields.len() == MAX_FIELDS {
                return Err(malformed(format!(
                    "a stanza has more than {MAX_FIELDS} fields"
                )));
            }
            fields.push((name, value.trim()));
        }
        Ok(Self { fields })
    }

    /// Value of a field, without the space around it; lines that continue it
    /// are part of it.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// Value of a field that must be there.
    pub fn require(&self, name: &str) -> Result<&'a str, Error> {
        self.get(name)
            .ok_or_else(|| malformed(format!("the field {name} is missing")))
    }

    /// All fields, in order.
    pub fn fields(&self) -> &[(&'a str, &'a str)] {
        &self.fields
    }
}

/// All stanzas of a text.
pub fn stanzas(text: &str) -> Result<Vec<Stanza<'_>>, Error> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            push_stanza(&text[start..position], &mut found)?;
            start = position + line.len();
        }
        position += line.len();
    }
    push_stanza(&text[start..], &mut found)?;
    Ok(found)
}

fn push_stanza<'a>(text: &'a str, found: &mut Vec<Stanza<'a>>) -> Result<(), Error> {
    let stanza = Stanza::parse(text)?;
    if !stanza.fields.is_empty() {
        found.push(stanza);
    }
    Ok(())
}

/// Where the field that `text` begins with ends: lines that start with a blank
/// belong to it.
fn end_of_field(text: &str) -> usize {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if end > 0 && !line.starts_with([' ', '\t']) {
            break;
        }
        end += line.len();
    }
    end
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

fn malformed(why: String) -> Error {
    Error::Malformed {
        what: "control file",
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_continuations() {
        let text = "Package: a\nDescription: short\n long one\n .\n more\n# remark\nversion:1\n";
        let stanza = Stanza::parse(text).unwrap();
        assert_eq!(stanza.get("package"), Some("a"));
        assert_eq!(stanza.get("Version"), Some("1"));
        assert_eq!(
            stanza.get("Description"),
            Some("short\n long one\n .\n more")
        );
        assert_eq!(stanza.get("Depends"), None);
        assert!(
            stanza
                .require("Depends")
                .unwrap_err()
                .to_string()
                .contains("Depends is missing")
        );
    }

    #[test]
    fn several_stanzas() {
        let text = "\n\nA: 1\n\n \nA: 2\nB: x\n";
        let found = stanzas(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].fields(), [("A", "2"), ("B", "x")]);
        assert_eq!(stanzas("").unwrap().len(), 0);
    }

    #[test]
    fn malformed_stanzas_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = stanzas(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error}");
        };
        check("no colon\n", "is not a field");
        check(": value\n", "is not the name of a field");
        check("a b: value\n", "is not the name of a field");
        check("A: 1\na: 2\n", "there twice");
    }
}
