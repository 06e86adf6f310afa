//! Checks that every image must pass before it is written.
//!
//! They look at the merged root, not at what a manifest promises: hardening of
//! each program, its libraries, no setuid file, no shell, no interpreter, no
//! script. Each fault names the file and the package; all are reported at once.

use crate::manifest::{HardeningException, Name};
use crate::rootfs::{Content, Entry, Rootfs};
use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::collections::BTreeSet;
use std::io::Read;

/// Programs that would let somebody work on the host as on any other machine.
const FORBIDDEN_PROGRAMS: [&str; 26] = [
    "apt", "apt-get", "ash", "awk", "bash", "busybox", "csh", "dash", "dpkg", "gawk", "gcc", "gdb",
    "ksh", "ld", "lua", "mawk", "perl", "python", "python3", "rpm", "sh", "sshd", "strace", "su",
    "sudo", "tcpdump",
];

/// Folders that the loader searches on every architecture built here.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];

/// Checks the whole root. `exceptions` are the `[hardening] accept` lines of its
/// packages.
pub fn check(root: &Rootfs, exceptions: &[(Name, HardeningException)]) -> Result<()> {
    let mut exceptions = Exceptions::new(exceptions)?;
    let mut faults = Vec::new();
    let libraries = library_names(root);
    for (path, entry) in root.iter() {
        check_entry(path, entry, &libraries, &mut exceptions, &mut faults)
            .with_context(|| format!("cannot check /{path}"))?;
    }
    faults.extend(exceptions.unused());
    if faults.is_empty() {
        return Ok(());
    }
    bail!(
        "the image does not pass its checks:\n  {}",
        faults.join("\n  ")
    )
}

/// Checks the root of a container image: whether each program finds its libraries. What
/// it may have besides is its own business.
pub fn check_container(root: &Rootfs) -> Result<()> {
    let libraries = library_names(root);
    let mut faults = Vec::new();
    for (path, entry) in root.iter() {
        let bytes = entry.read()?.unwrap_or_default();
        if !bytes.starts_with(b"\x7fELF") {
            continue;
        }
        let program =
            Program::parse(&bytes).with_context(|| format!("/{path} is no valid ELF file"))?;
        let missing = program
            .needed
            .iter()
            .filter(|name| !libraries.contains(*name));
        faults.extend(missing.map(|name| format!("/{path} needs {name}, which it has not")));
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!(
        "the container image is not whole:\n  {}",
        faults.join("\n  ")
    )
}

fn check_entry(
    path: &str,
    entry: &Entry,
    libraries: &BTreeSet<String>,
    exceptions: &mut Exceptions,
    faults: &mut Vec<String>,
) -> Result<()> {
    let mut fault = |what: String| {
        let owner = match &entry.package {
            Some(package) => format!(" (package {package})"),
            None => String::new(),
        };
        faults.push(format!("/{path}{owner}: {what}"));
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    let in_program_folder = path.starts_with("usr/bin/") || path.starts_with("usr/sbin/");
    if in_program_folder && FORBIDDEN_PROGRAMS.contains(&name) {
        fault("is a shell, an interpreter or a tool that an image must not have".into());
    }
    let Some(bytes) = entry.read()? else {
        return Ok(());
    };
    if entry.mode & 0o6000 != 0 {
        fault(format!("is setuid or setgid (mode {:o})", entry.mode));
    }
    if entry.mode & 0o002 != 0 {
        fault(format!(
            "may be written by everybody (mode {:o})",
            entry.mode
        ));
    }
    if bytes.starts_with(b"#!") {
        fault("is a script, and the host has no interpreter".into());
    }
    if name.ends_with(".ko") || name.ends_with(".ko.xz") {
        if !is_signed_module(name, &bytes)? {
            fault("is a kernel module without a signature".into());
        }
    } else if bytes.starts_with(b"\x7fELF") {
        let program = Program::parse(&bytes).context("it is no valid ELF file")?;
        for lacking in program.lacks() {
            if !exceptions.allow(path, lacking) {
                fault(format!(
                    "lacks {lacking}; build it with it, or accept that in its package's [hardening]"
                ));
            }
        }
        for library in &program.needed {
            if !libraries.contains(library) {
                fault(format!(
                    "needs {library}, which no package of the image has"
                ));
            }
        }
        if let Some(search) = &program.search_path
            && !LIBRARY_FOLDERS
                .iter()
                .any(|folder| search.starts_with(&format!("/{folder}/")))
        {
            fault(format!("searches libraries in {search}"));
        }
    }
    Ok(())
}

/// Names by which the loader can find a library: files, and links whose file was taken, too.
fn library_names(root: &Rootfs) -> BTreeSet<String> {
    let is_there = |path: &str, entry: &Entry| match (&entry.content, path.rsplit_once('/')) {
        (Content::Folder, _) => false,
        (Content::Link(target), Some((folder, _))) if !target.contains('/') => {
            root.get(&format!("{folder}/{target}")).is_some()
        }
        _ => true,
    };
    root.iter()
        .filter(|(path, entry)| path.starts_with("usr/lib") && is_there(path, entry))
        .filter_map(|(path, _)| path.rsplit('/').next())
        .filter(|name| name.contains(".so"))
        .map(str::to_string)
        .collect()
}

/// The kernel's marker at the end of a signed module.
const MODULE_SIGNATURE: &[u8] = b"~Module signature appended~\n";

/// A module larger than this is not one of a distribution's kernel.
const LARGEST_MODULE: u64 = 64 << 20;

fn is_signed_module(name: &str, bytes: &[u8]) -> Result<bool> {
    if !name.ends_with(".xz") {
        return Ok(bytes.ends_with(MODULE_SIGNATURE));
    }
    let mut module = Vec::new();
    liblzma::read::XzDecoder::new(bytes)
        .take(LARGEST_MODULE)
        .read_to_end(&mut module)
        .context("cannot decompress the kernel module")?;
    Ok(module.ends_with(MODULE_SIGNATURE))
}

/// What the checks need to know of an ELF file.
#[derive(Debug, Default)]
struct Program {
    position_independent: bool,
    for_arm: bool,
    has_relro: bool,
    binds_now: bool,
    executable_stack: bool,
    is_dynamic: bool,
    needed: Vec<String>,
    search_path: Option<String>,
}

impl Program {
    fn parse(bytes: &[u8]) -> Result<Self> {
        type Elf = elf::FileHeader64<object::Endianness>;
        let header = Elf::parse(bytes)?;
        let endian = header.endian()?;
        let mut program = Self {
            position_independent: header.e_type(endian) == elf::ET_DYN,
            for_arm: header.e_machine(endian) == elf::EM_AARCH64,
            executable_stack: true,
            ..Self::default()
        };
        for segment in header.program_headers(endian, bytes)? {
            match segment.p_type(endian) {
                elf::PT_GNU_RELRO => program.has_relro = true,
                elf::PT_GNU_STACK => {
                    program.executable_stack = segment.p_flags(endian) & elf::PF_X != 0;
                }
                _ => {}
            }
        }
        let sections = header.sections(endian, bytes)?;
        if let Some((dynamic, link)) = sections.dynamic(endian, bytes)? {
            program.is_dynamic = true;
            let strings = sections.strings(endian, bytes, link)?;
            for entry in dynamic {
                let value: u64 = entry.d_val(endian);
                let text = || -> Result<String> {
                    let name = entry.string(endian, strings)?;
                    Ok(String::from_utf8_lossy(name).into_owned())
                };
                match u32::try_from(entry.d_tag(endian)).unwrap_or(0) {
                    elf::DT_NEEDED => program.needed.push(text()?),
                    elf::DT_RPATH | elf::DT_RUNPATH => program.search_path = Some(text()?),
                    elf::DT_BIND_NOW => program.binds_now = true,
                    elf::DT_FLAGS if value & u64::from(elf::DF_BIND_NOW) != 0 => {
                        program.binds_now = true;
                    }
                    elf::DT_FLAGS_1 if value & u64::from(elf::DF_1_NOW) != 0 => {
                        program.binds_now = true;
                    }
                    _ => {}
                }
            }
        }
        Ok(program)
    }

    fn lacks(&self) -> Vec<&'static str> {
        let mut lacking = Vec::new();
        // Rust links static programs for Arm at a fixed address, whatever it is told.
        let may_be_fixed = self.for_arm && !self.is_dynamic;
        if !self.position_independent && !may_be_fixed {
            lacking.push("pie");
        }
        if !self.has_relro {
            lacking.push("relro");
        }
        if self.is_dynamic && !self.binds_now {
            lacking.push("bind-now");
        }
        if self.executable_stack {
            lacking.push("nx");
        }
        lacking
    }
}

/// The accepted exceptions, and which of them were needed.
struct Exceptions {
    rules: Vec<Rule>,
}

struct Rule {
    package: Name,
    text: String,
    path: GlobMatcher,
    lacks: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Exceptions {
    fn new(accepted: &[(Name, HardeningException)]) -> Result<Self> {
        let rules = accepted
            .iter()
            .map(|(package, exception)| {
                let glob = GlobBuilder::new(&exception.path)
                    .literal_separator(true)
                    .build()
                    .with_context(|| format!("[hardening] of the package {package}"))?;
                Ok(Rule {
                    package: package.clone(),
                    text: exception.path.clone(),
                    path: glob.compile_matcher(),
                    lacks: exception.lacks.clone(),
                    used: BTreeSet::new(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { rules })
    }

    fn allow(&mut self, path: &str, lacking: &str) -> bool {
        let mut allowed = false;
        for rule in &mut self.rules {
            if rule.lacks.contains(lacking) && rule.path.is_match(path) {
                rule.used.insert(lacking.to_string());
                allowed = true;
            }
        }
        allowed
    }

    fn unused(&self) -> Vec<String> {
        let mut unused = Vec::new();
        for rule in &self.rules {
            for lacking in rule.lacks.difference(&rule.used) {
                unused.push(format!(
                    "{} (package {}): [hardening] accepts that it lacks {lacking}, which nothing does; \
                     remove the line",
                    rule.text, rule.package
                ));
            }
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The test program itself, which the linker made position independent.
    fn program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("our own program")
    }

    fn root(files: &[(&str, Vec<u8>, u32)]) -> Rootfs {
        let mut root = Rootfs::new();
        for (path, content, mode) in files {
            root.add_file(path, content.clone(), *mode).expect("fits");
        }
        root
    }

    fn faults(root: &Rootfs, exceptions: &[(Name, HardeningException)]) -> String {
        match check(root, exceptions) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    fn exception(path: &str, lacks: &str) -> (Name, HardeningException) {
        let name = Name::try_from("sample".to_string()).expect("valid name");
        let exception = HardeningException {
            path: path.into(),
            lacks: BTreeSet::from([lacks.to_string()]),
            reason: "a test".into(),
        };
        (name, exception)
    }

    #[test]
    fn a_link_without_its_file_is_no_library() {
        let program = ("usr/bin/test", program(), 0o755);
        let mut image = root(&[program]);
        let tree = tempfile::tempdir().expect("folder");
        let folder = tree.path().join("usr/lib");
        std::fs::create_dir_all(&folder).expect("folder");
        std::os::unix::fs::symlink("libc-2.so", folder.join("libc.so.6")).expect("link");
        let package = Name::try_from("sample".to_string()).expect("valid name");
        image.add_tree(&package, tree.path()).expect("fits");
        assert!(faults(&image, &[]).contains("needs libc.so.6"));
        image
            .add_file("usr/lib/libc-2.so", Vec::new(), 0o755)
            .expect("fits");
        assert!(!faults(&image, &[]).contains("needs libc.so.6"));
    }

    #[test]
    fn faults_are_named() {
        for (path, content, mode, expected) in [
            ("usr/bin/sh", vec![], 0o755, "is a shell"),
            ("usr/bin/run", b"#!/bin/true".to_vec(), 0o755, "is a script"),
            ("usr/bin/su2", vec![], 0o4755, "setuid"),
            ("usr/lib/x", vec![], 0o666, "may be written by everybody"),
            (
                "usr/lib/modules/a.ko",
                b"unsigned".to_vec(),
                0o644,
                "without a signature",
            ),
            ("usr/bin/test", program(), 0o755, "needs libc.so.6"),
        ] {
            let found = faults(&root(&[(path, content, mode)]), &[]);
            assert!(
                found.contains(&format!("/{path}")) && found.contains(expected),
                "{found}"
            );
        }
    }

    #[test]
    fn a_clean_root_passes() {
        let module = [b"module".as_slice(), MODULE_SIGNATURE].concat();
        assert_eq!(
            faults(&root(&[("usr/lib/modules/a.ko", module, 0o644)]), &[]),
            ""
        );
    }

    #[test]
    fn clearing_position_independence_is_seen_and_can_be_accepted() {
        let mut bytes = program();
        bytes[16] = 2; // e_type: ET_EXEC
        let files = [
            ("usr/lib/libc.so.6", vec![], 0o644),
            ("usr/bin/test", bytes, 0o755),
        ];
        let root = root(&files);
        assert!(faults(&root, &[]).contains("lacks pie"));
        assert!(!faults(&root, &[exception("usr/bin/test", "pie")]).contains("lacks pie"));
    }

    #[test]
    fn only_static_programs_for_arm_may_be_at_a_fixed_address() {
        let fixed = |for_arm, is_dynamic| Program {
            for_arm,
            is_dynamic,
            ..Program::default()
        };
        assert!(!fixed(true, false).lacks().contains(&"pie"));
        assert!(fixed(true, true).lacks().contains(&"pie"));
        assert!(fixed(false, false).lacks().contains(&"pie"));
    }

    #[test]
    fn an_unused_exception_is_a_fault() {
        let found = faults(&root(&[]), &[exception("usr/bin/gone", "relro")]);
        assert!(
            found.contains("usr/bin/gone") && found.contains("remove the line"),
            "{found}"
        );
    }
}
