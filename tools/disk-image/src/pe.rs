//! The parts of a PE32+ file that joining and signing need.

use anyhow::{Context, Result, bail};
use boot_slots::verity::BLOCK_SIZE;

const SECTION_HEADER_SIZE: usize = 40;
/// Offsets in the optional header of PE32+.
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const INITIALIZED_DATA_SIZE: usize = 8;
const IMAGE_SIZE: usize = 56;
const HEADERS_SIZE: usize = 60;
const CHECKSUM: usize = 64;
const CERTIFICATE_TABLE: usize = 144;

/// Readable, initialised data.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Where things lie in a PE32+ file, all of it checked to lie within the file.
#[derive(Clone, Debug)]
pub struct Pe {
    coff_at: usize,
    optional_at: usize,
    sections_at: usize,
    /// The sections in the order of their headers.
    pub sections: Vec<Section>,
    /// Size of all headers.
    pub headers_size: usize,
    /// Size in memory.
    pub image_size: u32,
    section_alignment: u32,
    file_alignment: u32,
    /// Offset and size of the signatures; both 0 when there are none.
    pub signatures: (usize, usize),
}

/// A section header.
#[derive(Clone, Debug)]
pub struct Section {
    /// Name, without the zeros after it.
    pub name: Vec<u8>,
    /// Address in memory.
    pub address: u32,
    /// Size in memory.
    pub size: u32,
    /// Offset in the file.
    pub raw_offset: usize,
    /// Size in the file.
    pub raw_size: usize,
}

/// A section to be added.
pub struct NewSection<'a> {
    /// Name of at most eight bytes.
    pub name: &'static str,
    /// Content.
    pub content: &'a [u8],
    /// Size in memory, if larger than the content.
    pub memory_size: u32,
}

impl Pe {
    /// Reads the headers of `file`.
    pub fn parse(file: &[u8]) -> Result<Self> {
        if file.get(..2) != Some(b"MZ") {
            bail!("it is no PE file");
        }
        let pe_at = u32_at(file, 60)? as usize;
        if bytes_at(file, pe_at, 4)? != b"PE\0\0" {
            bail!("it is no PE file");
        }
        let coff_at = pe_at + 4;
        let section_count = usize::from(u16_at(file, coff_at + 2)?);
        let optional_at = coff_at + 20;
        let optional_size = usize::from(u16_at(file, coff_at + 16)?);
        if u16_at(file, optional_at)? != 0x20b || optional_size < CERTIFICATE_TABLE + 8 {
            bail!("it is not a 64-bit PE file");
        }
        let sections_at = optional_at + optional_size;
        let headers_size = u32_at(file, optional_at + HEADERS_SIZE)? as usize;
        let table_end = sections_at + section_count * SECTION_HEADER_SIZE;
        if headers_size < table_end || headers_size > file.len() {
            bail!("its headers do not fit into the size that they say they have");
        }
        let sections = (0..section_count)
            .map(|number| Section::parse(file, sections_at + number * SECTION_HEADER_SIZE))
            .collect::<Result<_>>()?;
        let signatures = (
            u32_at(file, optional_at + CERTIFICATE_TABLE)? as usize,
            u32_at(file, optional_at + CERTIFICATE_TABLE + 4)? as usize,
        );
        if signatures != (0, 0) && signatures.0.checked_add(signatures.1) != Some(file.len()) {
            bail!("its signatures do not lie at its end");
        }
        let alignment = |at| -> Result<u32> {
            let value = u32_at(file, optional_at + at)?;
            if !value.is_power_of_two() || value > 1 << 24 {
                bail!("its alignment is not a power of two");
            }
            Ok(value)
        };
        Ok(Self {
            coff_at,
            optional_at,
            sections_at,
            sections,
            headers_size,
            image_size: u32_at(file, optional_at + IMAGE_SIZE)?,
            section_alignment: alignment(SECTION_ALIGNMENT)?,
            file_alignment: alignment(FILE_ALIGNMENT)?,
            signatures,
        })
    }

    /// Offset of the checksum, which signatures leave out.
    pub fn checksum_at(&self) -> usize {
        self.optional_at + CHECKSUM
    }

    /// Offset of the entry that says where signatures lie.
    pub fn certificate_table_at(&self) -> usize {
        self.optional_at + CERTIFICATE_TABLE
    }

    /// `file` with `new` sections behind those that it has. They follow each
    /// other in memory and in the file in the given order. Each ends at a multiple of
    /// [`BLOCK_SIZE`] in the file, so that the next one has the same blocks however long
    /// those before it are. What fills it up belongs to the section: bytes between sections
    /// would be left out of what is signed.
    pub fn with_sections(&self, file: &[u8], new: &[NewSection]) -> Result<Vec<u8>> {
        let table_at = self.sections_at + self.sections.len() * SECTION_HEADER_SIZE;
        let first_raw = self.sections.iter().filter(|section| section.raw_size > 0);
        let room_end = first_raw
            .map(|section| section.raw_offset)
            .min()
            .unwrap_or(file.len());
        if table_at + new.len() * SECTION_HEADER_SIZE > self.headers_size.min(room_end) {
            bail!("its headers have no room for {} more sections", new.len());
        }
        let mut output = file.to_vec();
        let mut address = self
            .sections
            .iter()
            .map(|section| section.address.saturating_add(section.size))
            .max()
            .unwrap_or(self.image_size);
        let mut added = 0u32;
        let block_size = self.file_alignment.max(BLOCK_SIZE as u32);
        for (number, section) in new.iter().enumerate() {
            let content_size = u32::try_from(section.content.len())
                .with_context(|| format!("section {} is too large", section.name))?;
            let size = content_size.max(section.memory_size);
            address = address
                .checked_next_multiple_of(self.section_alignment)
                .context("it is too large")?;
            output.resize(
                output.len().next_multiple_of(self.file_alignment as usize),
                0,
            );
            let raw_offset = u32::try_from(output.len()).context("it is too large")?;
            let raw_size = (raw_offset.checked_add(content_size))
                .and_then(|end| end.checked_next_multiple_of(block_size))
                .context("it is too large")?
                - raw_offset;

            let header = table_at + number * SECTION_HEADER_SIZE;
            output[header..header + SECTION_HEADER_SIZE].fill(0);
            output[header..header + section.name.len()].copy_from_slice(section.name.as_bytes());
            for (at, value) in [
                (8, size),
                (12, address),
                (16, raw_size),
                (20, raw_offset),
                (36, CHARACTERISTICS),
            ] {
                put_u32(&mut output, header + at, value);
            }
            output.extend(section.content);
            output.resize(raw_offset as usize + raw_size as usize, 0);
            address = address.checked_add(size).context("it is too large")?;
            added = added.saturating_add(raw_size);
        }
        let count = u16::try_from(self.sections.len() + new.len()).context("too many sections")?;
        output[self.coff_at + 2..self.coff_at + 4].copy_from_slice(&count.to_le_bytes());
        let image_size = address
            .checked_next_multiple_of(self.section_alignment)
            .context("it is too large")?;
        put_u32(&mut output, self.optional_at + IMAGE_SIZE, image_size);
        let data_at = self.optional_at + INITIALIZED_DATA_SIZE;
        let data_size = u32_at(file, data_at)?.saturating_add(added);
        put_u32(&mut output, data_at, data_size);
        put_u32(&mut output, self.checksum_at(), 0);
        Ok(output)
    }
}

impl Section {
    fn parse(file: &[u8], at: usize) -> Result<Self> {
        let name = bytes_at(file, at, 8)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(8);
        let section = Self {
            name: name[..end].to_vec(),
            size: u32_at(file, at + 8)?,
            address: u32_at(file, at + 12)?,
            raw_size: u32_at(file, at + 16)? as usize,
            raw_offset: u32_at(file, at + 20)? as usize,
        };
        if section.raw_size > 0 {
            bytes_at(file, section.raw_offset, section.raw_size).with_context(|| {
                format!(
                    "section {} lies outside of it",
                    String::from_utf8_lossy(&section.name)
                )
            })?;
        }
        Ok(section)
    }
}

/// Replaces four bytes that the parser has found to exist.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn bytes_at(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length)
        .and_then(|end| bytes.get(at..end))
        .context("it is cut off")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes_at(bytes, at, 2)?;
    Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes_at(bytes, at, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A PE file with one section `.text` of this content.
    pub fn pe_file(text: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[..2].copy_from_slice(b"MZ");
        put_u32(&mut file, 60, 0x80);
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x86..0x88].copy_from_slice(&1u16.to_le_bytes());
        file[0x94..0x96].copy_from_slice(&240u16.to_le_bytes());
        let optional = 0x98;
        file[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        put_u32(&mut file, optional + SECTION_ALIGNMENT, 0x1000);
        put_u32(&mut file, optional + FILE_ALIGNMENT, 0x200);
        put_u32(&mut file, optional + IMAGE_SIZE, 0x2000);
        put_u32(&mut file, optional + HEADERS_SIZE, 0x400);
        put_u32(&mut file, optional + 108, 16);
        let section = optional + 240;
        file[section..section + 5].copy_from_slice(b".text");
        let raw_size = text.len().next_multiple_of(0x200);
        put_u32(&mut file, section + 8, text.len() as u32);
        put_u32(&mut file, section + 12, 0x1000);
        put_u32(&mut file, section + 16, raw_size as u32);
        put_u32(&mut file, section + 20, 0x400);
        file.extend(text);
        file.resize(0x400 + raw_size, 0);
        file
    }

    #[test]
    fn added_sections_are_found_and_nothing_overlaps() {
        let file = pe_file(b"code");
        let new = [
            NewSection {
                name: ".osrel",
                content: b"ID=x",
                memory_size: 0,
            },
            NewSection {
                name: ".linux",
                content: &[1; 5000],
                memory_size: 0x10_000,
            },
        ];
        let joined = Pe::parse(&file)
            .unwrap()
            .with_sections(&file, &new)
            .unwrap();
        let pe = Pe::parse(&joined).unwrap();
        let names: Vec<_> = pe
            .sections
            .iter()
            .map(|s| String::from_utf8_lossy(&s.name).into_owned())
            .collect();
        assert_eq!(names, [".text", ".osrel", ".linux"]);
        for (section, new) in pe.sections[1..].iter().zip(&new) {
            assert!(joined[section.raw_offset..].starts_with(new.content));
            assert_eq!(section.address % 0x1000, 0);
            assert_eq!(section.raw_offset % 0x200, 0);
        }
        for pair in pe.sections.windows(2) {
            assert!(pair[0].address + pair[0].size <= pair[1].address);
            assert!(pair[0].raw_offset + pair[0].raw_size <= pair[1].raw_offset);
        }
        assert_eq!(pe.sections[1].size, 4);
        assert_eq!(pe.sections[2].size, 0x10_000);
        assert_eq!(pe.image_size, 0x3000 + 0x10_000);
    }

    #[test]
    fn a_section_has_its_blocks_whatever_precedes_it() {
        let file = pe_file(b"code");
        let content: Vec<u8> = (0..20_000u32).map(|number| (number >> 3) as u8).collect();
        for length in [1, 511, 512, 4095, 4096, 4097] {
            let first = vec![9; length];
            let section = |name, content| NewSection {
                name,
                content,
                memory_size: 0,
            };
            let new = [
                section(".cmdline", &first[..]),
                section(".linux", &content[..]),
            ];
            let joined = Pe::parse(&file).unwrap().with_sections(&file, &new);
            let joined = joined.unwrap();
            let pe = Pe::parse(&joined).unwrap();
            let [_, first, last] = &pe.sections[..] else {
                panic!("{} sections", pe.sections.len());
            };
            assert_eq!(last.raw_offset % BLOCK_SIZE, 0, "after {length} bytes");
            assert_eq!(first.raw_offset + first.raw_size, last.raw_offset);
            assert_eq!(joined.len() % BLOCK_SIZE, 0);
        }
    }

    #[test]
    fn without_room_for_headers_nothing_is_added() {
        let file = pe_file(b"code");
        let new: Vec<_> = (0..20)
            .map(|_| NewSection {
                name: ".x",
                content: b"x",
                memory_size: 0,
            })
            .collect();
        let error = Pe::parse(&file)
            .unwrap()
            .with_sections(&file, &new)
            .err()
            .unwrap();
        assert!(error.to_string().contains("no room"), "{error}");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 1..8), length in 0usize..0x600) {
            let mut file = pe_file(b"code");
            for (at, value) in changes {
                file[at] = value;
            }
            file.truncate(length.max(0x100));
            if let Ok(pe) = Pe::parse(&file) {
                let _ = pe.with_sections(&file, &[NewSection { name: ".x", content: b"x", memory_size: 9 }]);
                let _ = crate::authenticode::digest(&file);
                let _ = crate::authenticode::without_signature(&file);
            }
        }
    }
}
