//! A compressed tar archive of small files (POSIX.1-1988, "ustar").

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;

/// An archive that is being written.
pub struct Archive {
    output: GzEncoder<File>,
    folder: &'static str,
    time: u64,
}

impl Archive {
    /// Begins an archive at `path`, whose files all lie in `folder`.
    pub fn create(path: &Path, folder: &'static str) -> Result<Self> {
        // A link that somebody has put there is not followed.
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("creating {}", path.display()))?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            // Logs shrink to a tenth at any level; better ones take their time.
            output: GzEncoder::new(file, Compression::fast()),
            folder,
            time: time.map_or(0, |time| time.as_secs()),
        })
    }

    /// Adds a file.
    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let header = header(&format!("{}/{name}", self.folder), content.len(), self.time)?;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.output
            .write_all(&header)
            .and_then(|()| self.output.write_all(content))
            .and_then(|()| self.output.write_all(&[0; BLOCK][..padding]))
            .with_context(|| format!("writing {name} into the bundle"))
    }

    /// Ends it, so that it lies on the disk.
    pub fn finish(mut self) -> Result<()> {
        self.output
            .write_all(&[0; 2 * BLOCK])
            .and_then(|()| self.output.finish())
            .and_then(|file| file.sync_all())
            .context("ending the bundle")
    }
}

fn header(path: &str, size: usize, time: u64) -> Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let (prefix, name) = split(path).with_context(|| format!("{path} is too long a name"))?;
    put(&mut header, 0, name.as_bytes());
    put(&mut header, 100, b"0000644\0");
    put(&mut header, 108, b"0000000\0");
    put(&mut header, 116, b"0000000\0");
    if size >= 1 << 33 {
        bail!("{path} is too large");
    }
    put(&mut header, 124, format!("{size:011o}\0").as_bytes());
    put(&mut header, 136, format!("{time:011o}\0").as_bytes());
    put(&mut header, 148, b"        ");
    put(&mut header, 156, b"0");
    put(&mut header, 257, b"ustar\x0000root");
    put(&mut header, 297, b"root");
    put(&mut header, 345, prefix.as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

fn put(header: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A path as prefix and name, which the header has 155 and 100 bytes for.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= 155 && (1..=100).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn other_programs_read_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("bundle.tar.gz");
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        let files = [
            ("a", vec![7; 512]),
            ("b/c", vec![]),
            (&*long, b"text".to_vec()),
        ];
        let mut archive = Archive::create(&path, "top").expect("created");
        for (name, content) in &files {
            archive.add(name, content).expect("added");
        }
        assert!(archive.add(&"x".repeat(300), b"").is_err());
        archive.finish().expect("finished");

        let file = File::open(&path).expect("open");
        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut entries = read.entries().expect("an archive");
        for (name, content) in &files {
            let mut entry = entries.next().expect("an entry").expect("readable");
            let path = entry.path().expect("a path").into_owned();
            assert_eq!(path, Path::new("top").join(name));
            assert_eq!(entry.header().mode().expect("a mode"), 0o644);
            let mut found = Vec::new();
            entry.read_to_end(&mut found).expect("content");
            assert_eq!(found, *content);
        }
        assert!(entries.next().is_none());
    }
}
