//! Power cuts: after every single file operation of a commit, with every
//! outcome that a file system may leave, the old state or the new one is found.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use settings_store::files::Files;
use settings_store::{Opened, Release, Store, Strength};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// A folder on a disk that forgets what was not made durable.
///
/// Content is durable once `sync` has returned for it. Names are durable once
/// `sync_folder` has; until then any of the renames and creations since may
/// have reached the disk or not, in any combination, for that is all that POSIX
/// promises.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<Inner>>);

#[derive(Clone, Default)]
struct Inner {
    /// Contents by number, with whether they are durable.
    contents: Vec<(Vec<u8>, bool)>,
    /// Names as programs see them.
    seen: BTreeMap<String, usize>,
    /// Names as they were at the last `sync_folder`.
    durable: BTreeMap<String, usize>,
    /// Changes of names since then.
    changes: Vec<Change>,
    /// Operations that still succeed; `None` for all of them.
    left: Option<usize>,
    /// Operations so far.
    count: usize,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
}

impl Disk {
    fn step(&self) -> io::Result<std::cell::RefMut<'_, Inner>> {
        let mut inner = self.0.borrow_mut();
        if let Some(left) = &mut inner.left {
            if *left == 0 {
                return Err(io::Error::other("the power is off"));
            }
            *left -= 1;
        }
        inner.count += 1;
        Ok(inner)
    }

    /// Every folder that a machine may find after a power cut now.
    fn after_power_cut(&self) -> Vec<Disk> {
        let inner = self.0.borrow();
        let mut outcomes = Vec::new();
        for subset in 0..1u32 << inner.changes.len() {
            let mut names = inner.durable.clone();
            for (n, change) in inner.changes.iter().enumerate() {
                if subset & 1 << n == 0 {
                    continue;
                }
                match change {
                    Change::Create(name, content) => {
                        names.insert(name.clone(), *content);
                    }
                    Change::Rename(from, to) => {
                        if let Some(content) = names.remove(from) {
                            names.insert(to.clone(), content);
                        }
                    }
                }
            }
            for tear in [Tear::Whole, Tear::Empty, Tear::Half, Tear::Zeroes] {
                let contents = inner
                    .contents
                    .iter()
                    .map(|(bytes, durable)| match durable {
                        true => (bytes.clone(), true),
                        false => (tear.apply(bytes), true),
                    })
                    .collect();
                outcomes.push(Disk(Rc::new(RefCell::new(Inner {
                    contents,
                    seen: names.clone(),
                    durable: names.clone(),
                    ..Inner::default()
                }))));
            }
        }
        outcomes
    }
}

/// What becomes of content that was not made durable.
#[derive(Clone, Copy)]
enum Tear {
    Whole,
    Empty,
    Half,
    Zeroes,
}

impl Tear {
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Whole => bytes.to_vec(),
            Self::Empty => Vec::new(),
            Self::Half => bytes[..bytes.len() / 2].to_vec(),
            Self::Zeroes => {
                let mut torn = bytes.to_vec();
                let half = torn.len() / 2;
                torn[half..].fill(0);
                torn
            }
        }
    }
}

impl Files for Disk {
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let inner = self.0.borrow();
        let bytes = inner.seen.get(name).map(|&n| inner.contents[n].0.clone());
        Ok(bytes.map(|bytes| bytes[..bytes.len().min(limit as usize)].to_vec()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.step()?;
        // A file that is there is overwritten in place, as by O_TRUNC.
        if let Some(&number) = inner.seen.get(name) {
            inner.contents[number] = (bytes.to_vec(), false);
            return Ok(());
        }
        let number = inner.contents.len();
        inner.contents.push((bytes.to_vec(), false));
        inner.seen.insert(name.to_string(), number);
        inner.changes.push(Change::Create(name.to_string(), number));
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut inner = self.step()?;
        let number = inner.seen[name];
        inner.contents[number].1 = true;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.step()?;
        let number = inner
            .seen
            .remove(from)
            .ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        inner.seen.insert(to.to_string(), number);
        inner
            .changes
            .push(Change::Rename(from.to_string(), to.to_string()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut inner = self.step()?;
        inner.durable = inner.seen.clone();
        inner.changes.clear();
        Ok(())
    }
}

fn open(disk: &Disk) -> Opened<Disk> {
    Store::open(disk.clone(), Release::default())
}

fn user(store: &Store<Disk>) -> Value {
    store.layers().user.to_value()
}

/// Commits one setting, and answers whether that succeeded.
fn commit(store: &mut Store<Disk>, motd: &str) -> bool {
    store
        .set("t", &json!({ "motd": motd }), Strength::Strong)
        .unwrap();
    store.commit("t").is_ok()
}

/// The numbers of the kept changes, newest first.
fn history(store: &Store<Disk>) -> Vec<u64> {
    store.history().entries().map(|entry| entry.id).collect()
}

fn motd(text: &str) -> Value {
    json!({ "motd": text })
}

#[test]
fn a_cut_after_any_operation_leaves_old_or_new() {
    let operations = {
        let disk = Disk::default();
        let mut store = open(&disk).store;
        assert!(commit(&mut store, "first"));
        let before = disk.0.borrow().count;
        assert!(commit(&mut store, "old"));
        disk.0.borrow().count - before
    };
    assert_eq!(
        operations, 5,
        "write, sync, two renames, sync of the folder"
    );
    let mut found_old = 0;
    let mut found_new = 0;
    for left in 0..=operations {
        let disk = Disk::default();
        let mut store = open(&disk).store;
        assert!(commit(&mut store, "first"));
        assert!(commit(&mut store, "old"));
        disk.0.borrow_mut().left = Some(left);
        let succeeded = commit(&mut store, "new");
        assert_eq!(succeeded, left == operations);
        for after in disk.after_power_cut() {
            let Opened { store, .. } = open(&after);
            let found = user(&store);
            // The history is the settings' own, never that of others.
            if found == motd("new") {
                assert_eq!(history(&store), [3, 2, 1]);
                found_new += 1;
            } else {
                assert_eq!(history(&store), [2, 1]);
                assert_eq!(found, motd("old"), "after {left} operations");
                assert!(!succeeded, "a commit that was reported is never lost");
                found_old += 1;
            }
        }
    }
    assert!(found_old > 0 && found_new > 0, "{found_old} {found_new}");
}

#[test]
fn the_first_commit_of_all_is_there_or_not() {
    for left in 0..=4 {
        let disk = Disk::default();
        let mut store = open(&disk).store;
        disk.0.borrow_mut().left = Some(left);
        let succeeded = commit(&mut store, "new");
        assert_eq!(succeeded, left == 4);
        for after in disk.after_power_cut() {
            let found = user(&open(&after).store);
            assert!(
                found == motd("new") || (!succeeded && found == json!({})),
                "{found}"
            );
        }
    }
}

/// A machine that is cut again and again, at any operation, and goes on with
/// whatever it finds: no outcome of a cut may spoil a later one.
#[test]
fn cuts_one_after_the_other() {
    fn go_on(disk: &Disk, depth: usize, checked: &mut usize) {
        for left in 0..=5 {
            let disk = Disk(Rc::new(RefCell::new(disk.0.borrow().clone())));
            let mut store = open(&disk).store;
            let before = user(&store);
            let next = motd(&format!("depth {depth}"));
            disk.0.borrow_mut().left = Some(left);
            let succeeded = commit(&mut store, &format!("depth {depth}"));
            for after in disk.after_power_cut() {
                let found = user(&open(&after).store);
                assert!(
                    found == next || (!succeeded && found == before),
                    "{found} is neither {before} nor {next}"
                );
                *checked += 1;
                if depth > 1 {
                    go_on(&after, depth - 1, checked);
                }
            }
        }
    }
    let mut checked = 0;
    go_on(&Disk::default(), 3, &mut checked);
    assert!(checked > 10_000, "{checked}");
}

#[test]
fn a_disk_that_fails_and_recovers_loses_nothing() {
    for left in 0..5 {
        let disk = Disk::default();
        let mut store = open(&disk).store;
        assert!(commit(&mut store, "old"));
        disk.0.borrow_mut().left = Some(left);
        assert!(!commit(&mut store, "new"));
        assert_eq!(user(&store), motd("old"), "what failed does not hold");
        assert_eq!(store.pending().names(), ["t"], "and can be tried again");
        disk.0.borrow_mut().left = None;
        assert_eq!(store.commit("t").unwrap().len(), 1);
        for after in disk.after_power_cut() {
            assert_eq!(user(&open(&after).store), motd("new"));
        }
    }
}

/// Overwrites a file as nothing of ours would.
fn spoil(disk: &Disk, name: &str, bytes: &[u8]) {
    let mut inner = disk.0.borrow_mut();
    let number = inner.contents.len();
    inner.contents.push((bytes.to_vec(), true));
    inner.seen.insert(name.to_string(), number);
    inner.durable.insert(name.to_string(), number);
}

#[test]
fn a_spoilt_file_is_passed_over_and_reported() {
    let disk = Disk::default();
    let mut store = open(&disk).store;
    assert!(commit(&mut store, "one"));
    assert!(commit(&mut store, "two"));
    let good = disk.read("current", u64::MAX).unwrap().unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut cases = vec![Vec::new(), vec![0; 4096], good[..good.len() - 1].to_vec()];
    cases.extend((0..good.len()).map(flipped));
    cases.push([good.as_slice(), b"x"].concat());
    for (n, bytes) in cases.iter().enumerate() {
        let disk = Disk(Rc::new(RefCell::new(disk.0.borrow().clone())));
        spoil(&disk, "current", bytes);
        let Opened {
            mut store,
            complaints,
        } = open(&disk);
        assert_eq!(user(&store), motd("one"), "case {n}");
        assert!(complaints[0].starts_with("stored settings \"current\" cannot be used: "));
        assert!(complaints[1].contains("as they were before the last change"));
        // The spoilt file must not take the good one's place.
        for left in 0..=4 {
            let disk = Disk(Rc::new(RefCell::new(disk.0.borrow().clone())));
            let mut store = open(&disk).store;
            disk.0.borrow_mut().left = Some(left);
            commit(&mut store, "three");
            for after in disk.after_power_cut() {
                let found = user(&open(&after).store);
                assert!(found == motd("one") || found == motd("three"), "{found}");
            }
        }
        assert!(commit(&mut store, "three"));
        let Opened { store, complaints } = open(&disk);
        assert_eq!(user(&store), motd("three"));
        assert!(complaints.is_empty(), "{complaints:?}");
    }
    spoil(&disk, "current", b"x");
    spoil(&disk, "previous", b"y");
    let Opened {
        mut store,
        complaints,
    } = open(&disk);
    assert_eq!(user(&store), json!({}));
    assert_eq!(complaints.len(), 3);
    assert!(complaints[2].contains("starting from the defaults"));
    assert!(commit(&mut store, "again"));
    assert_eq!(user(&open(&disk).store), motd("again"));
}

#[test]
fn a_cut_during_a_rollback_leaves_both_sides_whole() {
    for left in 0..=5 {
        let disk = Disk::default();
        let mut store = open(&disk).store;
        assert!(commit(&mut store, "one"));
        assert!(commit(&mut store, "two"));
        disk.0.borrow_mut().left = Some(left);
        let succeeded = store.roll_back(1).is_ok();
        assert_eq!(succeeded, left == 5);
        for after in disk.after_power_cut() {
            let Opened {
                mut store,
                complaints,
            } = open(&after);
            let rolled_back = user(&store) == motd("one") && history(&store) == [3, 2, 1];
            let untouched = user(&store) == motd("two") && history(&store) == [2, 1];
            assert!(rolled_back || (untouched && !succeeded), "{complaints:?}");
            store.roll_back(2).unwrap();
            assert_eq!(user(&store), motd("two"));
        }
    }
}
