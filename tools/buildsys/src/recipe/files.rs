//! Origin `files`: what lies in the package's own folder.
//!
//! Besides what `[files]` lists, some sub-folders have a fixed place in the
//! image, so that a unit or a template is never listed twice.

use crate::manifest::{Package, VERSIONS};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Sub-folder of a package → its place in the image.
fn fixed_places(package: &str) -> [(&'static str, String); 7] {
    [
        ("etc", "usr/share/factory/etc".into()),
        ("network", "usr/lib/systemd/network".into()),
        ("sysctl", "usr/lib/sysctl.d".into()),
        (
            "templates",
            format!("usr/share/bulkhead/templates/{package}"),
        ),
        ("tmpfiles", "usr/lib/tmpfiles.d".into()),
        ("udev", "usr/lib/udev/rules.d".into()),
        ("units", "usr/lib/systemd/system".into()),
    ]
}

/// Sub-folders that are inputs of the build and not files of the image.
const BUILD_INPUTS: [&str; 1] = ["selinux"];

/// Copies the package's own files into `out` and makes its links and folders.
pub fn install(package: &Package, out: &Path) -> Result<()> {
    let files = &package.manifest.files;
    for (from, to) in fixed_places(package.software().as_str()) {
        let folder = package.folder.join(from);
        if folder.is_dir() {
            copy_tree(&folder, &out.join(to))?;
        }
    }
    for (from, to) in &files.copy {
        copy_file(&package.folder.join(from), &out.join(to.as_str()))?;
    }
    for (path, target) in &files.links {
        make_link(target, &out.join(path.as_str()))?;
    }
    for folder in &files.folders {
        make_folder(&out.join(folder.as_str()))?;
    }
    let units = &package.manifest.units;
    for (links, suffix) in [
        (&units.wanted_by, "wants"),
        (&units.required_by, "requires"),
    ] {
        for (unit, pulled_by) in links {
            for puller in pulled_by {
                let link = format!("usr/lib/systemd/system/{puller}.{suffix}/{unit}");
                make_link(&format!("../{unit}"), &out.join(link))?;
            }
        }
    }
    Ok(())
}

/// Every file of the package's folder that its key must cover, sorted. Lists of Go
/// modules are not among them: the key of the programs built from them covers those
/// of the right version.
pub fn inputs(package: &Package) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&package.folder, &mut found)?;
    let is_of_modules = |path: &Path| {
        ["go.mod", "go.sum", VERSIONS]
            .iter()
            .any(|name| path.starts_with(package.folder.join(name)))
    };
    found.retain(|path| package.modules.is_none() || !is_of_modules(path));
    found.sort();
    Ok(found)
}

/// SELinux policy files (`*.cil`) of the package, sorted.
pub fn policy_files(package: &Package) -> Result<Vec<PathBuf>> {
    let folder = package.folder.join(BUILD_INPUTS[0]);
    let mut found = Vec::new();
    if folder.is_dir() {
        collect(&folder, &mut found)?;
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "cil"));
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let list = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    let list = || format!("cannot list {}", from.display());
    for entry in fs::read_dir(from).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let name = path.file_name().with_context(list)?;
        let target = to.join(name);
        if path.is_symlink() {
            let points_to =
                fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
            make_link(&points_to.to_string_lossy(), &target)?;
        } else if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Copies one file. A checkout keeps nothing of a mode but the executable bit,
/// and other bits depend on the user's umask, so the mode is made from that one.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        make_folder(parent)?;
    }
    if to.exists() {
        bail!("{} is placed twice by the same package", to.display());
    }
    let copying = || format!("cannot copy {} to {}", from.display(), to.display());
    let executable = fs::metadata(from)
        .with_context(copying)?
        .permissions()
        .mode()
        & 0o100
        != 0;
    fs::copy(from, to).with_context(copying)?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(copying)
}

fn make_link(target: &str, link: &Path) -> Result<()> {
    if let Some(parent) = link.parent() {
        make_folder(parent)?;
    }
    symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}
