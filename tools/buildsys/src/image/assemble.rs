//! From package trees to the files of an image.

use super::boot::{self, BootParts, KernelImage};
use super::content::{self, DATA_VOLUME, Identity, SHARE, VariantSettings};
use super::description::{Description, PackageLine, Sizes};
use super::modules::ModuleIndex;
use crate::check;
use crate::executor::run_logged;
use crate::keys::Keys;
use crate::manifest::{Name, Package, Variant};
use crate::progress::Task;
use crate::project::{Arch, ByteSize};
use crate::recipe::files;
use crate::recipe::go::buildinfo::BuildInfo;
use crate::rootfs::{Content, Rootfs};
use crate::sdk::Toolchain;
use crate::selinux::{self, FileContexts, FileKind};
use anyhow::{Context, Result, bail};
use boot_slots::layout::{self, Role, Slot};
use disk_image::authenticode;
use disk_image::rootfs_tar::{self, Compression};
use disk_image::{disk, esp};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where the output of the steps below appears inside the sandbox.
const OUT: &str = "/out";

/// Everything that an image is made of.
pub struct Ingredients<'a> {
    /// What is built.
    pub variant: &'a Variant,
    /// What it says about settings.
    pub settings: &'a VariantSettings,
    /// For which processor.
    pub arch: Arch,
    /// Release version.
    pub version: &'a str,
    /// The key of all inputs.
    pub key: &'a str,
    /// The key of all inputs but the signing keys.
    pub content: &'a str,
    /// Each package with its built tree and, from Debian, what it was taken from.
    pub packages: Vec<BuiltPackage<'a>>,
    /// Where the steps run.
    pub toolchain: &'a Toolchain,
    /// What signs.
    pub keys: &'a Keys,
    /// The `root.json` of the update repository, if there is one.
    pub update_root: Option<PathBuf>,
    /// Log of the steps.
    pub log: &'a Path,
}

/// A package and its tree.
pub struct BuiltPackage<'a> {
    /// The definition.
    pub package: &'a Package,
    /// The tree.
    pub tree: PathBuf,
    /// Archives that it was taken from.
    pub archives: Vec<crate::lock::LockedArchive>,
    /// The Go module that its programs are of, and the version.
    pub module: Option<(String, String)>,
}

impl Ingredients<'_> {
    /// Writes all files of the image into `out`, an empty folder.
    pub fn assemble(&self, out: &Path, task: &Task) -> Result<Description> {
        task.note("merging packages");
        let mut root = Rootfs::new();
        for built in &self.packages {
            root.add_tree(built.package.name(), &built.tree)?;
        }
        let parts = BootParts::take_from(&mut root);
        let work = out.join("work");
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;

        let (release, modules) = self.add_modules(&mut root, &work)?;
        let os_release = self.add_content(&mut root)?;
        let contexts = self.add_policy(&mut root, &work)?;

        task.note("checking");
        self.check(&root)?;
        self.check_templates(&root, &work)?;

        task.note("writing the root file system");
        let erofs = out.join("root.erofs");
        self.write_root(&root, &contexts, &work, &erofs)?;
        let verity = boot_slots::verity::build(&open(&erofs)?)
            .with_context(|| format!("cannot hash {}", erofs.display()))?;
        write(&out.join("root.verity"), &verity.bytes)?;

        task.note("signing");
        let signer = self.keys.signer()?;
        let lists = self.variant.manifest.kernel.lists(self.arch);
        let kernel = KernelImage {
            parts: &parts,
            release: &release,
            kernel: &lists,
            modules: &modules,
            root: &root,
            root_hash: &verity.root_hash,
            version: self.version,
            os_release: &os_release,
        };
        let kernel_image = authenticode::sign(&kernel.build()?, &signer)
            .context("cannot sign the unified kernel image")?;
        let limit = lists.image_limit;
        check_kernel_image_size(kernel_image.len(), limit.unwrap_or(KERNEL_IMAGE_LIMIT))?;
        write(&out.join("bulkhead.efi"), &kernel_image)?;

        task.note("writing the disk");
        let esp_files = boot::esp_files(
            &parts,
            &signer,
            self.arch,
            self.version,
            kernel_image.clone(),
        )?;
        let esp = esp::build(&esp_files).context("cannot make the EFI system partition")?;
        let disk_path = out.join("disk.img");
        self.write_disk(&disk_path, &esp, &erofs, &verity.bytes)?;
        if let Some(size) = self.variant.manifest.variant.data_volume {
            write_data_volume(&out.join(DATA_VOLUME), size)?;
        }
        self.add_workstation_files(out)?;
        let schema = &self.settings.schema;
        write(&out.join(content::SETTINGS_SCHEMA), schema)?;

        let mut description = Description {
            format: 1,
            variant: self.variant.name.to_string(),
            arch: self.arch.to_string(),
            version: self.version.to_string(),
            build_id: self.build_id().to_string(),
            key: self.key.to_string(),
            kernel: release,
            root_hash: verity.root_hash.to_string(),
            sizes: Sizes {
                root: size_of(&erofs)?,
                verity: verity.bytes.len() as u64,
                kernel_image: kernel_image.len() as u64,
                disk: size_of(&disk_path)?,
                files: root.iter().count() as u64,
            },
            settings_schema_sha256: hex::encode(Sha256::digest(schema)),
            packages: self.package_lines(),
            go_modules: go_module_lines(&root)?,
            ..Description::default()
        };
        description.add_digests(&esp_files)?;
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        Ok(description)
    }

    fn build_id(&self) -> &str {
        let digest = self.content.rsplit('-').next().unwrap_or(self.content);
        &digest[..digest.len().min(8)]
    }

    /// Keeps the modules that the variant names, and indexes them.
    fn add_modules(&self, root: &mut Rootfs, work: &Path) -> Result<(String, ModuleIndex)> {
        const MODULES: &str = "usr/lib/modules/";
        let release = root
            .iter()
            .find_map(|(path, _)| {
                path.strip_prefix(MODULES)?
                    .split('/')
                    .next()
                    .map(str::to_string)
            })
            .with_context(|| format!("no package of {} has a kernel", self.variant.name))?;
        let folder = format!("{MODULES}{release}/");

        let all = work.join("all-modules");
        export(root, &folder, &all)?;
        let index = |tree: &Path| self.depmod(&release, tree);
        index(&all)?;
        let read = |name: &str| {
            let path = all.join(&folder).join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let modules = ModuleIndex::parse(&read("modules.dep")?, &read("modules.builtin")?)
            .context("cannot read what depmod has found")?;
        let wanted = modules.select(&self.variant.manifest.kernel.lists(self.arch).modules)?;
        let prefix = folder.clone();
        root.remove(|path| match path.strip_prefix(&prefix) {
            Some(rest) => rest.contains(".ko") && !wanted.contains(rest),
            None => false,
        });
        remove_empty_folders(root, &folder);

        let kept = work.join("modules");
        export(root, &folder, &kept)?;
        index(&kept)?;
        let made = kept.join(&folder);
        for entry in
            fs::read_dir(&made).with_context(|| format!("cannot list {}", made.display()))?
        {
            let entry = entry.with_context(|| format!("cannot list {}", made.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}{name}");
            if entry.path().is_file() && root.get(&path).is_none() {
                let content = fs::read(entry.path())
                    .with_context(|| format!("cannot read {}", entry.path().display()))?;
                root.add_file(&path, content, 0o644)?;
            }
        }
        Ok((release, modules))
    }

    fn depmod(&self, release: &str, tree: &Path) -> Result<()> {
        // It looks below /lib, as on a system with a merged /usr.
        symlink("usr/lib", tree.join("lib"))
            .with_context(|| format!("cannot make a link in {}", tree.display()))?;
        let command = self
            .toolchain
            .sandbox()
            .writable(tree, OUT)
            .command("depmod", ["-b", OUT, release]);
        run_logged("index kernel modules", command, self.log)
    }

    /// Adds what is made from the definitions. Returns the os-release.
    fn add_content(&self, root: &mut Rootfs) -> Result<String> {
        let os_release = content::os_release(&Identity {
            variant: self.variant.name.as_str(),
            version: self.version,
            build_id: self.build_id(),
            arch: self.arch,
        });
        root.add_file("usr/lib/os-release", os_release.clone().into_bytes(), 0o644)?;
        let packages: Vec<&Package> = self.packages.iter().map(|built| built.package).collect();
        add_toml(root, "defaults.toml", &self.settings.defaults)?;
        add_toml(
            root,
            "config-files.toml",
            &content::config_files(&packages)?,
        )?;
        add_trust_store(root)?;
        if let Some(path) = &self.update_root {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            root.add_file(&format!("{SHARE}/update-root.json"), bytes, 0o644)?;
        }
        if self.variant.manifest.variant.data_volume.is_some() {
            // Tells the host to look for one.
            root.add_file(&format!("{SHARE}/data-volume"), Vec::new(), 0o644)?;
        }
        let inventory =
            serde_json::to_vec_pretty(&serde_json::json!({ "Content": self.package_lines() }))
                .context("cannot write the inventory")?;
        root.add_file(
            &format!("{SHARE}/application-inventory.json"),
            inventory,
            0o644,
        )?;
        Ok(os_release)
    }

    /// Compiles the policy and adds it where systemd loads it from.
    fn add_policy(&self, root: &mut Rootfs, work: &Path) -> Result<FileContexts> {
        let folder = work.join("policy");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut sources = vec![(
            "categories.cil".to_string(),
            selinux::categories().into_bytes(),
        )];
        let mut contexts = String::new();
        // The base comes first: later rules win.
        let (base, others): (Vec<_>, Vec<_>) = self
            .packages
            .iter()
            .partition(|built| built.package.name().as_str() == POLICY_PACKAGE);
        for built in base.iter().chain(&others) {
            let package = built.package;
            for file in files::policy_files(package)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let text =
                    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                sources.push((format!("{}-{name}", package.name()), text));
            }
            let file = package.folder.join("selinux/file_contexts");
            if file.exists() {
                let text = fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                FileContexts::parse(&text).with_context(|| file.display().to_string())?;
                contexts.push_str(&text);
            }
        }
        let mut arguments: Vec<String> = [
            "-c",
            "33",
            "-M",
            "true",
            "-f",
            "/dev/null",
            "-o",
            "/out/policy",
        ]
        .map(str::to_string)
        .into();
        for (name, text) in &sources {
            write(&folder.join(name), text)?;
            arguments.push(format!("{OUT}/{name}"));
        }
        let command = self
            .toolchain
            .sandbox()
            .writable(&folder, OUT)
            .command("secilc", arguments);
        run_logged("compile the SELinux policy", command, self.log)?;

        let etc = "usr/share/factory/etc/selinux";
        let name = selinux::POLICY_NAME;
        let config = format!("SELINUX=enforcing\nSELINUXTYPE={name}\n");
        root.add_file(&format!("{etc}/config"), config.into_bytes(), 0o644)?;
        let policy = folder.join("policy");
        let policy =
            fs::read(&policy).with_context(|| format!("cannot read {}", policy.display()))?;
        let version = selinux::POLICY_VERSION;
        root.add_file(
            &format!("{etc}/{name}/policy/policy.{version}"),
            policy,
            0o644,
        )?;
        let file = format!("{etc}/{name}/contexts/files/file_contexts");
        root.add_file(&file, contexts.clone().into_bytes(), 0o644)?;
        FileContexts::parse(&contexts).context("the packages' file_contexts do not fit together")
    }

    fn check(&self, root: &Rootfs) -> Result<()> {
        let exceptions: Vec<_> = self
            .packages
            .iter()
            .flat_map(|built| {
                let accept = &built.package.manifest.hardening.accept;
                accept
                    .iter()
                    .map(|line| (built.package.name().clone(), line.clone()))
            })
            .collect();
        check::check(root, &exceptions)
    }

    /// Renders every configuration file with the variant's defaults.
    fn check_templates(&self, root: &Rootfs, work: &Path) -> Result<()> {
        let folder = work.join("templates");
        export(root, &format!("{SHARE}/"), &folder)?;
        let read = |name: &str| {
            let path = folder.join(SHARE).join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let os = config_templates::Os {
            variant_id: self.variant.name.as_str().into(),
            version_id: "0.0.0".into(),
            arch: self.arch.to_string(),
            cpus: 1,
            data_bytes: 0,
        };
        config_templates::check(
            &read("config-files.toml")?,
            &folder,
            &read("defaults.toml")?,
            &os,
        )
        .with_context(|| {
            format!(
                "a configuration file cannot be rendered with the defaults of {}",
                self.variant.name
            )
        })
    }

    fn write_root(
        &self,
        root: &Rootfs,
        contexts: &FileContexts,
        work: &Path,
        erofs: &Path,
    ) -> Result<()> {
        let tar = work.join("root.tar");
        let entries = labelled(root, contexts);
        let file = File::create(&tar).with_context(|| format!("cannot make {}", tar.display()))?;
        rootfs_tar::write(&entries, BufWriter::new(file))
            .context("cannot write the archive of the root file system")?;
        let folder = erofs.parent().context("the image has no folder")?;
        let mut arguments = rootfs_tar::erofs_arguments(Compression::Small);
        arguments.extend([format!("{OUT}/root.erofs"), "/work/root.tar".to_string()]);
        let command = self
            .toolchain
            .sandbox()
            .read_only(work, "/work")
            .writable(folder, OUT)
            // A date in the environment would go into the superblock.
            .command(
                "env",
                ["-u", "SOURCE_DATE_EPOCH", "mkfs.erofs"]
                    .map(str::to_string)
                    .into_iter()
                    .chain(arguments),
            );
        run_logged("make the root file system", command, self.log)?;
        let size = size_of(erofs)?;
        if size > layout::ROOT_SIZE {
            bail!(
                "the root file system has {size} bytes, a slot only {}",
                layout::ROOT_SIZE
            );
        }
        Ok(())
    }

    fn write_disk(&self, path: &Path, esp: &[u8], erofs: &Path, verity: &[u8]) -> Result<()> {
        let options = disk::Options {
            architecture: self.arch.into(),
            data_size: layout::DATA_SIZE_MIN,
        };
        let parts = [
            (Role::Esp, disk::Content::Bytes(esp)),
            (Role::Root(Slot::A), disk::Content::File(erofs)),
            (Role::Verity(Slot::A), disk::Content::Bytes(verity)),
        ];
        disk::write(path, &options, &parts)
            .with_context(|| format!("cannot write the disk {}", path.display()))
    }

    /// `apiclient` is static, so it runs on the workstation too, beside the image.
    fn add_workstation_files(&self, out: &Path) -> Result<()> {
        for built in &self.packages {
            let program = built.tree.join("usr/bin/apiclient");
            if program.exists() {
                fs::copy(&program, out.join("apiclient"))
                    .with_context(|| format!("cannot copy {}", program.display()))?;
            }
        }
        Ok(())
    }

    /// The packages: ours by name, what was taken from Debian by binary package.
    fn package_lines(&self) -> Vec<PackageLine> {
        let mut lines = Vec::new();
        for built in &self.packages {
            let name = built.package.software().to_string();
            if let Some((module, version)) = &built.module {
                lines.push(PackageLine {
                    name,
                    version: version.trim_start_matches('v').to_string(),
                    source: module.clone(),
                });
            } else if built.package.manifest.cargo.is_some() || built.archives.is_empty() {
                lines.push(PackageLine {
                    name,
                    version: self.version.to_string(),
                    source: "bulkhead".to_string(),
                });
            }
            lines.extend(built.archives.iter().map(|archive| PackageLine {
                name: archive.name.clone(),
                version: archive.version.to_string(),
                source: archive.source.clone(),
            }));
        }
        lines.sort();
        lines.dedup();
        lines
    }
}

/// What Go programs of the image say that they were built from: the modules, and Go
/// itself, each with the package whose programs have it.
fn go_module_lines(root: &Rootfs) -> Result<Vec<PackageLine>> {
    let mut lines = Vec::new();
    for (path, entry) in root.iter() {
        let Some(bytes) = entry.read()? else { continue };
        if !bytes.starts_with(b"\x7fELF") {
            continue;
        }
        let info = BuildInfo::read(&bytes).with_context(|| format!("cannot read /{path}"))?;
        let Some(info) = info else { continue };
        let package = entry.package.as_ref().map(Name::to_string);
        let go = ("go".to_string(), info.go);
        lines.extend(
            info.modules
                .into_iter()
                .chain([go])
                .map(|(name, version)| PackageLine {
                    name,
                    version: version.trim_start_matches('v').to_string(),
                    source: package.clone().unwrap_or_default(),
                }),
        );
    }
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// Adds a document to Bulkhead's own data in the image.
fn add_toml(root: &mut Rootfs, name: &str, document: &impl Serialize) -> Result<()> {
    let text = toml::to_string(document).with_context(|| format!("cannot write {name}"))?;
    root.add_file(&format!("{SHARE}/{name}"), text.into_bytes(), 0o644)
}

/// Folder of the certificates, each a file.
const CERTIFICATES: &str = "usr/share/ca-certificates/";

/// Joins the certificates of public authorities into the one file that programs
/// read.
fn add_trust_store(root: &mut Rootfs) -> Result<()> {
    let mut bundle = Vec::new();
    for (_, entry) in root
        .iter()
        .filter(|(path, _)| path.starts_with(CERTIFICATES))
    {
        if let Some(certificate) = entry.read()? {
            bundle.extend(certificate);
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    root.remove(|path| {
        path.starts_with(CERTIFICATES) || path == CERTIFICATES.trim_end_matches('/')
    });
    root.add_file(&format!("{SHARE}/ca-certificates.crt"), bundle, 0o644)
}

/// The package whose policy files come first.
const POLICY_PACKAGE: &str = "selinux-policy";

/// Megabytes that a signed kernel image must stay below, so that an EFI system partition
/// holds several (and so that a loader on slow storage is quick). Lists of the kernel
/// that name many drivers may say more.
const KERNEL_IMAGE_LIMIT: usize = 20;

fn check_kernel_image_size(size: usize, limit: usize) -> Result<()> {
    if size > limit * 1_000_000 {
        bail!(
            "the unified kernel image has {size} bytes, more than the {limit} MB of \
             [kernel] image-limit"
        );
    }
    Ok(())
}

/// The entries with owner and label, as the archive wants them.
fn labelled(root: &Rootfs, contexts: &FileContexts) -> Vec<rootfs_tar::Entry> {
    let label = |path: &str, kind| contexts.label(path, kind).unwrap_or_default().to_string();
    let mut entries = vec![rootfs_tar::Entry {
        path: String::new(),
        kind: rootfs_tar::Kind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        label: label("/", FileKind::Folder),
    }];
    for (path, entry) in root.iter() {
        let (kind, file_kind) = match &entry.content {
            Content::Folder => (rootfs_tar::Kind::Dir, FileKind::Folder),
            Content::Link(target) => (rootfs_tar::Kind::Symlink(target.clone()), FileKind::Link),
            Content::File(source) => (rootfs_tar::Kind::File(source.clone()), FileKind::Regular),
            Content::Bytes(bytes) => (rootfs_tar::Kind::Bytes(bytes.clone()), FileKind::Regular),
        };
        entries.push(rootfs_tar::Entry {
            path: path.clone(),
            kind,
            mode: entry.mode,
            uid: 0,
            gid: 0,
            label: label(&format!("/{path}"), file_kind),
        });
    }
    entries
}

/// Copies the part of the root below `prefix` into the folder `to`.
fn export(root: &Rootfs, prefix: &str, to: &Path) -> Result<()> {
    for (path, entry) in root.iter().filter(|(path, _)| path.starts_with(prefix)) {
        let target = to.join(path);
        if entry.content == Content::Folder {
            fs::create_dir_all(&target)
                .with_context(|| format!("cannot make {}", target.display()))?;
        } else if let Some(bytes) = entry.read()? {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("cannot make {}", parent.display()))?;
            }
            write(&target, &bytes)?;
        }
    }
    Ok(())
}

fn remove_empty_folders(root: &mut Rootfs, prefix: &str) {
    let parents: std::collections::BTreeSet<String> = root
        .iter()
        .filter(|(_, entry)| entry.content != Content::Folder)
        .flat_map(|(path, _)| {
            path.match_indices('/')
                .map(|(end, _)| path[..end].to_string())
        })
        .collect();
    let empty: std::collections::BTreeSet<String> = root
        .iter()
        .filter(|(path, entry)| {
            entry.content == Content::Folder && path.starts_with(prefix) && !parents.contains(*path)
        })
        .map(|(path, _)| path.clone())
        .collect();
    root.remove(|path| empty.contains(path));
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Makes the volume that takes the data: blank, for the host makes its file system, and
/// a cloud has blank volumes of any size without an upload.
fn write_data_volume(path: &Path, size: ByteSize) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(size.0))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn size_of(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_image_that_is_too_large_is_refused() {
        assert!(check_kernel_image_size(20_000_000, KERNEL_IMAGE_LIMIT).is_ok());
        let error = check_kernel_image_size(20_000_001, KERNEL_IMAGE_LIMIT).unwrap_err();
        assert!(error.to_string().contains("image-limit"), "{error}");
        assert!(check_kernel_image_size(20_000_001, 24).is_ok());
    }
}
