//! The output of `systemctl show`: blocks of `KEY=value`, one per unit.

use std::collections::BTreeMap;

/// Splits the output into blocks.
pub struct Blocks;

/// One unit's properties, or the manager's.
#[derive(Debug, Default)]
pub struct Block(BTreeMap<String, String>);

impl Blocks {
    /// Reads all blocks; lines that are no property are passed over.
    pub fn parse(text: &str) -> Vec<Block> {
        text.split("\n\n")
            .map(|block| {
                let pairs = block.lines().filter_map(|line| line.split_once('='));
                Block(
                    pairs
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .collect(),
                )
            })
            .filter(|block| !block.0.is_empty())
            .collect()
    }
}

impl Block {
    /// A property; empty if it is missing.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// A time stamp in microseconds. systemd says 0 for "never".
    pub fn time(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok().filter(|time| *time != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_separated_by_empty_lines() {
        let blocks = Blocks::parse("Id=a\nT=5\nV=x=y\n\nId=b\nT=0\n\nrubbish\n");
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].get("Id"), blocks[0].time("T")), ("a", Some(5)));
        assert_eq!((blocks[0].get("V"), blocks[0].get("none")), ("x=y", ""));
        assert_eq!((blocks[1].get("Id"), blocks[1].time("T")), ("b", None));
    }
}
