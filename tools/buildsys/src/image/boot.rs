//! The boot chain of an image: initrd, kernel command line, signed kernel image,
//! and what else lies on the EFI system partition.

use super::modules::{ModuleIndex, module_name};
use crate::manifest::KernelSection;
use crate::project::Arch;
use crate::rootfs::{Content, Rootfs};
use anyhow::{Context, Result, bail};
use boot_slots::bless;
use boot_slots::verity::RootHash;
use disk_image::authenticode::{self, Signer};
use disk_image::{cpio, uki};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

/// Folders of package trees whose files are parts of the boot chain.
const FOLDERS: [&str; 2] = ["boot/", "usr/lib/systemd/boot/efi/"];

/// Modules that the initrd needs only when it must rename an entry on the EFI
/// system partition.
const ESP_MODULES: [&str; 4] = ["vfat", "nls_cp437", "nls_ascii", "nls_utf8"];

/// The parts of the boot chain that packages have brought.
pub struct BootParts {
    files: BTreeMap<String, PathBuf>,
}

impl BootParts {
    /// Takes the parts out of the root, where they have no business.
    pub fn take_from(root: &mut Rootfs) -> Self {
        let is_part = |path: &str| FOLDERS.iter().any(|folder| path.starts_with(folder));
        let files = root
            .iter()
            .filter(|(path, _)| is_part(path))
            .filter_map(|(path, entry)| match &entry.content {
                Content::File(source) => Some((path.clone(), source.clone())),
                _ => None,
            })
            .collect();
        // Agents look into `/boot`, which stays, empty.
        let emptied = FOLDERS.map(|folder| folder.trim_end_matches('/'));
        root.remove(|path| is_part(path) || (path != "boot" && emptied.contains(&path)));
        Self { files }
    }

    /// Reads the one part whose file name starts and ends so.
    fn read(&self, what: &str, prefix: &str, suffix: &str) -> Result<Vec<u8>> {
        let is_it = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name.starts_with(prefix) && name.ends_with(suffix)
        };
        let mut found = self.files.iter().filter(|(path, _)| is_it(path));
        match (found.next(), found.next()) {
            (Some((_, source)), None) => {
                fs::read(source).with_context(|| format!("cannot read {}", source.display()))
            }
            (None, _) => bail!("no package of the variant has {what} ({prefix}*{suffix})"),
            (Some((one, _)), Some((other, _))) => {
                bail!("the variant has {what} twice: /{one} and /{other}")
            }
        }
    }
}

/// What the kernel image is made from.
pub struct KernelImage<'a> {
    /// Kernel, stub and init.
    pub parts: &'a BootParts,
    /// Release of the kernel, as its modules' folder is called.
    pub release: &'a str,
    /// What the variant says of its kernel on this architecture.
    pub kernel: &'a KernelSection,
    /// All modules of the kernel.
    pub modules: &'a ModuleIndex,
    /// The root that the image opens.
    pub root: &'a Rootfs,
    /// Its root hash.
    pub root_hash: &'a RootHash,
    /// Its version.
    pub version: &'a str,
    /// Its os-release.
    pub os_release: &'a str,
}

impl KernelImage<'_> {
    /// The unified kernel image, not yet signed.
    pub fn build(&self) -> Result<Vec<u8>> {
        uki::build(&uki::Options {
            stub: &self
                .parts
                .read("the kernel stub of systemd", "linux", ".efi.stub")?,
            os_release: self.os_release,
            command_line: &self.command_line(),
            kernel_release: self.release,
            kernel: &self.parts.read("a kernel", "vmlinuz-", "")?,
            initrd: &self.initrd()?,
        })
        .context("cannot make the unified kernel image")
    }

    /// Systemd's generators react to `roothash=`, so ours has a name of its own.
    fn command_line(&self) -> String {
        let own = format!(
            "bulkhead.root={} bulkhead.version={}",
            self.root_hash, self.version
        );
        let mut arguments = vec![own];
        arguments.extend(self.kernel.arguments.iter().cloned());
        arguments.join(" ")
    }

    fn initrd(&self) -> Result<Vec<u8>> {
        let init = self.parts.read("the program init", "init", "init")?;
        let mut entries = vec![cpio::Entry::file("init", 0o755, init)];
        let at_once = self.modules.load_order(&self.kernel.init_modules)?;
        let esp: Vec<String> = ESP_MODULES.map(str::to_string).into();
        let on_demand = self.modules.load_order(&esp)?;
        let mut lists: BTreeMap<&str, String> = BTreeMap::new();
        for (list, paths) in [("order", &at_once), ("esp-order", &on_demand)] {
            let lines = lists.entry(list).or_default();
            for path in paths {
                lines.push_str(unpacked_name(path));
                lines.push('\n');
            }
        }
        let all: std::collections::BTreeSet<&String> = at_once.iter().chain(&on_demand).collect();
        for path in all {
            let image_path = format!("usr/lib/modules/{}/{path}", self.release);
            let entry = self.root.get(&image_path).with_context(|| {
                format!(
                    "init needs the module {}, which is not in `modules` of the variant",
                    module_name(path)
                )
            })?;
            let content = entry
                .read()?
                .with_context(|| format!("/{image_path} is no file"))?;
            let content =
                unpacked(path, content).with_context(|| format!("cannot unpack /{image_path}"))?;
            let file = format!("modules/{}", unpacked_name(path));
            entries.push(cpio::Entry::file(&file, 0o644, content));
        }
        for (list, lines) in lists {
            entries.push(cpio::Entry::file(
                &format!("modules/{list}"),
                0o644,
                lines.into_bytes(),
            ));
        }
        cpio::write(&entries).context("cannot make the initrd")
    }
}

/// A module as the initrd has it. The kernel could unpack them itself, but that
/// takes longer than reading the larger file: half a second of an emulated boot.
fn unpacked(path: &str, content: Vec<u8>) -> Result<Vec<u8>> {
    if !path.ends_with(XZ) {
        return Ok(content);
    }
    let mut module = Vec::new();
    liblzma::read::XzDecoder::new(content.as_slice()).read_to_end(&mut module)?;
    Ok(module)
}

/// Name of a module's file in the initrd.
fn unpacked_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(XZ).unwrap_or(file)
}

const XZ: &str = ".xz";

/// The files of the EFI system partition, each with its signed content.
pub fn esp_files(
    parts: &BootParts,
    signer: &Signer,
    arch: Arch,
    version: &str,
    kernel_image: Vec<u8>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let (default, loader) = match arch {
        Arch::X86_64 => ("BOOTX64.EFI", "systemd-bootx64.efi"),
        Arch::Aarch64 => ("BOOTAA64.EFI", "systemd-bootaa64.efi"),
    };
    let fallback = parts.read("the fallback helper", "fallback", ".efi")?;
    let boot_loader = parts.read("the boot loader of systemd", "systemd-boot", ".efi")?;
    let sign = |what: &str, image: &[u8]| {
        authenticode::sign(image, signer).with_context(|| format!("cannot sign {what}"))
    };
    Ok(vec![
        (
            format!("EFI/BOOT/{default}"),
            sign("the fallback helper", &fallback)?,
        ),
        (
            format!("EFI/systemd/{loader}"),
            sign("the boot loader", &boot_loader)?,
        ),
        (
            format!("{}/{}", bless::FOLDER, first_entry(version)),
            kernel_image,
        ),
        (
            "loader/loader.conf".to_string(),
            LOADER_CONF.as_bytes().to_vec(),
        ),
    ])
}

/// No menu: a host has nobody in front of it, and its editor stays closed. Without
/// entries of its own making systemd-boot gives up when there is no image, instead
/// of showing a menu that offers nothing, and the fallback helper says why.
const LOADER_CONF: &str =
    "timeout 0\neditor no\nconsole-mode keep\nauto-entries no\nauto-firmware no\n";

/// A fresh disk is on trial like any update: three tries, then a blessing.
fn first_entry(version: &str) -> String {
    format!("bulkhead_{version}+3.efi")
}
