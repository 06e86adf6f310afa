//! The folder that keys lie in: which files there are, and in which order they appear.

use super::draft::Draft;
use super::source::{NewKey, Source};
use super::{Holders, Role, numbered};
use anyhow::{Context, Error, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use sysutil::fs::write_atomic;
use tough::schema::RoleType;
use tough::sign::Sign;

/// The one that images trust from now on. Once it was followed by another, every one is
/// there as `<version>.root.json`, too, by which hosts get from theirs to this one.
pub(super) const ROOT: &str = "root.json";
/// One that waits for signatures.
pub(super) const DRAFT: &str = "draft.root.json";
/// What the files of keys have after their names until the draft that names them is taken.
const NEW: &str = ".new";

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct KeyFolder(PathBuf);

impl KeyFolder {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Keeps others from changing it.
    pub(super) fn lock(&self) -> Result<File> {
        let locked = File::open(&self.0).and_then(|folder| folder.lock().map(|()| folder));
        locked.with_context(|| format!("cannot lock {}", self.0.display()))
    }

    /// The keys for a role that can be used, and what is wrong with the others. Of those
    /// that are nowhere nothing is said.
    pub(super) fn keys(&self, role: Role) -> (Vec<Box<dyn Sign>>, Vec<Error>) {
        let mut keys = Vec::new();
        let mut troubles = Vec::new();
        for suffix in ["", NEW] {
            let names = self.names(role, suffix).unwrap_or_else(|error| {
                troubles.push(error);
                Vec::new()
            });
            for name in names {
                let path = self.path(&name);
                let key = Source::in_file(&path).and_then(|source| source.signer());
                match key.with_context(|| format!("cannot use the key in {}", path.display())) {
                    Ok(key) => keys.push(key),
                    Err(error) => troubles.push(error),
                }
            }
        }
        (keys, troubles)
    }

    /// Gives roles of `draft` new keys, and has it signed by those that are there. It is taken
    /// when nothing lacks; else it comes back, if it `may_wait`, or is an error.
    pub(super) fn draft(
        &self,
        mut draft: Draft,
        given: &[(Role, &Holders)],
        may_wait: bool,
    ) -> Result<Option<Draft>> {
        for (role, holders) in given {
            let mut keys = Vec::new();
            let mut files = 0;
            for key in &holders.keys {
                let name = format!("{}{NEW}", file(*role, files));
                if !matches!(key, NewKey::Public(_)) {
                    files += 1;
                }
                keys.push(key.place(&self.path(&name))?);
            }
            draft.give(role.parts(), keys, holders.threshold)?;
        }
        let (keys, troubles) = self.keys(Role::Root);
        draft.sign(&keys)?;
        let lacks = draft.lacks();
        if lacks.is_empty() {
            self.take(&draft)?;
            return Ok(None);
        }
        if may_wait {
            draft.write(&self.path(DRAFT))?;
            report(&troubles);
            return Ok(Some(draft));
        }
        let lacks: Vec<_> = lacks.iter().map(ToString::to_string).collect();
        let error = Error::msg(lacks.join("; "));
        let error = match all(troubles) {
            Some(trouble) => trouble.context(error),
            None => error,
        };
        Err(error.context("not enough keys of the root sign; is root.key there?"))
    }

    /// Makes a draft that lacks nothing the `root.json`, and its keys those of the folder.
    pub(super) fn take(&self, draft: &Draft) -> Result<()> {
        let bytes = draft.bytes()?;
        let write = |name: &str, bytes: &[u8]| write_atomic(&self.path(name), bytes, 0o644);
        // The new root.json comes last: until then the old one holds, and this can be done again.
        if let Some(before) = &draft.before {
            let version = before.signed.version.get();
            write(&numbered(version), &self.read(ROOT)?)?;
            write(&numbered(version + 1), &bytes)?;
        }
        // What has the draft for its root.json is finished by `finish`.
        write(DRAFT, &bytes)?;
        write(ROOT, &bytes)?;
        let before = draft.before.as_ref().map(|before| &before.signed);
        for role in Role::ALL {
            let ids = |root: &tough::schema::Root, part: &RoleType| {
                root.roles.get(part).map(|role| role.keyids.clone())
            };
            let part = &role.parts()[0];
            if before.and_then(|root| ids(root, part)) == ids(&draft.root.signed, part) {
                continue;
            }
            let new = self.names(role, NEW)?;
            for name in self.names(role, "")? {
                if !new.contains(&format!("{name}{NEW}")) {
                    self.remove(&name)?;
                }
            }
        }
        self.finish()
    }

    /// Puts keys in place whose `root.json` is, as far as that was not done.
    pub(super) fn finish(&self) -> Result<()> {
        if !self.has(DRAFT) || !self.has(ROOT) {
            return Ok(());
        }
        let (root, taken) = (self.read(ROOT)?, self.read(DRAFT)?);
        if root != taken {
            return Ok(());
        }
        for role in Role::ALL {
            for name in self.names(role, NEW)? {
                let place = self.path(name.trim_end_matches(NEW));
                fs::rename(self.path(&name), &place)
                    .with_context(|| format!("cannot put {} in place", place.display()))?;
            }
        }
        self.sync()?;
        self.remove(DRAFT)
    }

    /// Removes what belongs to a `root.json` that is not taken.
    pub(super) fn give_up(&self) -> Result<()> {
        self.remove(DRAFT)?;
        for role in Role::ALL {
            for name in self.names(role, NEW)? {
                self.remove(&name)?;
            }
        }
        self.sync()
    }

    /// The names of the files of a role's keys, in order.
    fn names(&self, role: Role, suffix: &str) -> Result<Vec<String>> {
        let reading = || format!("cannot read {}", self.0.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            if let Some(name) = name.to_str()
                && let Some(number) = number(role, name, suffix)
            {
                names.push((number, name.to_string()));
            }
        }
        names.sort();
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.0).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("cannot sync {}", self.0.display()))
    }
}

/// The file of a role's key: `root.key`, `root-2.key` and so on.
fn file(role: Role, index: usize) -> String {
    match index {
        0 => format!("{}.key", role.name()),
        _ => format!("{}-{}.key", role.name(), index + 1),
    }
}

/// Which key of a role a file has, if it has one.
fn number(role: Role, name: &str, suffix: &str) -> Option<u32> {
    let rest = name.strip_prefix(role.name())?;
    match rest.strip_suffix(suffix)?.strip_suffix(".key")? {
        "" => Some(1),
        number => number.strip_prefix('-')?.parse().ok(),
    }
}

/// All of these as one.
pub(super) fn all(troubles: Vec<Error>) -> Option<Error> {
    let lines: Vec<_> = troubles.iter().map(|error| format!("{error:#}")).collect();
    (!lines.is_empty()).then(|| Error::msg(lines.join("; ")))
}

/// Says what keys could not be used, where it does without them.
pub(super) fn report(troubles: &[Error]) {
    for error in troubles {
        eprintln!("warning: {error:#}");
    }
}
