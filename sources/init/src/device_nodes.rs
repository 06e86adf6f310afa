//! Nodes of devices whose modules the kernel loads when somebody opens them, such as
//! `/dev/fuse` and `/dev/loop-control`: without a node nobody can.

use crate::log;
use crate::outcome::Failure;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// For root, until the device manager's rules say otherwise.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A node that modules.devname(5) asks for.
#[derive(Debug, PartialEq, Eq)]
struct Node<'a> {
    name: &'a str,
    kind: SFlag,
    major: u64,
    minor: u64,
}

/// Makes the nodes for the modules in `root`. A host boots without them, too.
pub fn make(root: &Path, devices: &Path) {
    if let Err(failure) = try_make(root, devices) {
        log::warn(&failure.to_string());
    }
}

fn try_make(root: &Path, devices: &Path) -> Result<(), Failure> {
    let release = fs::read_to_string(RELEASE).map_err(Failure::on("read", Path::new(RELEASE)))?;
    let list = root
        .join("usr/lib/modules")
        .join(release.trim())
        .join("modules.devname");
    let list_text = fs::read_to_string(&list).map_err(Failure::on("read", &list))?;
    for line in list_text.lines().filter(|line| !line.starts_with('#')) {
        let Some(node) = parse(line) else {
            log::warn(&format!("{} has the line {line:?}", list.display()));
            continue;
        };
        let path = devices.join(node.name);
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(Failure::on("create", folder))?;
        }
        match mknod(&path, node.kind, MODE, makedev(node.major, node.minor)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(Failure::on("make", &path)(error)),
        }
    }
    Ok(())
}

/// A line has the module, the name below `/dev`, and kind and numbers.
fn parse(line: &str) -> Option<Node<'_>> {
    let mut words = line.split_whitespace().skip(1);
    let (name, device) = (words.next()?, words.next()?);
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let kind = match device.get(..1)? {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => return None,
    };
    let (major, minor) = device[1..].split_once(':')?;
    (words.next().is_none() && name.split('/').all(is_plain)).then_some(Node {
        name,
        kind,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_a_node() {
        let check = |line: &str, expected: Option<(&str, SFlag, u64, u64)>| {
            let found = parse(line).map(|node| (node.name, node.kind, node.major, node.minor));
            assert_eq!(found, expected, "{line:?}");
        };
        check("fuse fuse c10:229", Some(("fuse", SFlag::S_IFCHR, 10, 229)));
        check(
            "tun net/tun c10:200",
            Some(("net/tun", SFlag::S_IFCHR, 10, 200)),
        );
        check("floppy fd0 b2:0", Some(("fd0", SFlag::S_IFBLK, 2, 0)));
        for bad in [
            "",
            "fuse",
            "fuse fuse",
            "fuse fuse p10:229",
            "fuse fuse c10",
            "fuse fuse c:229",
            "fuse fuse c10:229 more",
            "fuse ../fuse c10:229",
            "fuse /fuse c10:229",
            "fuse fuse é10:229",
        ] {
            check(bad, None);
        }
    }
}
