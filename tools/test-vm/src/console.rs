//! The guest's serial console: a file that the emulator writes, followed line by
//! line, with what the emulator had cost when each line appeared.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// A line of the console, and when it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The text, without control sequences.
    pub text: String,
    /// Processor seconds of the emulator up to here.
    pub cpu: f64,
    /// Seconds on the clock since power-on.
    pub wall: f64,
}

/// Cuts what a terminal would be sent into lines of plain text.
///
/// Bytes may come in any portions: a control sequence or a character may be torn
/// between two of them.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    line: Vec<u8>,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Started,
    /// After `ESC [`: parameters, then one final byte.
    Control,
    /// After `ESC ]`: text up to BEL or `ESC \`.
    Text,
}

impl LineCutter {
    /// Takes in `bytes` and calls `sink` with each line that is complete.
    pub(crate) fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(String)) {
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::None | Escape::Started, 0x1b) => Escape::Started,
                (Escape::None, b'\n') => {
                    sink(self.take());
                    Escape::None
                }
                (Escape::None, _) => {
                    if byte == b'\t' || byte >= b' ' {
                        self.line.push(byte);
                    }
                    Escape::None
                }
                (Escape::Started, b'[') => Escape::Control,
                (Escape::Started, b']') => Escape::Text,
                (Escape::Started, _) => Escape::None,
                (Escape::Control, b'@'..=b'~') => Escape::None,
                // A line end inside a sequence means that the sequence was cut off.
                (Escape::Control, b'\n') => {
                    sink(self.take());
                    Escape::None
                }
                (Escape::Control, _) => Escape::Control,
                (Escape::Text, 0x07) => Escape::None,
                (Escape::Text, 0x1b) => Escape::Started,
                (Escape::Text, _) => Escape::Text,
            };
        }
    }

    /// What has come of the line that is not complete yet.
    pub(crate) fn partial(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// Ends the current line.
    pub(crate) fn take(&mut self) -> String {
        let text = self.partial();
        self.line.clear();
        text
    }
}

/// Reads what is added to the console's file.
#[derive(Debug)]
pub(crate) struct Follower {
    file: File,
    cutter: LineCutter,
}

impl Follower {
    /// Follows the file from its present end on.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            cutter: LineCutter::default(),
        })
    }

    /// Calls `sink` with each line completed since the last call. True when
    /// anything came at all.
    pub(crate) fn poll(&mut self, mut sink: impl FnMut(String)) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let mut any = false;
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(any),
                length => {
                    any = true;
                    self.cutter.push(&buffer[..length], &mut sink);
                }
            }
        }
    }

    pub(crate) fn partial(&self) -> String {
        self.cutter.partial()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(portions: &[&[u8]]) -> (Vec<String>, String) {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        for portion in portions {
            cutter.push(portion, |line| lines.push(line));
        }
        (lines, cutter.partial())
    }

    #[test]
    fn cuts_lines_and_drops_control_sequences() {
        let check = |input: &[u8], lines: &[&str], partial: &str| {
            let (found, rest) = cut(&[input]);
            assert_eq!(
                (
                    found.iter().map(String::as_str).collect::<Vec<_>>(),
                    rest.as_str()
                ),
                (lines.to_vec(), partial)
            );
        };
        check(b"one\r\ntwo\n", &["one", "two"], "");
        check(b"half", &[], "half");
        check(b"\x1b[2J\x1b[01;01Hboot\n", &["boot"], "");
        check(
            b"[\x1b[0;32m  OK  \x1b[0m] Started\n",
            &["[  OK  ] Started"],
            "",
        );
        check(b"\x1b]0;title\x07text\n", &["text"], "");
        check(b"\x1b]0;title\x1b\\text\n", &["text"], "");
        check(b"\x1b[12\nnext\n", &["", "next"], "");
        check(b"\x1b=\x1b\x1b[mx", &[], "x");
        check("h\u{e9}\n".as_bytes(), &["h\u{e9}"], "");
        check(b"\xff\n", &["\u{fffd}"], "");
        check(b"\x00\x07a\n", &["a"], "");
    }

    proptest! {
        #[test]
        fn portions_make_no_difference(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'\n')], 0..200), at in 0..200usize) {
            let at = at.min(bytes.len());
            prop_assert_eq!(cut(&[&bytes]), cut(&[&bytes[..at], &bytes[at..]]));
        }
    }
}
