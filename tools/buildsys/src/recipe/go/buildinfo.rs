//! What a Go program says about how it was built: the release of Go and the modules
//! that are linked into it.

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};

/// What a program was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The release of Go, without the letters `go`.
    pub go: String,
    /// The modules, and their versions.
    pub modules: Vec<(String, String)>,
}

/// What the linker puts before the two strings, and how many bytes all of that are.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER: usize = 32;
/// In the byte of flags: the strings follow the header, each after its length.
const INLINE: u8 = 2;
/// Strange bytes before and after the list of modules.
const MARK: usize = 16;

impl BuildInfo {
    /// Reads it out of an ELF file, `None` if that is no Go program.
    pub fn read(program: &[u8]) -> Result<Option<Self>> {
        let file = object::File::parse(program).context("it is no valid ELF file")?;
        let Some(section) = file.section_by_name(".go.buildinfo") else {
            return Ok(None);
        };
        let data = section.data().context("cannot read .go.buildinfo")?;
        Self::parse(data)
            .context("its .go.buildinfo is not in the form that Go writes since 1.18")
            .map(Some)
    }

    fn parse(data: &[u8]) -> Result<Self> {
        ensure!(data.starts_with(MAGIC), "the magic bytes are missing");
        let flags = *data.get(MAGIC.len() + 1).context("it is cut short")?;
        ensure!(flags & INLINE != 0, "the strings are not in it");
        let mut rest = data.get(HEADER..).context("it is cut short")?;
        let version = string(&mut rest)?;
        let list = string(&mut rest)?;
        let version = std::str::from_utf8(version).context("the version is not UTF-8")?;
        // Experiments that were on stand behind the release.
        let version = version.split_whitespace().next().unwrap_or_default();
        let list = list.get(MARK..list.len().saturating_sub(MARK));
        let list = std::str::from_utf8(list.unwrap_or_default())
            .context("the list of modules is not UTF-8")?;
        Ok(Self {
            go: version.trim_start_matches("go").to_string(),
            modules: modules(list),
        })
    }
}

/// Takes a string off: its length, seven bits a byte, and its bytes.
fn string<'a>(data: &mut &'a [u8]) -> Result<&'a [u8]> {
    let mut length = 0usize;
    for (index, byte) in data.iter().copied().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let end = (index + 1).saturating_add(length);
            let text = data.get(index + 1..end).context("it is cut short")?;
            *data = &data[end..];
            return Ok(text);
        }
    }
    anyhow::bail!("the length of a string does not end")
}

fn modules(list: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            // The module that has the main package; without a version it was no download.
            ["mod", _, "(devel)", ..] => {}
            ["mod" | "dep", module, version, ..] => found.push((module.into(), version.into())),
            // What the module before it was replaced by.
            ["=>", module, version, ..] => {
                found.pop();
                found.push((module.into(), version.into()));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: &str, list: &str) -> Vec<u8> {
        let mut data = [MAGIC, &[8, INLINE]].concat();
        data.resize(HEADER, 0);
        let marked = format!("{0}{list}{0}", "0123456789abcdef");
        for text in [version, &marked] {
            let mut length = text.len();
            while length >= 0x80 {
                data.push(length as u8 & 0x7f | 0x80);
                length >>= 7;
            }
            data.push(length as u8);
            data.extend(text.as_bytes());
        }
        data
    }

    #[test]
    fn modules_are_listed_as_they_were_replaced() {
        let list = "path\texample.org/tool\n\
            mod\texample.org/tool\tv1.2.3\th1:abc=\n\
            dep\texample.org/old\tv0.0.0\n\
            =>\texample.org/new\tv0.5.0\th1:def=\n\
            build\tCGO_ENABLED=0\n";
        let info = BuildInfo::parse(&sample("go1.26.5 X:greenteagc", list)).unwrap();
        let expected = [
            ("example.org/tool", "v1.2.3"),
            ("example.org/new", "v0.5.0"),
        ];
        assert_eq!(modules("mod\tbulkhead/sample\t(devel)\t\n"), []);
        assert_eq!(info.go, "1.26.5");
        assert_eq!(
            info.modules,
            expected.map(|(module, version)| (module.to_string(), version.to_string()))
        );
    }

    #[test]
    fn damaged_ones_are_refused() {
        let good = sample("go1.26.5", "dep\ta\tv1\n");
        for end in 0..good.len() {
            assert!(BuildInfo::parse(&good[..end]).is_err(), "{end}");
        }
        let mut other = good.clone();
        other[HEADER..HEADER + 5].fill(0xff);
        assert!(BuildInfo::parse(&other).is_err());
    }

    #[test]
    fn other_programs_have_none() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(BuildInfo::read(&own).unwrap(), None);
        assert!(BuildInfo::read(b"text").is_err());
    }
}
