//! Whom an image wants to be run as, by its own `/etc/passwd` and `/etc/group`.
//!
//! The files are read from the layers as they lie on the host. Nothing is mounted for that, and
//! links of the image lead nowhere else: each name of a path is looked up by itself, and a
//! link begins at the top of the layers again.

use anyhow::{Context, Result, bail, ensure};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// More than any such file has.
const LARGEST: u64 = 1 << 20;
/// Links that one path may have.
const LINKS: usize = 40;
/// The largest number of a user or a group that the runtime takes.
const LAST_NUMBER: i64 = i32::MAX as i64;

/// Whom a process is run as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub user: u32,
    /// That of the group.
    pub group: u32,
    /// Those of the groups that the user is in besides.
    pub more: Vec<u32>,
}

/// Whether an image that names its user so is run as root, which takes no look into its files.
pub fn is_root(wanted: &str) -> bool {
    ["", "0", "0:0", "root", "root:root"].contains(&wanted)
}

/// The user whom an image names as `wanted`: `user` or `user:group`, each by its name or its
/// number. Without a group it is the user's own, which for a number that the image does not
/// know is root's. `layers` are folders, the top one first.
pub fn find(wanted: &str, layers: &[PathBuf]) -> Result<User> {
    if is_root(wanted) {
        return Ok(User::default());
    }
    let found = || -> Result<User> {
        let (passwd, groups) = (read(layers, PASSWD)?, read(layers, GROUP)?);
        resolve(wanted, passwd.as_deref(), groups.as_deref())
    };
    found().with_context(|| format!("the image wants to be run as {wanted:?}"))
}

fn resolve(wanted: &str, passwd: Option<&str>, groups: Option<&str>) -> Result<User> {
    let (wanted, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let wanted_number = number(wanted)?;
    let mut users = lines(passwd).filter_map(|fields| {
        let (user, group) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        Some((fields[0], user, group))
    });
    let known = users.find(|(name, user, _)| match wanted_number {
        Some(number) => *user == number,
        None => *name == wanted,
    });
    let (name, user, own_group) = match (known, wanted_number) {
        (Some((name, user, group)), _) => (Some(name), user, group),
        (None, Some(number)) => (None, number, 0),
        (None, None) => return Err(unknown(wanted, PASSWD, passwd)),
    };
    let numbered = |fields: &Vec<&str>| fields.get(2)?.parse::<u32>().ok();
    let group = match wanted_group {
        None => own_group,
        Some(group) => match number(group)? {
            Some(number) => number,
            None => lines(groups)
                .find(|fields| fields[0] == group)
                .and_then(|fields| numbered(&fields))
                .ok_or_else(|| unknown(group, GROUP, groups))?,
        },
    };
    let is_member = |fields: &Vec<&str>| {
        let members = fields.get(3).into_iter().flat_map(|list| list.split(','));
        name.is_some_and(|name| members.into_iter().any(|member| member.trim() == name))
    };
    let more = lines(groups).filter(is_member);
    let mut more: Vec<u32> = more.filter_map(|fields| numbered(&fields)).collect();
    more.retain(|number| *number != group);
    Ok(User { user, group, more })
}

/// The number that a user or a group is given as; none for a name. Nobody and root are root.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if ["", "root"].contains(&text) {
        return Ok(Some(0));
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok();
    let number = number.filter(|number| (0..=LAST_NUMBER).contains(number));
    let number = number.and_then(|number| u32::try_from(number).ok());
    Ok(Some(number.with_context(|| {
        format!("{text} is no number from 0 to {LAST_NUMBER}")
    })?))
}

/// The fields of each line.
fn lines(text: Option<&str>) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.unwrap_or_default().lines();
    lines.map(|line| line.trim().split(':').collect())
}

fn unknown(name: &str, path: &str, text: Option<&str>) -> anyhow::Error {
    match text {
        Some(_) => anyhow::anyhow!("its {path} does not know {name:?}"),
        None => anyhow::anyhow!("it has no {path} that knows {name:?}"),
    }
}

/// The text of an image's file; none if it has none.
fn read(layers: &[PathBuf], path: &str) -> Result<Option<String>> {
    let reading = || format!("cannot read its {path}");
    let Some(place) = locate(layers, Path::new(path)).with_context(reading)? else {
        return Ok(None);
    };
    let read = || -> Result<String> {
        // A pipe or a device is not waited for, nor touched.
        let is_file = fs::symlink_metadata(&place)?.is_file();
        ensure!(is_file, "it is no file");
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&place)?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= LARGEST, "it is too large");
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().with_context(reading).map(Some)
}

/// What is at `path` below the layers, which is no folder and no link.
fn locate(layers: &[PathBuf], path: &Path) -> Result<Option<PathBuf>> {
    let mut rest: VecDeque<OsString> = names(path);
    // The folders on the way, each with all that the layers have for it.
    let mut way = vec![layers.to_vec()];
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let here = way.last().map(Vec::as_slice).unwrap_or_default();
        if name == ".." {
            way.truncate((way.len() - 1).max(1));
            continue;
        }
        match look(here, &name)? {
            Found::Nothing => return Ok(None),
            Found::Folder(folders) => way.push(folders),
            Found::Link(target) => {
                links += 1;
                ensure!(links <= LINKS, "there are too many links on the way");
                if target.is_absolute() {
                    way.truncate(1);
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            Found::Other(place) if rest.is_empty() => return Ok(Some(place)),
            Found::Other(_) => return Ok(None),
        }
    }
    bail!("it is a folder")
}

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// What a name stands for.
enum Found {
    Nothing,
    Folder(Vec<PathBuf>),
    Link(PathBuf),
    Other(PathBuf),
}

/// What `name` is in a folder that consists of `folders`, the top one first.
fn look(folders: &[PathBuf], name: &OsStr) -> Result<Found> {
    let mut merged = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found.with_context(|| format!("cannot look at {}", path.display()))?,
        };
        if found.is_dir() {
            let hides = sysutil::sys::attribute(&path, OPAQUE)?;
            merged.push(path);
            if hides.as_deref() == Some(b"y") {
                break;
            }
        } else if !merged.is_empty() {
            // A folder above hides it.
            break;
        } else if found.is_symlink() {
            let target = fs::read_link(&path);
            let target = target.with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(Found::Link(target));
        } else if found.file_type().is_char_device() && found.rdev() == 0 {
            // It stands for what a layer takes away.
            return Ok(Found::Nothing);
        } else {
            return Ok(Found::Other(path));
        }
    }
    Ok(match merged.is_empty() {
        true => Found::Nothing,
        false => Found::Folder(merged),
    })
}

/// The attribute of a folder that says whether those below count.
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag, mknod};
    use nix::unistd::mkfifo;
    use std::os::unix::fs::symlink;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:100:An Agent:/:/bin/sh\n\
                         broken:x\nodd:x:no:1::/:\nagent:x:7:7::/:\n";
    const GROUPS: &str =
        "root:x:0:\nusers:x:100:agent\napi:x:274:other,agent\nempty\nlog:x:9:agent,\n";

    #[test]
    fn names_and_numbers_are_those_of_the_image() {
        let user = |user, group, more: &[u32]| User {
            user,
            group,
            more: more.to_vec(),
        };
        for (wanted, expected) in [
            ("agent", user(1000, 100, &[274, 9])),
            ("agent:api", user(1000, 274, &[100, 9])),
            ("agent:5", user(1000, 5, &[100, 274, 9])),
            ("1000", user(1000, 100, &[274, 9])),
            ("1000:root", user(1000, 0, &[100, 274, 9])),
            ("2000", user(2000, 0, &[])),
            ("2000:api", user(2000, 274, &[])),
            ("2000:100", user(2000, 100, &[])),
            (":api", user(0, 274, &[])),
            ("1000:", user(1000, 0, &[100, 274, 9])),
            ("root:274", user(0, 274, &[])),
        ] {
            let found = resolve(wanted, Some(USERS), Some(GROUPS)).unwrap();
            assert_eq!(found, expected, "{wanted}");
        }
        for wanted in ["1000", "1000:100", "0:274", "root"] {
            let found = resolve(wanted, None, None).unwrap();
            assert!(found.more.is_empty(), "{wanted}");
        }
        for (wanted, passwd, expected) in [
            ("jo", Some(USERS), r#"its /etc/passwd does not know "jo""#),
            ("jo", None, r#"it has no /etc/passwd that knows "jo""#),
            ("broken", Some(USERS), r#"does not know "broken""#),
            ("odd", Some(USERS), r#"does not know "odd""#),
            (
                "agent:none",
                Some(USERS),
                r#"its /etc/group does not know "none""#,
            ),
            ("agent:empty", Some(USERS), r#"does not know "empty""#),
            ("1:2:3", Some(USERS), r#"does not know "2:3""#),
            ("-1", Some(USERS), "-1 is no number from 0 to 2147483647"),
            ("2147483648", Some(USERS), "2147483648 is no number"),
            ("99999999999999999999", Some(USERS), "is no number"),
            ("1000:4294967296", Some(USERS), "4294967296 is no number"),
        ] {
            let error = resolve(wanted, passwd, Some(GROUPS))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{wanted}: {error}");
        }
    }

    #[test]
    fn root_takes_no_look_into_the_image() {
        for wanted in ["", "root", "0", "0:0", "root:root"] {
            let found = find(wanted, &[PathBuf::from("/nowhere")]).unwrap();
            assert_eq!(found, User::default());
        }
        let error = format!("{:#}", find("jo", &[]).unwrap_err());
        let expected =
            r#"the image wants to be run as "jo": it has no /etc/passwd that knows "jo""#;
        assert_eq!(error, expected);
    }

    /// Layers, the top one first, with these files, of which a target makes a link.
    fn layers(root: &Path, files: &[(usize, &str, &str)]) -> Vec<PathBuf> {
        for (layer, path, text) in files {
            let path = root.join(layer.to_string()).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        (0..3).map(|layer| root.join(layer.to_string())).collect()
    }

    #[test]
    fn files_are_those_of_the_layers_and_of_nobody_else() {
        let outside = fs::read_to_string(PASSWD).is_ok();
        assert!(outside, "a host without users would hide where it is read");
        let up = "-> ../../../../../../../../etc/passwd";
        let check = |files: &[(usize, &str, &str)], expected: Result<Option<&str>, &str>| {
            let root = tempfile::tempdir().unwrap();
            let found = read(&layers(root.path(), files), PASSWD);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{files:?}"),
                (Err(found), Err(expected)) => {
                    let found = format!("{found:#}");
                    assert_eq!(found, format!("cannot read its /etc/passwd: {expected}"));
                }
                (found, _) => panic!("{files:?}: {found:?}"),
            }
        };
        check(&[], Ok(None));
        check(&[(2, "etc/passwd", "low")], Ok(Some("low")));
        check(
            &[
                (2, "etc/passwd", "low"),
                (1, "etc/passwd", "high"),
                (0, "etc/x", ""),
            ],
            Ok(Some("high")),
        );
        check(&[(2, "etc/passwd", "low"), (1, "etc", "file")], Ok(None));
        check(
            &[
                (2, "etc/passwd", "low"),
                (1, "etc", "file"),
                (0, "etc/x", ""),
            ],
            Ok(None),
        );
        // Links stay below the root, and see what is above them.
        check(
            &[(0, "etc/passwd", "-> /etc/passwd")],
            Err("there are too many links on the way"),
        );
        check(
            &[(0, "etc/passwd", up), (0, "home", "")],
            Err("there are too many links on the way"),
        );
        check(
            &[
                (2, "etc/passwd", "-> /nix/users"),
                (0, "nix/users", "there"),
            ],
            Ok(Some("there")),
        );
        check(
            &[
                (2, "etc/passwd", "-> ../../../usr/./users"),
                (1, "usr/users", "there"),
            ],
            Ok(Some("there")),
        );
        check(
            &[
                (2, "etc/passwd", "low"),
                (1, "etc", "-> usr/etc"),
                (0, "usr/etc/passwd", "linked"),
            ],
            Ok(Some("linked")),
        );
        check(&[(0, "etc/passwd", "-> /proc/1/environ")], Ok(None));
        // What is no such file.
        check(&[(0, "etc/passwd/x", "")], Err("it is a folder"));
        let much = "x".repeat(1 + (1 << 20));
        check(&[(0, "etc/passwd", &much)], Err("it is too large"));
    }

    #[test]
    fn a_pipe_is_not_waited_for_and_what_is_taken_away_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let layers = layers(root.path(), &[(2, "etc/passwd", "low"), (1, "etc/x", "")]);
        let above = root.path().join("1/etc/passwd");
        mkfifo(&above, Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", read(&layers, PASSWD).unwrap_err());
        assert_eq!(error, "cannot read its /etc/passwd: it is no file");
        fs::remove_file(&above).unwrap();
        mknod(&above, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        assert_eq!(read(&layers, PASSWD).unwrap(), None);
    }
}
