//! VMware: a CD with exactly one of the files `user-data` and `ovf-env.xml`.
//!
//! The first holds the document as it is. The second is an OVF environment, whose
//! property `user-data` holds it in base64.

use crate::block::{DISC_PATIENCE, await_discs, devices};
use crate::{Source, encoding, iso9660, ovf};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PLAIN: &str = "user-data";
/// What vSphere and other tools call the environment, in any case.
const ENVIRONMENTS: [&str; 2] = ["ovf-env.xml", "ovf_env.xml"];
const PROPERTY: &str = "user-data";

/// The CD, in whichever drive it is.
pub struct VmwareCd;

impl Source for VmwareCd {
    fn name(&self) -> &'static str {
        "CD"
    }

    fn location(&self) -> String {
        format!("{PLAIN} or {}", ENVIRONMENTS[0])
    }

    fn patience(&self) -> Duration {
        DISC_PATIENCE
    }

    fn read(&self, root: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        await_discs(root, DISC_PATIENCE);
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for device in devices(root).into_iter().filter(|device| device.is_optical) {
            // A drive without a medium, or with one that is no ISO 9660.
            let Some(mut volume) = open(&device.node) else {
                continue;
            };
            let files = volume
                .top_files()
                .with_context(|| format!("list the files of {}", device.node.display()))?;
            let wanted = files.into_iter().filter(|name| is_wanted(name));
            found.extend(wanted.map(|name| (name, device.node.clone())));
        }
        let (name, node) = match &found[..] {
            [] => return Ok(None),
            [only] => only,
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                bail!(
                    "there has to be one file, but there are {}",
                    names.join(", ")
                );
            }
        };
        let Some(mut volume) = open(node) else {
            bail!("{} can no longer be read", node.display());
        };
        if name.eq_ignore_ascii_case(PLAIN) {
            return volume.read_file(&[name], limit);
        }
        // Base64 takes up a third more.
        let Some(environment) = volume.read_file(&[name], limit * 2)? else {
            return Ok(None);
        };
        let environment = String::from_utf8(environment)
            .ok()
            .with_context(|| format!("{name} is not UTF-8"))?;
        match ovf::property(&environment, PROPERTY)? {
            Some(value) => encoding::base64(value.as_bytes())
                .with_context(|| format!("property {PROPERTY} of {name}"))
                .map(Some),
            None => Ok(None),
        }
    }
}

fn open(node: &Path) -> Option<iso9660::Volume<File>> {
    iso9660::Volume::open(File::open(node).ok()?).ok()?
}

fn is_wanted(name: &str) -> bool {
    let mut wanted = ENVIRONMENTS.iter().chain([&PLAIN]);
    wanted.any(|wanted| wanted.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::add;
    use crate::fake::{Names, iso9660 as image};
    use std::fs;

    fn read(files: &[(&str, &str)]) -> Result<Option<String>> {
        let files: Vec<([&str; 1], &str)> = files
            .iter()
            .map(|(name, content)| ([*name], *content))
            .collect();
        let files: Vec<(&[&str], &[u8])> = files
            .iter()
            .map(|(path, content)| (&path[..], content.as_bytes()))
            .collect();
        let names = Names {
            rock_ridge: false,
            joliet: true,
        };
        let root = tempfile::tempdir().expect("a folder");
        add(root.path(), "pci0/sr0", "DEVTYPE=disk\n", true);
        let disc = image("CDROM", names, &files);
        fs::write(root.path().join("dev/sr0"), disc).expect("a file");
        // A drive without a medium: its node cannot be opened.
        add(root.path(), "pci0/sr1", "DEVTYPE=disk\n", true);
        let read = VmwareCd.read(root.path(), 100)?;
        Ok(read.map(|bytes| String::from_utf8(bytes).expect("a text")))
    }

    #[test]
    fn one_file_is_read() {
        let environment = "<E><Property oe:key='user-data' oe:value='W3NldHRpbmdzXQ=='/></E>";
        for (files, expected) in [
            (vec![], None),
            (vec![("README.TXT=readme.txt", "x")], None),
            (
                vec![("USER_DAT=user-data", "[settings]")],
                Some("[settings]"),
            ),
            (
                vec![("OVF_ENV.XML=ovf-env.xml", environment)],
                Some("[settings]"),
            ),
            (
                vec![("OVF_ENV.XML=OVF_ENV.XML", environment)],
                Some("[settings]"),
            ),
            (vec![("OVF_ENV.XML=ovf-env.xml", "<E/>")], None),
        ] {
            let found = read(&files).expect("readable");
            assert_eq!(found.as_deref(), expected, "{files:?}");
        }
    }

    #[test]
    fn more_than_one_file_or_a_broken_one_is_an_error() {
        for (files, reason) in [
            (
                vec![
                    ("USER_DAT=user-data", "x"),
                    ("OVF_ENV.XML=ovf-env.xml", "<E/>"),
                ],
                "there are user-data, ovf-env.xml",
            ),
            (vec![("OVF_ENV.XML=ovf-env.xml", "<E")], "not XML"),
            (
                vec![(
                    "OVF_ENV.XML=ovf-env.xml",
                    "<Property key='user-data' value='*'/>",
                )],
                "property user-data of ovf-env.xml: not base64",
            ),
        ] {
            let error = format!("{:#}", read(&files).expect_err(reason));
            assert!(error.contains(reason), "{error}");
        }
    }
}
