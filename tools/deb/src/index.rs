//! `Packages` indexes: what a suite offers for one architecture.

use crate::Error;
use crate::control::Stanza;
use crate::digest::Sha256Digest;
use crate::version::Version;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::io::{BufRead, BufReader, Read};

/// More than any stanza needs; what is longer is not an index.
const MAX_STANZA: usize = 1 << 20;

/// More than Debian's compressor settings need to be undone.
const XZ_MEMORY: u64 = 256 << 20;

/// One binary package as an index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name of the binary package.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Architecture, `all` where it runs on any.
    pub architecture: String,
    /// Name of the source package that it is built from.
    pub source: String,
    /// What must be there for it to work, as [`crate::relation::parse`] reads it.
    pub depends: String,
    /// What must be there before it is unpacked; the same to us.
    pub pre_depends: String,
    /// Virtual packages that it stands for.
    pub provides: String,
    /// Where its archive lies, relative to the mirror's base.
    pub path: String,
    /// Size of its archive.
    pub size: u64,
    /// Digest of its archive.
    pub sha256: Sha256Digest,
}

impl Package {
    fn from_stanza(stanza: &Stanza<'_>) -> Result<Self, Error> {
        let name = stanza.require("Package")?;
        let field = |field: &'static str| {
            stanza
                .get(field)
                .ok_or_else(|| malformed(format!("{name} has no {field}")))
        };
        let text = |field| stanza.get(field).unwrap_or_default().to_string();
        if !is_package_name(name) {
            return Err(malformed(format!("{name:?} is not the name of a package")));
        }
        let architecture = field("Architecture")?;
        if !is_package_name(architecture) {
            return Err(malformed(format!(
                "{name} has the architecture {architecture:?}"
            )));
        }
        let path = field("Filename")?;
        if !is_plain_path(path) {
            return Err(malformed(format!(
                "the file of {name} is {path:?}, no path in an archive"
            )));
        }
        // "Source: name (version)", left out where it is the package's own name.
        let source = stanza.get("Source").map_or(name, |source| {
            source
                .split_once('(')
                .map_or(source, |(source, _)| source)
                .trim()
        });
        if !is_package_name(source) {
            return Err(malformed(format!("the source of {name} is {source:?}")));
        }
        let because = |why: String| malformed(format!("{name}: {why}"));
        Ok(Self {
            name: name.to_string(),
            version: field("Version")?
                .parse()
                .map_err(|error: crate::version::InvalidVersion| because(error.to_string()))?,
            architecture: architecture.to_string(),
            source: source.to_string(),
            depends: text("Depends"),
            pre_depends: text("Pre-Depends"),
            provides: text("Provides"),
            path: path.to_string(),
            size: field("Size")?
                .parse()
                .map_err(|_| because("its size is not a number".to_string()))?,
            sha256: field("SHA256")?
                .parse()
                .map_err(|error: crate::digest::InvalidDigest| because(error.to_string()))?,
        })
    }
}

/// Packages of an index, one after the other.
pub struct Packages<R> {
    reader: R,
    stanza: Vec<u8>,
    ended: bool,
}

impl<R: BufRead> Packages<R> {
    /// Reads an index that is not compressed.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            stanza: Vec::new(),
            ended: false,
        }
    }

    /// Reads up to the next empty line; `false` at the end of the index.
    fn read_stanza(&mut self) -> Result<bool, Error> {
        self.stanza.clear();
        loop {
            let start = self.stanza.len();
            let room = (MAX_STANZA + 1).saturating_sub(start) as u64;
            let read = (&mut self.reader)
                .take(room)
                .read_until(b'\n', &mut self.stanza)
                .map_err(|source| Error::Read {
                    what: "package index",
                    source,
                })?;
            if self.stanza.len() > MAX_STANZA {
                return Err(malformed(format!(
                    "a stanza is longer than {MAX_STANZA} bytes"
                )));
            }
            if read == 0 {
                return Ok(!self.stanza.is_empty());
            }
            if self.stanza[start..].iter().all(u8::is_ascii_whitespace) {
                self.stanza.truncate(start);
                if start > 0 {
                    return Ok(true);
                }
            }
        }
    }
}

/// Reads an index compressed with xz.
pub fn packages_xz<R: Read>(
    reader: R,
) -> Result<Packages<BufReader<XzDecoder<BufReader<R>>>>, Error> {
    Ok(Packages::new(BufReader::with_capacity(
        1 << 16,
        xz_decoder(reader)?,
    )))
}

/// A decoder whose memory is bounded.
pub(crate) fn xz_decoder<R: Read>(reader: R) -> Result<XzDecoder<BufReader<R>>, Error> {
    let stream =
        Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(|source| Error::Read {
            what: "xz stream",
            source: source.into(),
        })?;
    Ok(XzDecoder::new_stream(BufReader::new(reader), stream))
}

impl<R: BufRead> Iterator for Packages<R> {
    type Item = Result<Package, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = match self.read_stanza() {
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Ok(true) => std::str::from_utf8(&self.stanza)
                .map_err(|_| malformed("it is not UTF-8".to_string()))
                .and_then(Stanza::parse)
                .and_then(|stanza| Package::from_stanza(&stanza)),
            Err(error) => Err(error),
        };
        self.ended = found.is_err();
        Some(found)
    }
}

/// Whether `name` can be a package's name. They begin with two characters of
/// letters and digits, in practice sometimes with one.
pub fn is_package_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')
        })
}

/// Whether `path` is relative and leads nowhere but down, so that it can be
/// joined to an address.
pub fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._+-~:@%=".contains(&b))
}

fn malformed(why: String) -> Error {
    Error::Malformed {
        what: "package index",
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, path: &str) -> String {
        format!(
            "Package: {name}\nSource: src (1.0)\nVersion: 1:2-3\nArchitecture: amd64\n\
             Depends: libc6\nFilename: {path}\nSize: 17\nSHA256: {}\n\n",
            Sha256Digest::of(b"")
        )
    }

    fn read(text: &str) -> Result<Vec<Package>, Error> {
        Packages::new(text.as_bytes()).collect()
    }

    #[test]
    fn packages_are_read() {
        let text = format!(
            "\n{}\n{}",
            index("a", "pool/a.deb"),
            index("b+", "pool/b~1.deb")
        );
        let found = read(&text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].source, "src");
        assert_eq!(found[0].size, 17);
        assert_eq!(found[0].version.as_str(), "1:2-3");
        assert_eq!(found[1].name, "b+");
        assert_eq!(found[1].path, "pool/b~1.deb");
        assert_eq!(
            read(text.trim_end()).unwrap(),
            found,
            "the last line needs no end"
        );
    }

    #[test]
    fn compressed_index_is_read() {
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(index("a", "a.deb").as_bytes(), 1)
            .read_to_end(&mut packed)
            .unwrap();
        assert_eq!(packages_xz(packed.as_slice()).unwrap().count(), 1);
        packed.truncate(packed.len() - 10);
        let last = packages_xz(packed.as_slice()).unwrap().last().unwrap();
        assert!(last.is_err(), "a cut index must not pass for a short one");
    }

    #[test]
    fn malformed_indexes_are_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = index("a", "pool/a.deb");
            assert!(text.contains(from));
            let error = read(&text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("Package: a", "Package: A", "not the name of a package");
        check("pool/", "../", "no path in an archive");
        check("pool/", "/", "no path in an archive");
        check("pool/", "http://x/", "no path in an archive");
        check("Size: 17", "Size: -1", "not a number");
        check("SHA256: e3", "SHA256: e", "not a SHA-256 digest");
        check("Version: 1", "Version: _", "not a version");
        check("Architecture: amd64\n", "", "no Architecture");
        check("Source: src", "Source: a b", "the source of a");
        let endless = "x".repeat(MAX_STANZA + 1);
        assert!(
            read(&endless)
                .unwrap_err()
                .to_string()
                .contains("longer than")
        );
        assert!(
            Packages::new(&b"Package: \xff\n"[..])
                .next()
                .unwrap()
                .is_err()
        );
    }
}
