//! What updates fetch.

use super::Row;
use crate::diff::Image;
use anyhow::{Context, Result};
use std::path::Path;
use test_vm::Emulator;

/// An update with another release of kubelet, by far the largest program of a node. None of
/// its blocks is believed to be in the release before, so that it fetches no more than this.
pub fn kubelet(emulator: &Emulator, image: &Path, folder: &Path) -> Result<Row> {
    const IMAGE: &str = "/image";
    let root = format!("{IMAGE}/root.erofs");
    let arguments = ["--path=/usr/bin/kubelet", &root];
    let shown = emulator.run_with(folder, &[(image, IMAGE)], "dump.erofs", &arguments)?;
    let size = size_on_disk(&shown)
        .with_context(|| format!("dump.erofs does not say how large kubelet is: {shown}"))?;
    let image = Image::read(image)?;
    Ok(Row::size(
        "update: another kubelet",
        // What every update fetches, even one to the same release.
        image.fetched_for(&image) + size,
    ))
}

/// The bytes of a file system that the file takes of which this was printed.
fn size_on_disk(shown: &str) -> Option<u64> {
    let (_, rest) = shown.split_once("On-disk size:")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_on_disk_is_found() {
        let shown = "Path : /usr/bin/x\nSize: 92635438  On-disk size: 31764480  regular file\n";
        assert_eq!(size_on_disk(shown), Some(31_764_480));
        assert_eq!(size_on_disk("Size: 1"), None);
    }
}
