//! The content-addressed store of build outputs.
//!
//! An entry is a folder named by the [`Key`] of everything that went into it, so
//! it never changes once it is there. It comes into being in `staging/` and is
//! renamed into `entries/` when it is complete and on disk; whoever is killed
//! before that leaves a leftover that the next one removes.
//!
//! ```text
//! entries/<key>/      finished outputs
//! staging/<key>/      being built, being removed, or left over
//! used/<key>          the entry's size; its time of change is the last use
//! locks/<key>.pin     shared by builders and users, exclusive for removal
//! locks/<key>.build   exclusive for the builder
//! ```
//!
//! Locks are `flock`s, which the kernel releases with their holder. A builder
//! pins its key before it starts, so that there is no moment between building
//! and using at which the entry could go.
//!
//! Permissions of entries are those that the build made, for they are content;
//! what protects entries is that sandboxes see them read-only.

use crate::signals;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// Up to this many files are synced one by one; beyond, the whole file system.
const FEW_FILES: usize = 64;

/// Name of an entry: a word for people and the hash of all that went into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text, which is also a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_file_name(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let (kind, hash) = name.rsplit_once('-')?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hash && !kind.is_empty() && !name.contains('.')).then(|| Self(name.to_string()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes labelled fields into a [`Key`].
///
/// Labels and values go in with their lengths, so no two different sequences of
/// fields give the same bytes.
#[derive(Clone)]
pub struct KeyBuilder {
    kind: &'static str,
    hash: Sha256,
}

impl KeyBuilder {
    /// A key of this `kind`: a lower-case word or a few joined by `-`.
    pub fn new(kind: &'static str) -> Self {
        let mut hash = Sha256::new();
        update(&mut hash, kind.as_bytes());
        Self { kind, hash }
    }

    /// Adds a value.
    #[must_use]
    pub fn field(mut self, label: &str, value: impl AsRef<[u8]>) -> Self {
        update(&mut self.hash, label.as_bytes());
        update(&mut self.hash, value.as_ref());
        self
    }

    /// Adds another entry's key.
    #[must_use]
    pub fn key(self, label: &str, key: &Key) -> Self {
        self.field(label, key.as_str())
    }

    /// Adds the content of a file and whether it is executable.
    pub fn file(self, label: &str, path: &Path) -> Result<Self> {
        let mut hash = Sha256::new();
        hash_file(&mut hash, path)?;
        Ok(self.field(label, hash.finalize()))
    }

    /// Adds the content of a folder: names, kinds, link targets, executable bits
    /// and bytes of all that lies in it, but no times and no owners.
    pub fn tree(self, label: &str, path: &Path) -> Result<Self> {
        let mut hash = Sha256::new();
        hash_folder(&mut hash, path)?;
        Ok(self.field(label, hash.finalize()))
    }

    /// The key of all fields so far.
    pub fn finish(self) -> Key {
        Key(format!(
            "{}-{}",
            self.kind,
            hex::encode(self.hash.finalize())
        ))
    }
}

fn update(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn hash_file(hash: &mut Sha256, path: &Path) -> Result<()> {
    let read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(read)?;
    let metadata = file.metadata().with_context(read)?;
    let mut content = Sha256::new();
    io::copy(&mut file, &mut content).with_context(read)?;
    update(
        hash,
        if metadata.mode() & 0o111 == 0 {
            b"file"
        } else {
            b"program"
        },
    );
    update(hash, &content.finalize());
    Ok(())
}

fn hash_folder(hash: &mut Sha256, folder: &Path) -> Result<()> {
    update(hash, b"folder");
    let mut entries = list(folder)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in &entries {
        let path = entry.path();
        let look = || format!("cannot look at {}", path.display());
        let kind = entry.file_type().with_context(look)?;
        update(hash, entry.file_name().as_bytes());
        if kind.is_dir() {
            hash_folder(hash, &path)?;
        } else if kind.is_symlink() {
            update(hash, b"link");
            update(
                hash,
                fs::read_link(&path)
                    .with_context(look)?
                    .as_os_str()
                    .as_bytes(),
            );
        } else if kind.is_file() {
            hash_file(hash, &path)?;
        } else {
            bail!(
                "{} is neither file, folder nor symbolic link",
                path.display()
            );
        }
    }
    update(hash, b"end of folder");
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot list {}", folder.display()))
}

/// A finished output. While one exists, the store does not remove the folder.
#[derive(Clone, Debug)]
pub struct Entry {
    path: PathBuf,
    key: Key,
    _pin: Arc<File>,
}

impl Entry {
    /// The folder. Nothing may be changed in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entry's key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// What removing entries has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Entries removed.
    pub entries: u64,
    /// Space that they took.
    pub bytes: u64,
    /// Entries kept because a running build uses them.
    pub in_use: u64,
}

/// The store. Any number of processes and threads may use one at a time.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    limit: u64,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there, and removes
    /// what killed builds have left. Entries may take `limit` bytes together.
    pub fn open(folder: &Path, limit: u64) -> Result<Self> {
        let store = Self {
            folder: folder.to_path_buf(),
            limit,
        };
        for part in ["entries", "staging", "used", "locks"] {
            let path = store.folder.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot make the store's folder {}", path.display()))?;
        }
        store.remove_leftovers()?;
        Ok(store)
    }

    /// The entry for `key`, if it was built before.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>> {
        // Looking first spares keys that were never built a lock file.
        if !self.entry(key).exists() {
            return Ok(None);
        }
        let pin = self.pin(key)?;
        self.entry_if_there(key, pin)
    }

    /// The entry for `key`, which `build` makes in the folder it is given unless
    /// it is there already. When another build is making it, waits for that.
    pub fn build(&self, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<Entry> {
        let pin = self.pin(key)?;
        if let Some(entry) = self.entry_if_there(key, pin.clone())? {
            return Ok(entry);
        }
        let lock = self.folder.join("locks").join(format!("{key}.build"));
        let _building = acquire(&lock, Mode::Exclusive, Wait::Yes)?;
        if let Some(entry) = self.entry_if_there(key, pin.clone())? {
            return Ok(entry);
        }
        let staging = self.staging(key);
        remove_tree(&staging)?;
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&staging)
            .with_context(|| format!("cannot make the folder {}", staging.display()))?;
        // Whatever goes wrong from here on, also a panic, leaves nothing behind.
        let cleanup = RemoveOnDrop(&staging);
        build(&staging)?;
        // A killed step may look like a finished one to its job.
        signals::check()?;
        let bytes = sync_tree(&staging)
            .with_context(|| format!("cannot write the output {key} to disk"))?;
        let used = self.used(key);
        fs::write(&used, bytes.to_string())
            .with_context(|| format!("cannot write {}", used.display()))?;
        let entry = self.entry(key);
        fs::rename(&staging, &entry).with_context(|| {
            format!("cannot rename {} to {}", staging.display(), entry.display())
        })?;
        std::mem::forget(cleanup);
        let entries = self.folder.join("entries");
        File::open(&entries)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot sync {}", entries.display()))?;
        let entry = Entry {
            path: entry,
            key: key.clone(),
            _pin: pin,
        };
        self.trim()?;
        Ok(entry)
    }

    /// Removes entries, least recently used first, until the rest is within the
    /// limit or in use.
    pub fn trim(&self) -> Result<Freed> {
        self.remove_down_to(self.limit)
    }

    /// Removes all entries that no running build uses.
    pub fn clear(&self) -> Result<Freed> {
        self.remove_down_to(0)
    }

    /// Entries and the space that they take.
    pub fn usage(&self) -> Result<(u64, u64)> {
        let records = self.records()?;
        Ok((
            records.len() as u64,
            records.iter().map(|record| record.bytes).sum(),
        ))
    }

    fn entry(&self, key: &Key) -> PathBuf {
        self.folder.join("entries").join(key.as_str())
    }

    fn staging(&self, key: &Key) -> PathBuf {
        self.folder.join("staging").join(key.as_str())
    }

    fn used(&self, key: &Key) -> PathBuf {
        self.folder.join("used").join(key.as_str())
    }

    fn pin_path(&self, key: &Key) -> PathBuf {
        self.folder.join("locks").join(format!("{key}.pin"))
    }

    fn pin(&self, key: &Key) -> Result<Arc<File>> {
        let pin = acquire(&self.pin_path(key), Mode::Shared, Wait::Yes)?;
        Ok(Arc::new(
            pin.context("a lock that was waited for was not given")?,
        ))
    }

    fn entry_if_there(&self, key: &Key, pin: Arc<File>) -> Result<Option<Entry>> {
        let path = self.entry(key);
        if !path.exists() {
            return Ok(None);
        }
        let used = self.used(key);
        let touch = File::options()
            .write(true)
            .open(&used)
            .and_then(|record| record.set_modified(SystemTime::now()));
        match touch {
            // Without a record the entry would never be removed; say its size again.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::write(&used, tree_size(&path)?.to_string())
            }
            other => other,
        }
        .with_context(|| format!("cannot note the use of {key} in {}", used.display()))?;
        Ok(Some(Entry {
            path,
            key: key.clone(),
            _pin: pin,
        }))
    }

    fn remove_leftovers(&self) -> Result<()> {
        for entry in list(&self.folder.join("staging"))? {
            match Key::from_file_name(&entry.file_name()) {
                Some(key) => {
                    if let Some(_pin) = self.exclusive(&key)? {
                        remove_tree(&self.staging(&key))?;
                    }
                }
                None => remove_tree(&entry.path())?,
            }
        }
        // Lock files of keys that have no entry, after failed or killed builds.
        for entry in list(&self.folder.join("locks"))? {
            let name = entry.file_name();
            let Some(key) = Path::new(&name).file_stem().and_then(Key::from_file_name) else {
                continue;
            };
            if !self.entry(&key).exists()
                && let Some(_pin) = self.exclusive(&key)?
                && !self.entry(&key).exists()
            {
                remove_file(&self.used(&key))?;
                self.remove_locks(&key)?;
            }
        }
        Ok(())
    }

    /// The right to remove what belongs to `key`, unless somebody uses it.
    fn exclusive(&self, key: &Key) -> Result<Option<File>> {
        acquire(&self.pin_path(key), Mode::Exclusive, Wait::No)
    }

    /// To be called with the key's exclusive pin; the pin's file goes last, for
    /// who has opened it meanwhile finds it gone and opens a new one.
    fn remove_locks(&self, key: &Key) -> Result<()> {
        remove_file(&self.folder.join("locks").join(format!("{key}.build")))?;
        remove_file(&self.pin_path(key))
    }

    fn remove_down_to(&self, limit: u64) -> Result<Freed> {
        let mut records = self.records()?;
        let mut total: u64 = records.iter().map(|record| record.bytes).sum();
        let mut freed = Freed::default();
        if total <= limit && limit > 0 {
            return Ok(freed);
        }
        records.sort_by_key(|record| record.last_use);
        for record in records {
            if total <= limit && limit > 0 {
                break;
            }
            let Some(_pin) = self.exclusive(&record.key)? else {
                freed.in_use += 1;
                continue;
            };
            let (entry, staging) = (self.entry(&record.key), self.staging(&record.key));
            remove_tree(&staging)?;
            match fs::rename(&entry, &staging) {
                Ok(()) => {
                    freed.entries += 1;
                    freed.bytes += record.bytes;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", entry.display()));
                }
            }
            total = total.saturating_sub(record.bytes);
            remove_file(&self.used(&record.key))?;
            remove_tree(&staging)?;
            self.remove_locks(&record.key)?;
        }
        Ok(freed)
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in list(&self.folder.join("used"))? {
            let Some(key) = Key::from_file_name(&entry.file_name()) else {
                continue;
            };
            // It may be removed by another process at this moment.
            let (Ok(metadata), Ok(text)) = (entry.metadata(), fs::read_to_string(entry.path()))
            else {
                continue;
            };
            let last_use = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            // A record that a full disk or a crash has emptied says nothing.
            let bytes = match text.parse() {
                Ok(bytes) => bytes,
                Err(_) => tree_size(&self.entry(&key)).unwrap_or(0),
            };
            records.push(Record {
                key,
                last_use,
                bytes,
            });
        }
        Ok(records)
    }
}

struct Record {
    key: Key,
    last_use: SystemTime,
    bytes: u64,
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // The next build of the same key or the next opening tries again.
        let _ = remove_tree(self.0);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Shared,
    Exclusive,
}

#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Yes,
    No,
}

/// Takes an exclusive lock on the file `path`, which is made if it is not there;
/// waits for it, but not beyond a signal.
pub fn lock_exclusive(path: &Path) -> Result<File> {
    acquire(path, Mode::Exclusive, Wait::Yes)?.context("a lock that was waited for was not given")
}

/// As [`lock_exclusive`], but `None` if somebody else has the lock.
pub fn try_lock_exclusive(path: &Path) -> Result<Option<File>> {
    acquire(path, Mode::Exclusive, Wait::No)
}

/// Opens and locks `path`; `None` if that needs waiting and `wait` says no.
fn acquire(path: &Path, mode: Mode, wait: Wait) -> Result<Option<File>> {
    let mut pause = Duration::from_millis(2);
    loop {
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let file = match (opened, path.parent()) {
            (Err(error), Some(folder)) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the folder {}", folder.display()))?;
                continue;
            }
            (opened, _) => {
                opened.with_context(|| format!("cannot open the lock {}", path.display()))?
            }
        };
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => {
                // Who removes an entry removes its locks; a lock on a file that
                // has no name any more keeps nobody out.
                let ours = file.metadata().map(|metadata| metadata.ino());
                let named = fs::metadata(path).map(|metadata| metadata.ino());
                if matches!((ours, named), (Ok(a), Ok(b)) if a == b) {
                    return Ok(Some(file));
                }
            }
            Err(TryLockError::WouldBlock) if wait == Wait::No => return Ok(None),
            Err(TryLockError::WouldBlock) => {
                // Polled, because a blocking flock would sleep through a signal.
                signals::check()?;
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a tree, also one with folders that nobody may write to.
pub fn remove_tree(path: &Path) -> Result<()> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    let result = match remove() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            make_removable(path);
            remove()
        }
        other => other,
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Gives the owner all rights to the folders of a tree, as far as that goes; the
/// removal that follows tells what did not.
fn make_removable(path: &Path) {
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_removable(&entry.path());
        }
    }
}

/// Space that a tree takes on disk, files with several names counted once.
pub fn tree_size(path: &Path) -> Result<u64> {
    let mut size = 0;
    walk(path, &mut |_, metadata| size += metadata.blocks() * 512)?;
    Ok(size)
}

/// Makes sure that a tree is on disk, and tells the space it takes.
fn sync_tree(path: &Path) -> Result<u64> {
    let mut size = 0;
    let mut to_sync = Vec::new();
    walk(path, &mut |path, metadata| {
        size += metadata.blocks() * 512;
        if (metadata.is_file() || metadata.is_dir()) && to_sync.len() <= FEW_FILES {
            to_sync.push(path.to_path_buf());
        }
    })?;
    let sync = |path: &Path| format!("cannot sync {}", path.display());
    if to_sync.len() <= FEW_FILES && to_sync.iter().all(|path| File::open(path).is_ok()) {
        for path in to_sync {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .with_context(|| sync(&path))?;
        }
    } else {
        let folder = File::open(path).with_context(|| sync(path))?;
        nix::unistd::syncfs(folder).with_context(|| sync(path))?;
    }
    Ok(size)
}

/// Calls `visit` for everything in a tree, the tree's own folder included, once
/// for a file with several names.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) -> Result<()> {
    fn inner(
        path: &Path,
        seen: &mut HashSet<u64>,
        visit: &mut dyn FnMut(&Path, &fs::Metadata),
    ) -> Result<()> {
        let metadata = fs::symlink_metadata(path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if metadata.is_dir() || metadata.nlink() == 1 || seen.insert(metadata.ino()) {
            visit(path, &metadata);
        }
        if metadata.is_dir() {
            for entry in list(path)? {
                inner(&entry.path(), seen, visit)?;
            }
        }
        Ok(())
    }
    inner(path, &mut HashSet::new(), visit)
}

/// SHA-256 of a file, as hexadecimal text.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if length == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tempfile::TempDir;

    const PLENTY: u64 = 1 << 40;

    fn store(limit: u64) -> (TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), limit).unwrap();
        (folder, store)
    }

    fn key(name: &str) -> Key {
        KeyBuilder::new("test").field("name", name).finish()
    }

    fn put(store: &Store, name: &str) -> Entry {
        store
            .build(&key(name), |staging| {
                Ok(fs::write(staging.join("name"), name)?)
            })
            .unwrap()
    }

    /// What lies in the store's folders, without the hashes' noise.
    fn names(store: &Store, part: &str) -> Vec<String> {
        let mut names: Vec<String> = list(&store.folder.join(part))
            .unwrap()
            .iter()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn keys_differ_where_anything_differs() {
        let keys = [
            KeyBuilder::new("a").finish(),
            KeyBuilder::new("b").finish(),
            KeyBuilder::new("a").field("x", "yz").finish(),
            KeyBuilder::new("a").field("xy", "z").finish(),
            KeyBuilder::new("a").field("x", "y").field("z", "").finish(),
            KeyBuilder::new("a").field("x", "").field("y", "z").finish(),
        ];
        let different: HashSet<&Key> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(key("same"), key("same"));
        assert_eq!(
            Key::from_file_name(OsStr::new(key("x").as_str())),
            Some(key("x"))
        );
        assert_eq!(Key::from_file_name(OsStr::new("lost+found")), None);
    }

    #[test]
    fn a_trees_key_is_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let tree = || KeyBuilder::new("t").tree("x", root).unwrap().finish();
        let mut seen = vec![tree()];
        let mut changed = |change: &dyn Fn()| {
            change();
            let now = tree();
            assert!(!seen.contains(&now));
            seen.push(now);
        };
        changed(&|| fs::write(root.join("a"), "1").unwrap());
        changed(&|| fs::write(root.join("a"), "2").unwrap());
        changed(&|| fs::set_permissions(root.join("a"), Permissions::from_mode(0o755)).unwrap());
        changed(&|| fs::create_dir(root.join("d")).unwrap());
        changed(&|| fs::rename(root.join("a"), root.join("d/a")).unwrap());
        changed(&|| std::os::unix::fs::symlink("a", root.join("l")).unwrap());
        let before = tree();
        File::open(root.join("d/a"))
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        fs::set_permissions(root.join("d"), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(tree(), before);
    }

    #[test]
    fn an_entry_is_built_once() {
        let (_folder, store) = store(PLENTY);
        assert!(store.get(&key("a")).unwrap().is_none());
        let built = put(&store, "a");
        let again = store.build(&key("a"), |_| bail!("built twice")).unwrap();
        assert_eq!(built.path(), again.path());
        assert_eq!(fs::read_to_string(again.path().join("name")).unwrap(), "a");
        let reopened = Store::open(&store.folder, PLENTY).unwrap();
        assert!(reopened.get(&key("a")).unwrap().is_some());
    }

    #[test]
    fn many_builds_at_once_share_one_result() {
        let (_folder, store) = store(PLENTY);
        let count = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // Each with an own handle, as other processes have.
                    let store = Store::open(&store.folder, PLENTY).unwrap();
                    let entry = store.build(&key("shared"), |staging| {
                        count.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(50));
                        Ok(fs::write(staging.join("x"), "x")?)
                    });
                    assert!(entry.unwrap().path().join("x").exists());
                });
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let (_folder, store) = store(PLENTY);
        let error = store
            .build(&key("a"), |staging| {
                fs::write(staging.join("half"), "x")?;
                bail!("no more")
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "no more");
        let panicked = std::panic::catch_unwind(|| {
            let _ = store.build(&key("a"), |_| panic!("a defect"));
        });
        assert!(panicked.is_err());
        for part in ["staging", "entries", "used"] {
            assert_eq!(names(&store, part), [""; 0], "{part}");
        }
        // And it can be built afterwards.
        put(&store, "a");
    }

    #[test]
    fn leftovers_go_but_not_those_of_a_living_build() {
        let (_folder, store) = store(PLENTY);
        fs::create_dir(store.staging(&key("dead"))).unwrap();
        fs::write(store.staging(&key("dead")).join("x"), "").unwrap();
        fs::write(store.folder.join("staging/odd"), "").unwrap();
        store
            .build(&key("alive"), |staging| {
                Store::open(&store.folder, PLENTY).unwrap();
                assert_eq!(names(&store, "staging"), [key("alive").as_str()]);
                Ok(fs::write(staging.join("x"), "")?)
            })
            .unwrap();
        assert_eq!(names(&store, "staging"), [""; 0]);
        let locks = names(&store, "locks");
        assert!(
            locks
                .iter()
                .all(|name| name.starts_with(key("alive").as_str())),
            "{locks:?}"
        );
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (_folder, store) = store(PLENTY);
        for (age, name) in [(1, "young"), (3, "old"), (2, "middle"), (4, "touched")] {
            put(&store, name);
            let time = SystemTime::now() - Duration::from_secs(age * 1000);
            File::open(store.used(&key(name)))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        drop(store.get(&key("touched")).unwrap());
        let (count, total) = store.usage().unwrap();
        assert_eq!(count, 4);
        let left = |limit: u64| {
            let freed = Store {
                limit,
                ..store.clone()
            }
            .trim()
            .unwrap();
            let names: Vec<&str> = ["young", "old", "middle", "touched"]
                .into_iter()
                .filter(|name| store.entry(&key(name)).exists())
                .collect();
            (freed.entries, names)
        };
        assert_eq!(left(total), (0, vec!["young", "old", "middle", "touched"]));
        assert_eq!(left(total - 1), (1, vec!["young", "middle", "touched"]));
        assert_eq!(left(total / 2), (1, vec!["young", "touched"]));
        assert_eq!(left(1), (2, vec![]));
        assert_eq!(names(&store, "locks"), [""; 0]);
        assert_eq!(names(&store, "used"), [""; 0]);
    }

    #[test]
    fn what_is_in_use_stays() {
        let (_folder, store) = store(1);
        let held = put(&store, "held");
        let copy = held.clone();
        drop(held);
        drop(put(&store, "other"));
        let freed = store.clear().unwrap();
        assert_eq!((freed.entries, freed.in_use), (1, 1));
        assert!(copy.path().join("name").exists());
        drop(copy);
        assert_eq!(store.clear().unwrap().entries, 1);
        assert_eq!(names(&store, "entries"), [""; 0]);
    }

    #[test]
    fn trees_that_nobody_may_write_to_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        for path in ["a/b/file", "a/b", "a", ""] {
            fs::set_permissions(root.join(path), Permissions::from_mode(0o500)).unwrap();
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn a_lost_or_broken_record_costs_nothing() {
        let (_folder, store) = store(PLENTY);
        put(&store, "a");
        put(&store, "b");
        let before = store.usage().unwrap();
        fs::write(store.used(&key("a")), "").unwrap();
        assert_eq!(store.usage().unwrap(), before);
        fs::remove_file(store.used(&key("b"))).unwrap();
        store.get(&key("b")).unwrap().unwrap();
        assert_eq!(store.usage().unwrap(), before);
    }
}
