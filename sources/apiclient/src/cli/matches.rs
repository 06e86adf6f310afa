//! The words of a subcommand, sorted by its flags.

use super::{Flag, Operands, Subcommand, Takes, unknown};
use std::ffi::{OsStr, OsString};

/// The words of a subcommand, sorted by its flags.
#[derive(Debug, Default)]
pub struct Matches {
    given: Vec<(Flag, Vec<OsString>)>,
    operands: Vec<OsString>,
}

impl Matches {
    /// Sorts words by the flags of a subcommand.
    pub fn new(subcommand: &Subcommand, words: &[&OsStr]) -> Result<Self, String> {
        let mut matches = Self::default();
        let mut words = words.iter().copied().peekable();
        let mut flags_end = false;
        while let Some(word) = words.next() {
            if let Operands::ThenVerbatim(_) = subcommand.operands
                && matches.operands.len() >= 2
            {
                matches.operands.push(word.into());
            } else if word == "--" && !flags_end {
                flags_end = true;
            } else if flags_end || !looks_like_a_flag(word) {
                // Before the command, a second `--` means no more than the first.
                let verbatim = matches!(subcommand.operands, Operands::ThenVerbatim(_));
                if !(verbatim && word == "--") {
                    matches.add_operand(subcommand, word)?;
                }
            } else {
                let flag = subcommand.flags.iter().find(|flag| flag.is(word));
                let flag = *flag.ok_or_else(|| {
                    let known = subcommand.flags.iter().flat_map(|flag| flag.names);
                    let known = known.copied().filter(|name| name.len() > 2).collect();
                    unknown("flag", word, known)
                })?;
                let mut values = Vec::new();
                match flag.takes {
                    Takes::Nothing => {}
                    Takes::One(_) => {
                        let value = words
                            .next()
                            .ok_or_else(|| format!("{} needs a value", word.display()))?;
                        values.push(value.into());
                    }
                    Takes::Many(_) => {
                        while let Some(value) = words.next_if(|word| !looks_like_a_flag(word)) {
                            values.push(value.into());
                        }
                    }
                }
                matches.given.push((flag, values));
            }
        }
        Ok(matches)
    }

    fn add_operand(&mut self, subcommand: &Subcommand, word: &OsStr) -> Result<(), String> {
        let most = match subcommand.operands {
            Operands::None => 0,
            Operands::One(_) => 1,
            Operands::Many(_) | Operands::ThenVerbatim(_) => usize::MAX,
        };
        if self.operands.len() >= most {
            return Err(format!("unexpected word {:?}", word.to_string_lossy()));
        }
        self.operands.push(word.into());
        Ok(())
    }

    fn values(&self, flag: &Flag) -> Vec<&Vec<OsString>> {
        let given = self.given.iter();
        given
            .filter(|(given, _)| given.names == flag.names)
            .map(|(_, values)| values)
            .collect()
    }

    /// Whether a flag is given.
    pub fn has(&self, flag: &Flag) -> bool {
        !self.values(flag).is_empty()
    }

    /// The value of a flag; the last one if it is given several times.
    pub fn last(&self, flag: &Flag) -> Result<Option<String>, String> {
        let last = self.values(flag).last().and_then(|values| values.first());
        last.map(|value| text(value)).transpose()
    }

    /// The value of a flag that may be given once.
    pub fn once(&self, flag: &Flag) -> Result<Option<String>, String> {
        if self.values(flag).len() > 1 {
            let name = flag.names.last().copied().unwrap_or_default();
            return Err(format!("{name} is given twice"));
        }
        self.last(flag)
    }

    /// All values of a flag; `None` if it is not given.
    pub fn all(&self, flag: &Flag) -> Result<Option<Vec<String>>, String> {
        if !self.has(flag) {
            return Ok(None);
        }
        let values = self.values(flag).into_iter().flatten();
        values
            .map(|value| text(value))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The words that belong to no flag.
    pub fn operands(&self) -> Result<Vec<String>, String> {
        self.operands.iter().map(|word| text(word)).collect()
    }

    /// The same, byte by byte.
    pub fn raw_operands(&self) -> &[OsString] {
        &self.operands
    }
}

/// `-` by itself stands for standard input.
fn looks_like_a_flag(word: &OsStr) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

fn text(word: &OsStr) -> Result<String, String> {
    let text = word.to_str().map(str::to_string);
    text.ok_or_else(|| format!("{:?} is not UTF-8", word.to_string_lossy()))
}

/// For tests of subcommands: what one makes of a line.
#[cfg(test)]
pub(crate) fn matches_of(subcommand: &Subcommand, line: &str) -> Result<Matches, String> {
    let words: Vec<&OsStr> = line.split_whitespace().map(OsStr::new).collect();
    Matches::new(subcommand, &words)
}
