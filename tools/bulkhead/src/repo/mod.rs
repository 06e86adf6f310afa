//! `bulkhead repo`: repositories that hosts are updated from.

mod add;
mod create;
mod key;
mod limit;
mod refresh;
mod rotate;
mod sign_root;
mod simulate;
mod validate;

use anyhow::{Context, Result};
use buildsys::project::Project;
use clap::Subcommand;
use std::fs;
use std::path::{Path, PathBuf};
use sysutil::time::Time;
use update_repository::{Draft, Keys, Progress, Repository, Schedule, duration};

/// Arguments of `repo`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the keys that releases are signed with
    Create(create::Args),
    /// Release an image: sign it and add it to a repository
    Add(add::Args),
    /// Say which version hosts may run at most; newer ones are recalled
    Limit(limit::Args),
    /// Give releases, or the root itself, other keys, and make the old ones worthless
    Rotate(rotate::Args),
    /// Add signatures to a root.json that waits for them
    SignRoot(sign_root::Args),
    /// Show the public half of a key, for somebody else's `create` or `rotate`
    Key(key::Args),
    /// Sign a repository anew before it expires
    Refresh(refresh::Args),
    /// Show how a schedule of waves reaches a fleet
    Simulate(simulate::Args),
    /// Check a repository, in a folder or published, as a host sees it
    Validate(validate::Args),
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Create(args) => create::run(args),
        Verb::Add(args) => add::run(args),
        Verb::Limit(args) => limit::run(args),
        Verb::Rotate(args) => rotate::run(args),
        Verb::SignRoot(args) => sign_root::run(args),
        Verb::Key(args) => key::run(&args),
        Verb::Refresh(args) => refresh::run(args),
        Verb::Simulate(args) => simulate::run(args),
        Verb::Validate(args) => validate::run(args),
    }
}

/// Where keys and repository lie: the arguments that these verbs share.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// Folder of the repository
    #[arg(long)]
    repo: PathBuf,
    #[command(flatten)]
    keys: KeyFolder,
}

#[derive(Clone, Debug, clap::Args)]
struct KeyFolder {
    /// Folder of the keys, when it is not update-keys in the user's data folder
    #[arg(long)]
    keys: Option<PathBuf>,
}

impl KeyFolder {
    fn path(&self) -> Result<PathBuf> {
        match &self.keys {
            Some(folder) => Ok(folder.clone()),
            None => Ok(Project::find()?.update_keys_dir()),
        }
    }

    fn load(&self) -> Result<Keys> {
        Keys::load(&self.path()?)
    }
}

/// What verbs are given that sign a `root.json`.
#[derive(Clone, Debug, clap::Args)]
struct NewRoot {
    #[command(flatten)]
    keys: KeyFolder,
    /// For how long hosts may start from the new root.json; its key has to sign the next one
    #[arg(long, default_value = "520 weeks")]
    good_for: String,
    /// When keys that have to sign are not here, leave a draft for them to sign
    #[arg(long)]
    draft: bool,
}

impl NewRoot {
    fn good_until(&self) -> Result<Time> {
        let good_for = &self.good_for;
        let good_for = duration(good_for)
            .with_context(|| format!("--good-for {good_for} is nothing such as \"52 weeks\""))?;
        Ok(Time::now().plus(good_for.as_secs()))
    }
}

/// One repository in it: what a verb about all its releases is given.
#[derive(Clone, Debug, clap::Args)]
struct Fleet {
    #[command(flatten)]
    place: Place,
    /// The variant
    #[arg(long)]
    variant: String,
    /// Processor architecture
    #[arg(long, default_value = "x86_64")]
    arch: String,
}

impl Fleet {
    fn open(&self) -> Result<(Repository, Keys)> {
        let repository = self.place.repository(&self.variant, &self.arch);
        Ok((repository, self.place.keys.load()?))
    }
}

impl Place {
    fn repository(&self, variant: &str, arch: &str) -> Repository {
        Repository::new(&self.repo, variant, arch)
    }
}

/// Says what has become of a `root.json`.
fn tell(made: &Progress, draft: &Path) {
    match made {
        Progress::Taken(keys) => println!("{}", keys.root_path().display()),
        Progress::Waits(waits) => {
            println!("{}", draft.display());
            eprint!("{waits}");
            tell_lacks(waits);
        }
    }
}

/// Says whose signatures lack.
fn tell_lacks(draft: &Draft) {
    let lacks = draft.lacks();
    for lack in &lacks {
        eprintln!("it has {lack}");
    }
    if lacks.is_empty() {
        eprintln!("it has all signatures");
    }
}

fn say(what: &str, repository: &Repository) {
    println!(
        "{what}; {} is good for a week",
        repository.metadata().display()
    );
}

/// The schedule in a file, or the one of releases that have none.
fn schedule(path: Option<&Path>) -> Result<Schedule> {
    let Some(path) = path else {
        return Ok(Schedule::default());
    };
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Schedule::parse(&text).with_context(|| format!("{} is no schedule", path.display()))
}
