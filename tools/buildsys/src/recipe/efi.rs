//! EFI programs of this repository: compiled for firmware by the toolchain's Rust.
//!
//! No compiled standard library for firmware is packaged, so `core` and `alloc`
//! are compiled from the toolchain's `rust-src` along with the program. That is
//! an unstable feature of cargo; the toolchain is locked, so that it is as stable
//! as the lock. Cargo makes a static library, and a linker an EFI program of it: that
//! of binutils where it can, for the one that rustc would use brings a second LLVM.
//!
//! Such a program has no dependencies (see `sources/boot-fallback/Cargo.toml`).

use super::cargo::Source;
use crate::executor::{JobContext, run_logged};
use crate::project::Arch;
use crate::sdk::Toolchain;
use crate::store;
use anyhow::{Context, Result};
use sandbox::Sandbox;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What EFI programs take from crates of the workspace, as `#[path]` modules.
const SHARED: &str = "sources/boot-slots/src/entry.rs";

/// Where the toolchain keeps what the standard library depends on.
const VENDORED: &str = "/usr/lib/rustlib/src/rust/library/vendor";

/// The sources of these programs.
pub fn source(workspace: &Path, crates: &BTreeSet<String>) -> Result<Source> {
    let mut paths: Vec<String> = crates
        .iter()
        .map(|name| format!("sources/{name}"))
        .collect();
    paths.push(SHARED.to_string());
    Source::of_files(workspace, &paths)
}

/// Builds the programs `crates`, each as `<crate>` in the folder `out`.
pub fn build(
    context: &JobContext,
    source: &Source,
    toolchain: &Toolchain,
    arch: Arch,
    crates: &BTreeSet<String>,
    out: &Path,
) -> Result<()> {
    let work = out.join("work");
    let (sources, target) = (work.join("source"), work.join("target"));
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    source.write_files(&sources)?;
    for name in crates {
        context
            .task()
            .note(format!("cargo build {name} for firmware"));
        let sandbox = toolchain
            .sandbox()
            .read_only(&sources, "/work")
            .writable(&target, "/target")
            .working_dir(format!("/work/sources/{name}"));
        compile(context, &sandbox, name, arch)?;
        let built = target.join(format!("{name}.efi"));
        fs::copy(&built, out.join(name))
            .with_context(|| format!("cannot copy the program {}", built.display()))?;
    }
    store::remove_tree(&work)
}

fn compile(context: &JobContext, sandbox: &Sandbox, name: &str, arch: Arch) -> Result<()> {
    let (triple, linker, emulation, application) = match (arch, crate::sdk::workstation()?) {
        (Arch::X86_64, Arch::X86_64) => ("x86_64-unknown-uefi", "ld", "i386pep", "10"),
        (Arch::X86_64, Arch::Aarch64) => (
            "x86_64-unknown-uefi",
            "x86_64-linux-gnu-ld",
            "i386pep",
            "10",
        ),
        // That of binutils makes no EFI programs for Arm.
        (Arch::Aarch64, _) => (
            "aarch64-unknown-uefi",
            "ld.lld",
            "arm64pe",
            "efi_application",
        ),
    };
    let replacement = format!("source.toolchain.directory=\"{VENDORED}\"");
    let cargo = sandbox
        .clone()
        .env("CARGO_HOME", "/tmp/cargo")
        .env("CARGO_TERM_COLOR", "never")
        .env("RUSTC_BOOTSTRAP", "1")
        .command(
            "cargo",
            [
                "build",
                "--frozen",
                "--release",
                "-Zbuild-std=core,alloc",
                "--target",
                triple,
                "--target-dir",
                "/target",
                "--config",
                "source.crates-io.replace-with=\"toolchain\"",
                "--config",
                &replacement,
            ],
        );
    run_logged(
        &format!("compile {name} for firmware"),
        cargo,
        context.log(),
    )?;
    let library = format!("/target/{triple}/release/lib{}.a", name.replace('-', "_"));
    let program = format!("/target/{name}.efi");
    let link = sandbox.clone().command(
        linker,
        [
            "-m",
            emulation,
            &format!("--subsystem={application}"),
            "--entry=efi_main",
            "--gc-sections",
            "--strip-all",
            "--no-insert-timestamp",
            "-o",
            &program,
            &library,
        ],
    );
    run_logged(&format!("link {name}"), link, context.log())
}
