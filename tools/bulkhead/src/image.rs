//! `bulkhead image`: container images that packages make for the host's own containers.

use anyhow::{Context, Result, bail, ensure};
use buildsys::lock::FetchOptions;
use buildsys::manifest::Name;
use buildsys::package::{self, PackageTree};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::sdk;
use clap::Subcommand;
use std::path::PathBuf;
use std::process::Command;

/// The package with the client that pushes, and where it lies there.
const REGISTRY: &str = "registry";
const CLIENT: &str = "usr/bin/crane";

/// Build or push an image for host containers.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the image of a package, and print the folder with it, an OCI layout.
    Build(Image),
    /// Build the image of a package, and push it to a registry.
    Push(Push),
}

#[derive(clap::Args)]
struct Image {
    /// The package, such as admin or control.
    #[arg(value_parser = name)]
    package: Name,
    /// Processor architecture: x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Fail where the lock would have to change.
    #[arg(long)]
    locked: bool,
}

#[derive(clap::Args)]
struct Push {
    #[command(flatten)]
    image: Image,
    /// Where to, such as registry.example.com/admin:1. Who logs in there, and with which
    /// password, is what `docker login` has written.
    reference: String,
}

/// The name of a package, from the command line.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_string())
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let progress = Progress::new();
    match args.action {
        Action::Build(image) => {
            let tree = build(&project, &image, &progress)?;
            println!("{}", layout(&tree)?.display());
            Ok(())
        }
        Action::Push(push) => push_image(&project, &push, &progress),
    }
}

fn build(project: &Project, image: &Image, progress: &Progress) -> Result<PackageTree> {
    build_package(project, &image.package, image.arch, image.locked, progress)
}

fn build_package(
    project: &Project,
    package: &Name,
    arch: Arch,
    locked: bool,
    progress: &Progress,
) -> Result<PackageTree> {
    let names = [package.clone()];
    let mut trees = package::build(project, &names, arch, FetchOptions { locked }, progress)?;
    trees.pop().context("no package was built")
}

/// Where the image lies in the tree of its package.
fn layout(tree: &PackageTree) -> Result<PathBuf> {
    let folder = package::HOST_IMAGES;
    let found = tree.file(&format!("{folder}/{}", tree.name));
    found.with_context(|| {
        format!(
            "the package {} makes no image for host containers: it has no [container-image] with packages",
            tree.name
        )
    })
}

fn push_image(project: &Project, push: &Push, progress: &Progress) -> Result<()> {
    ensure!(
        push.reference.contains('/'),
        "{:?} names no registry: write registry.example.com/{}:TAG",
        push.reference,
        push.image.package
    );
    let tree = build(project, &push.image, progress)?;
    let layout = layout(&tree)?;
    let registry = name(REGISTRY).map_err(anyhow::Error::msg)?;
    let locked = push.image.locked;
    let registry = build_package(project, &registry, sdk::workstation()?, locked, progress)?;
    let client = registry.file(CLIENT)?;
    // It reads what the user has said of registries, proxies and authorities itself.
    let status = Command::new(&client)
        .arg("push")
        .arg(&layout)
        .arg(&push.reference)
        .status()
        .with_context(|| format!("cannot run {}", client.display()))?;
    if !status.success() {
        bail!(
            "{} was not pushed to {}: {status}",
            tree.name,
            push.reference
        );
    }
    Ok(())
}
