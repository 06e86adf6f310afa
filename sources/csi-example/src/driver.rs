//! What is done with a volume: a file that is a disk by a loop device.
//!
//! Nothing is remembered but by the files, so a driver that is started anew goes on.

use crate::grpc::{self, Answer, Refusal};
use crate::messages::{
    Access, Capabilities, Capability, DriverInfo, MountAccess, NodeInfo, Nothing, Publish, Rpc,
    STAGES, Stage, Undo,
};
use anyhow::{Context, Result, bail};
use prost::Message;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By which volumes name the driver.
const NAME: &str = "example.csi.bulkhead";
/// Bytes of each volume.
const SIZE: u64 = 64 << 20;
/// Whether a volume belongs to a pod, and goes with it.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The driver on one node.
pub struct Driver {
    kept: PathBuf,
    ephemeral: PathBuf,
    node: String,
}

impl Driver {
    /// The driver on the node called `node`, whose volumes lie below `data`.
    pub fn new(data: &Path, node: &str) -> Result<Self> {
        let folder = |name: &str| -> Result<PathBuf> {
            let path = data.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
            Ok(path)
        };
        Ok(Self {
            kept: folder("kept")?,
            ephemeral: folder("ephemeral")?,
            node: node.to_string(),
        })
    }

    /// Answers kubelet, and whoever else asks.
    pub fn answer(&self, method: &str, request: &[u8]) -> Answer {
        let nothing = || Nothing {}.encode_to_vec();
        match method {
            "csi.v1.Identity/GetPluginInfo" => Ok(DriverInfo {
                name: NAME.to_string(),
                version: env!("CARGO_PKG_VERSION").to_string(),
            }
            .encode_to_vec()),
            "csi.v1.Identity/GetPluginCapabilities" | "csi.v1.Identity/Probe" => Ok(nothing()),
            "csi.v1.Node/NodeGetInfo" => Ok(NodeInfo {
                node_id: self.node.clone(),
            }
            .encode_to_vec()),
            "csi.v1.Node/NodeGetCapabilities" => Ok(Capabilities {
                capabilities: vec![Capability {
                    rpc: Some(Rpc { kind: STAGES }),
                }],
            }
            .encode_to_vec()),
            "csi.v1.Node/NodeStageVolume" => {
                let request: Stage = grpc::decode(request)?;
                if let Some(mount) = &wanted(request.access.as_ref())?.mount {
                    let file = file(&self.kept, &request.volume_id)?;
                    mount_file(&file, Path::new(&request.staging), mount)?;
                }
                Ok(nothing())
            }
            "csi.v1.Node/NodePublishVolume" => {
                self.publish(&grpc::decode(request)?)?;
                Ok(nothing())
            }
            "csi.v1.Node/NodeUnpublishVolume" => {
                self.unpublish(&grpc::decode(request)?)?;
                Ok(nothing())
            }
            "csi.v1.Node/NodeUnstageVolume" => {
                let request: Undo = grpc::decode(request)?;
                unmount(Path::new(&request.place))?;
                Ok(nothing())
            }
            _ => Err(Refusal::unknown(method)),
        }
    }

    /// Gives a volume to a pod.
    fn publish(&self, request: &Publish) -> Result<(), Refusal> {
        let target = Path::new(&request.target);
        let access = wanted(request.access.as_ref())?;
        let is_ephemeral = request
            .context
            .get(EPHEMERAL)
            .is_some_and(|is| is == "true");
        let folder = if is_ephemeral {
            &self.ephemeral
        } else {
            &self.kept
        };
        let file = file(folder, &request.volume_id)?;
        match &access.mount {
            Some(mount) if is_ephemeral => {
                make_folder(target)?;
                mount_file(&file, target, mount)?;
            }
            Some(_) => {
                make_folder(target)?;
                let options = if request.read_only { "bind,ro" } else { "bind" };
                mount(options, Path::new(&request.staging), target)?;
            }
            None => {
                make_file(&file)?;
                File::create(target)
                    .with_context(|| format!("cannot create {}", target.display()))?;
                mount("bind", Path::new(&device(&file)?), target)?;
            }
        }
        Ok(())
    }

    /// Takes a volume from a pod.
    fn unpublish(&self, request: &Undo) -> Result<(), Refusal> {
        let target = Path::new(&request.place);
        unmount(target)?;
        let removing = || format!("cannot remove {}", target.display());
        if target.is_dir() {
            fs::remove_dir(target).with_context(removing)?;
        } else if target.exists() {
            fs::remove_file(target).with_context(removing)?;
            let file = file(&self.kept, &request.volume_id)?;
            run("losetup", ["--detach", &device(&file)?])?;
        }
        let ephemeral = file(&self.ephemeral, &request.volume_id)?;
        if ephemeral.exists() {
            fs::remove_file(&ephemeral)
                .with_context(|| format!("cannot remove {}", ephemeral.display()))?;
        }
        Ok(())
    }
}

/// How a volume is wanted, which is in one way or in the other.
fn wanted(access: Option<&Access>) -> Result<&Access, Refusal> {
    match access {
        Some(access) if access.block.is_some() != access.mount.is_some() => Ok(access),
        _ => Err(Refusal::invalid(
            "a volume is wanted as files or as a device",
        )),
    }
}

/// The file of the volume called `id`.
fn file(folder: &Path, id: &str) -> Result<PathBuf, Refusal> {
    if id.is_empty() || id.starts_with('.') || id.contains('/') {
        return Err(Refusal::invalid(format!("{id:?} names no volume")));
    }
    Ok(folder.join(id))
}

/// Mounts the file system of a volume's file, which is made at first.
fn mount_file(file: &Path, place: &Path, access: &MountAccess) -> Result<()> {
    make_file(file)?;
    let kind = match access.fs_type.as_str() {
        "" => "ext4",
        kind => kind,
    };
    if is_blank(file)? {
        run(
            &format!("mkfs.{kind}"),
            [OsStr::new("-q"), file.as_os_str()],
        )?;
    }
    let options: Vec<&str> = ["loop"]
        .into_iter()
        .chain(access.flags.iter().map(String::as_str))
        .collect();
    mount(&options.join(","), file, place)
}

/// Makes the file of a volume, if it is not there, of nothing but zeros.
fn make_file(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    File::create(path)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Whether a file has nothing but zeros where a file system has its description.
fn is_blank(path: &Path) -> Result<bool> {
    let mut start = [0; 4096];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start.iter().all(|byte| *byte == 0))
}

/// The loop device of a volume's file, which is made at first.
fn device(file: &Path) -> Result<String> {
    let [list, make] = [&["--associated"][..], &["--show", "--find"]].map(|options| {
        let options = options.iter().map(OsStr::new);
        options.chain([file.as_os_str()]).collect::<Vec<_>>()
    });
    // Of each there is a line `/dev/loop0: …`.
    let found = run("losetup", list)?;
    match found.split_once(':') {
        Some((device, _)) => Ok(device.to_string()),
        None => Ok(run("losetup", make)?.trim().to_string()),
    }
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Mounts `what`, unless something is mounted there.
fn mount(options: &str, what: &Path, place: &Path) -> Result<()> {
    if is_mounted(place)? {
        return Ok(());
    }
    let options = [OsStr::new("-o"), OsStr::new(options)];
    let arguments = options
        .into_iter()
        .chain([what.as_os_str(), place.as_os_str()]);
    run("mount", arguments).map(drop)
}

/// Unmounts what is mounted there, if anything is.
fn unmount(place: &Path) -> Result<()> {
    if is_mounted(place)? {
        run("umount", [place])?;
    }
    Ok(())
}

fn is_mounted(place: &Path) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    Ok(has_mount(&table, place))
}

/// Whether a table of mounts has one at `place`, whose path has no blanks.
fn has_mount(table: &str, place: &Path) -> bool {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|mounted| Path::new(mounted) == place)
}

/// Runs a program to its end; returns what it printed.
fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let called = format!("{command:?}");
    let ended = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        bail!("{called} failed: {}", said.trim());
    }
    println!("{called}");
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_files_of_one_folder() {
        let folder = Path::new("/data");
        assert_eq!(file(folder, "one").unwrap(), Path::new("/data/one"));
        for bad in ["", ".", "..", "a/b", "/etc/passwd"] {
            assert!(file(folder, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volumes_are_wanted_in_one_way() {
        let access = |block: bool, mount: bool| Access {
            block: block.then_some(Nothing {}),
            mount: mount.then(MountAccess::default),
        };
        for (block, mount) in [(true, false), (false, true)] {
            assert!(wanted(Some(&access(block, mount))).is_ok());
            assert!(wanted(Some(&access(block, block))).is_err());
        }
        assert!(wanted(None).is_err());
    }

    #[test]
    fn new_volumes_are_blank() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        make_file(&path).unwrap();
        assert!(is_blank(&path).unwrap());
        fs::write(&path, [[0; 2048], [1; 2048]].concat()).unwrap();
        make_file(&path).unwrap();
        assert!(!is_blank(&path).unwrap());
    }

    #[test]
    fn mounts_are_found_by_their_place() {
        let table = "25 1 254:0 / / rw - erofs /dev/vda ro\n\
                     30 25 7:0 / /var/one rw shared:3 - ext4 /dev/loop0 rw\n";
        for (place, is) in [("/", true), ("/var/one", true), ("/var", false)] {
            assert_eq!(has_mount(table, Path::new(place)), is, "{place}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let driver = Driver::new(folder.path(), "node-1").unwrap();
        let info = driver.answer("csi.v1.Node/NodeGetInfo", &[]).unwrap();
        assert_eq!(NodeInfo::decode(info.as_slice()).unwrap().node_id, "node-1");
        for (method, request) in [
            ("csi.v1.Node/NodeExpandVolume", &[][..]),
            ("csi.v1.Node/NodeStageVolume", &[]),
            ("csi.v1.Node/NodeStageVolume", b"\xff"),
        ] {
            assert!(driver.answer(method, request).is_err(), "{method}");
        }
    }
}
