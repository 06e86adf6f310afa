//! Building an image: the sequence of steps.
//!
//! [`build`] reads as that sequence. What to build is decided by
//! [`Plan`](crate::plan::Plan), trees of packages come from
//! [`recipe`](crate::recipe), and [`assemble`] makes the files of the image from
//! them. Outputs appear whole or not at all: an image is made in a folder beside
//! its place and renamed into it.

pub mod assemble;
pub mod boot;
pub mod content;
pub mod description;
pub mod inspect;
pub mod modules;
pub mod verify;

use crate::executor::JobContext;
use crate::keys::Keys;
use crate::lock::{self, FetchOptions};
use crate::manifest::Definitions;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::project::{Arch, Project};
use crate::store::{self, Store};
use anyhow::{Context, Result, bail};
use assemble::Ingredients;
use content::VariantSettings;
use description::Description;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Name of the variant; the project's default when none is given.
    pub variant: Option<String>,
    /// Architecture.
    pub arch: Arch,
    /// Whether an archive that the mirror has dropped is an error instead of a
    /// reason to lock again.
    pub locked: bool,
}

/// A built image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What `image.json` says.
    pub description: Description,
    /// Whether anything had to be done.
    pub rebuilt: bool,
}

/// Builds the image, or finds that it is there already.
pub fn build(project: &Project, request: &BuildRequest, progress: &Progress) -> Result<Image> {
    let definitions = Definitions::load(project)?;
    let name = request
        .variant
        .as_deref()
        .unwrap_or(&project.config.release.default_variant);
    let variant = definitions.variant(name)?;
    let settings = VariantSettings::read(&definitions, &variant)?;
    let keys = Keys::load_or_create(&project.keys_dir())?;
    let options = FetchOptions {
        locked: request.locked,
    };
    let mut lock = lock::load_complete(project, options, progress)?;
    let mut plan = Plan::new(project, &definitions, &variant, request.arch, &lock, &keys)?;

    let place = place(project, &plan);
    if let Some(description) = up_to_date(&place, &plan) {
        link_latest(&place)?;
        return Ok(Image {
            folder: place,
            description,
            rebuilt: false,
        });
    }

    let store = Store::open(&project.store_dir(), project.config.store.size_limit.0)?;
    let packages = plan.packages();
    if packages.fetch(project, &mut lock, &store, request.locked, progress)? {
        // The mirror has moved on and so has the lock: what follows is planned anew.
        plan = Plan::new(project, &definitions, &variant, request.arch, &lock, &keys)?;
        let packages = plan.packages();
        packages.fetch(project, &mut lock, &store, true, progress)?;
    }
    let logs = project.build_dir().join("logs");
    let built = plan
        .packages()
        .build(project, &lock, &store, &logs, progress)?;
    let toolchain = built.toolchain.context("the toolchain is missing")?;

    let job = JobContext::new(&format!("{name}-image"), &logs, progress);
    let ingredients = Ingredients {
        variant: &variant,
        settings: &settings,
        arch: request.arch,
        version: &project.config.release.version,
        key: plan.key().as_str(),
        content: plan.content().as_str(),
        packages: built.packages,
        toolchain: &toolchain,
        keys: &keys,
        update_root: project.update_root(),
        log: job.log(),
    };
    let there = || up_to_date(&place, &plan);
    let (description, rebuilt) = make_at(&place, there, |staging| {
        let description = ingredients.assemble(staging, job.task())?;
        description.write(staging)?;
        Ok(description)
    })?;
    link_latest(&place)?;
    store.trim()?;
    job.task().note("done");
    Ok(Image {
        folder: place,
        description,
        rebuilt,
    })
}

/// `build/images/<variant>-<arch>/<version>`.
fn place(project: &Project, plan: &Plan<'_>) -> PathBuf {
    project
        .images_dir(plan.variant().name.as_str(), plan.packages().arch())
        .join(&project.config.release.version)
}

/// The description of the image at `place`, if it is what the plan would make.
fn up_to_date(place: &Path, plan: &Plan<'_>) -> Option<Description> {
    let description = Description::read(place).ok()?;
    (description.key == plan.key().as_str()).then_some(description)
}

/// A path in the same folder, with `suffix` after the name.
fn beside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// Has `make` fill a folder that then is moved to `place`, and says that it did, unless what
/// is wanted is `there` already. Of builds at the same time one makes it, and the others wait
/// for that.
fn make_at<T>(
    place: &Path,
    there: impl Fn() -> Option<T>,
    make: impl FnOnce(&Path) -> Result<T>,
) -> Result<(T, bool)> {
    let _turn = store::lock_exclusive(&beside(place, ".lock"))?;
    if let Some(found) = there() {
        return Ok((found, false));
    }
    let staging = beside(place, ".new");
    store::remove_tree(&staging)?;
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let made = make(&staging)?;
    publish(&staging, place)?;
    Ok((made, true))
}

/// Moves a finished image into its place. An image that lies there is moved away
/// first; a cut between the two renames leaves no image, never half of one.
fn publish(staging: &Path, place: &Path) -> Result<()> {
    let old = beside(place, ".old");
    store::remove_tree(&old)?;
    let moving = || format!("cannot move {} to {}", staging.display(), place.display());
    if place.exists() {
        fs::rename(place, &old).with_context(moving)?;
    }
    fs::rename(staging, place).with_context(moving)?;
    store::remove_tree(&old)
}

fn link_latest(place: &Path) -> Result<()> {
    let (Some(folder), Some(version)) = (place.parent(), place.file_name()) else {
        bail!("{} is no place for an image", place.display());
    };
    let link = folder.join("latest");
    if fs::read_link(&link).is_ok_and(|target| target.as_os_str() == version) {
        return Ok(());
    }
    let linking = || format!("cannot make the link {}", link.display());
    let temporary = folder.join("latest.new");
    store::remove_tree(&temporary)?;
    symlink(version, &temporary).with_context(linking)?;
    fs::rename(&temporary, &link).with_context(linking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn of_builds_at_once_one_makes_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let place = &folder.path().join("images/variant/1.0.0");
        let there = || fs::read_to_string(place.join("image.json")).ok();
        let make = |staging: &Path| {
            fs::write(staging.join("image.json"), "half")?;
            thread::sleep(Duration::from_millis(50));
            fs::write(staging.join("image.json"), "whole")?;
            Ok("whole".to_string())
        };
        let mut made = thread::scope(|scope| {
            let builds = [(); 4].map(|()| scope.spawn(|| make_at(place, there, make).unwrap()));
            builds.map(|build| build.join().unwrap())
        });
        made.sort_by_key(|(_, made)| *made);
        let expected = [false, false, false, true].map(|made| ("whole".to_string(), made));
        assert_eq!(made, expected);
    }
}
