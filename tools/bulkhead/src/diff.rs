//! `bulkhead diff`.

use crate::output;
use anyhow::{Context, Result, ensure};
use boot_slots::blocks::BlockList;
use boot_slots::verity::Tree;
use buildsys::image::description::Description;
use buildsys::progress::size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use update_repository::predict;

/// Arguments of `diff`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the image that hosts run, as `build` leaves it
    old: PathBuf,
    /// Folder of the image that they are updated to
    new: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What differs, and what an update costs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Difference {
    /// Old and new version of each package whose version differs; one is missing where the
    /// package is new or gone.
    packages: BTreeMap<String, [Option<String>; 2]>,
    /// Files of the update, in the order in which they are fetched.
    files: Vec<FileCost>,
    /// Requests for ranges of root and kernel image.
    requests: usize,
}

impl Difference {
    fn sum(&self, of: fn(&FileCost) -> u64) -> u64 {
        self.files.iter().map(of).sum()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct FileCost {
    name: &'static str,
    /// Its bytes.
    whole: u64,
    /// Those that a host fetches.
    fetched: u64,
}

/// Compares two images of one variant, and says what an update fetches.
pub fn run(args: Args) -> Result<()> {
    let (old, new) = (Image::read(&args.old)?, Image::read(&args.new)?);
    let kind = |image: &Image| (image.about.variant.clone(), image.about.arch.clone());
    ensure!(
        kind(&old) == kind(&new),
        "hosts are not updated from {} for {} to {} for {}",
        old.about.variant,
        old.about.arch,
        new.about.variant,
        new.about.arch
    );
    let difference = compare(&old, &new);
    if args.json {
        return output::print_json(&difference);
    }
    println!(
        "{} {} for {} to {}",
        old.about.variant, old.about.version, old.about.arch, new.about.version
    );
    for (name, [old, new]) in &difference.packages {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".into());
        println!("  {name:<40} {} -> {}", version(old), version(new));
    }
    println!("an update fetches");
    for file in &difference.files {
        print_cost(file);
    }
    let together = FileCost {
        name: "together",
        whole: difference.sum(|file| file.whole),
        fetched: difference.sum(|file| file.fetched),
    };
    print_cost(&together);
    println!("  in {} requests for ranges", difference.requests);
    Ok(())
}

fn print_cost(cost: &FileCost) {
    println!(
        "  {:<16} {:>8} of {:>8} {:>6.1} %",
        cost.name,
        size(cost.fetched),
        size(cost.whole),
        cost.fetched as f64 * 100.0 / cost.whole.max(1) as f64
    );
}

/// An image, as far as updates are about it.
pub struct Image {
    about: Description,
    tree: Tree,
    kernel_image: BlockList,
}

impl Image {
    /// The one that `build` left in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let about = Description::read(folder)?;
        let path = folder.join("root.verity");
        let tree = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let root_hash = about.root_hash.parse();
        let root_hash = root_hash.with_context(|| format!("root hash of {}", folder.display()))?;
        let tree = Tree::read(&tree, &root_hash)
            .with_context(|| format!("cannot use {}", path.display()))?;
        let path = folder.join("bulkhead.efi");
        let kernel_image = File::open(&path).and_then(|image| BlockList::of(&image));
        let kernel_image =
            kernel_image.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            about,
            tree,
            kernel_image,
        })
    }

    /// Bytes that a host that runs this one fetches to be updated to `new`.
    pub fn fetched_for(&self, new: &Self) -> u64 {
        compare(self, new).sum(|file| file.fetched)
    }

    /// Bytes of its files that an update carries.
    pub fn size(&self) -> u64 {
        compare(self, self).sum(|file| file.whole)
    }

    /// Versions of Debian's packages, and of Go modules by the programs that have them.
    fn packages(&self) -> BTreeMap<String, &str> {
        let debian = (self.about.packages.iter()).map(|line| (line.name.clone(), line));
        let modules = self.about.go_modules.iter();
        let modules = modules.map(|line| (format!("{} in {}", line.name, line.source), line));
        debian
            .chain(modules)
            .map(|(name, line)| (name, line.version.as_str()))
            .collect()
    }
}

fn compare(old: &Image, new: &Image) -> Difference {
    let sizes = &new.about.sizes;
    let root = predict(old.tree.digests(), new.tree.digests(), sizes.root);
    let (before, after) = (&old.kernel_image, &new.kernel_image);
    let kernel_image = predict(before.digests(), after.digests(), sizes.kernel_image);
    let cost = |name, whole, fetched| FileCost {
        name,
        whole,
        fetched,
    };
    let whole = |name, bytes| cost(name, bytes, bytes);
    let packages = [old.packages(), new.packages()];
    let names = packages.iter().flat_map(BTreeMap::keys);
    let packages = names
        .filter_map(|name| {
            let versions = packages.each_ref().map(|packages| packages.get(name));
            let versions = versions.map(|version| version.map(|text| text.to_string()));
            (versions[0] != versions[1]).then(|| (name.clone(), versions))
        })
        .collect();
    Difference {
        packages,
        files: vec![
            whole("root.verity", sizes.verity),
            cost("root.erofs", sizes.root, root.bytes),
            whole("boot.blocks", after.bytes().len() as u64),
            cost("bulkhead.efi", sizes.kernel_image, kernel_image.bytes),
        ],
        requests: root.requests + kernel_image.requests,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::verity::{BLOCK_SIZE, build};
    use buildsys::image::description::{PackageLine, Sizes};

    fn image(blocks: std::ops::Range<u8>, packages: &[(&str, &str)]) -> Image {
        let root: Vec<u8> = blocks.flat_map(|byte| [byte; BLOCK_SIZE]).collect();
        let built = build(&root).unwrap();
        // A kernel that they share, and then the root's first block in the place of what a
        // release has for itself.
        let kernel: Vec<u8> = (200..=255u8).flat_map(|byte| [byte; BLOCK_SIZE]).collect();
        let kernel = [&kernel[..], &root[..BLOCK_SIZE / 2]].concat();
        let packages = packages.iter().map(|(name, version)| PackageLine {
            name: name.to_string(),
            version: version.to_string(),
            source: String::new(),
        });
        Image {
            about: Description {
                packages: packages.collect(),
                sizes: Sizes {
                    root: root.len() as u64,
                    verity: built.bytes.len() as u64,
                    kernel_image: kernel.len() as u64,
                    ..Sizes::default()
                },
                ..Description::default()
            },
            tree: Tree::read(&built.bytes, &built.root_hash).unwrap(),
            kernel_image: BlockList::of(&kernel).unwrap(),
        }
    }

    #[test]
    fn what_an_update_costs_and_what_it_changes() {
        let old = image(1..101, &[("a", "1"), ("b", "1"), ("gone", "1")]);
        let new = image(21..111, &[("a", "1"), ("b", "2"), ("new", "1")]);
        let difference = compare(&old, &new);
        let changed = |old: Option<&str>, new: Option<&str>| {
            [old.map(str::to_string), new.map(str::to_string)]
        };
        assert_eq!(
            difference.packages,
            BTreeMap::from([
                ("b".to_string(), changed(Some("1"), Some("2"))),
                ("gone".to_string(), changed(Some("1"), None)),
                ("new".to_string(), changed(None, Some("1"))),
            ])
        );
        let fetched: Vec<u64> = difference.files.iter().map(|file| file.fetched).collect();
        let verity = new.about.sizes.verity;
        let (root, list, kernel) = (10 * BLOCK_SIZE as u64, 57 * 32, BLOCK_SIZE as u64 / 2);
        assert_eq!(fetched, [verity, root, list, kernel]);
        assert_eq!(difference.requests, 2);
    }
}
