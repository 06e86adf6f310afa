//! What is wrong with a `net.toml`.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line of the text, counted from 1.
    pub line: usize,
    /// Which key; empty for the text as a whole.
    pub key: String,
    /// What, and how to put it right.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

/// Everything that is wrong, in the order of the lines. As an error it is never
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<Fault>,
    untold: usize,
}

impl Faults {
    /// How many are told one by one.
    pub const LIMIT: usize = 32;

    /// So many that more need not be looked at closely.
    const ENOUGH: usize = 500;

    /// Notes a fault of the line that `line` finds.
    pub(crate) fn add_at(&mut self, line: impl FnOnce() -> usize, key: &str, reason: String) {
        if self.list.len() < Self::ENOUGH {
            self.add(line(), key, reason);
        } else {
            self.untold += 1;
        }
    }

    pub(crate) fn add(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.list.push(Fault {
            line,
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    /// In the order of the lines, each once, and no more than are told.
    pub(crate) fn sorted(mut self) -> Self {
        self.list.sort_by_key(|fault| fault.line);
        self.list.dedup();
        self.untold += self.list.len().saturating_sub(Self::LIMIT);
        self.list.truncate(Self::LIMIT);
        self
    }

    /// True if nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are, told or not.
    pub fn len(&self) -> usize {
        self.list.len() + self.untold
    }

    /// Those that are told one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.list.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{fault}")?;
        }
        if self.untold > 0 {
            write!(f, "\nand {} more faults", self.untold)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
