//! `ephemeral-storage`: disks that live as long as the machine.

use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes, Word};
use crate::context::Context;
use crate::http::escape_value;
use anyhow::Result;
use api_types::{EphemeralStorageBind, EphemeralStorageInit, FileSystem, StoragePreference};
use serde::Serialize;

const FILE_SYSTEM: Flag = Flag {
    names: &["-t", "--filesystem"],
    takes: Takes::One(Word {
        name: "KIND",
        hint: Hint::Choice(&["xfs", "ext4"]),
    }),
    help: "xfs (default) or ext4",
};
const DISKS: Flag = Flag {
    names: &["--disks"],
    takes: Takes::Many(Word {
        name: "DISK",
        hint: Hint::File,
    }),
    help: "these disks; default: all ephemeral ones",
};
const EBS_VOLUMES: Flag = Flag {
    names: &["--ebs-volumes"],
    takes: Takes::Many(Word {
        name: "VOLUME",
        hint: Hint::Any,
    }),
    help: "these EBS volumes, attached as xvdda to xvddx",
};
const PREFER: Flag = Flag {
    names: &["--prefer"],
    takes: Takes::Many(Word {
        name: "WHAT",
        hint: Hint::Choice(&["ephemeral-disk", "ebs-volume", "ephemeral-disk+ebs-volume"]),
    }),
    help: "the first of these that the host has: ephemeral-disk, ebs-volume or both joined by +; \
           means nothing beside --disks and --ebs-volumes",
};
const DIRS: Flag = Flag {
    names: &["--dirs"],
    takes: Takes::Many(Word {
        name: "DIR",
        hint: Hint::File,
    }),
    help: "these directories; default: those of the variant",
};
const FORMAT: Flag = Flag {
    names: &["-f", "--format"],
    takes: Takes::One(Word {
        name: "FORMAT",
        hint: Hint::Choice(&["text", "json"]),
    }),
    help: "text (default), one a line, or json",
};

/// `ephemeral-storage init`.
pub const INIT: Subcommand = Subcommand {
    name: "ephemeral-storage init",
    summary: "make one file system of the ephemeral disks",
    forms: &["ephemeral-storage init [OPTION]..."],
    about: &[
        "Joins the disks and formats them, unless that was done before. A host without such \
         disks has nothing to do, which is no error.",
    ],
    examples: &[
        "ephemeral-storage init",
        "ephemeral-storage init -t ext4 --disks /dev/nvme1n1 /dev/nvme2n1",
        "ephemeral-storage init --prefer ephemeral-disk ebs-volume",
    ],
    flags: &[FILE_SYSTEM, DISKS, EBS_VOLUMES, PREFER],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| {
        Ok(Box::new(Post {
            uri: "/actions/ephemeral-storage/init",
            body: init(&matches)?,
        }))
    },
};

/// `ephemeral-storage bind`.
pub const BIND: Subcommand = Subcommand {
    name: "ephemeral-storage bind",
    summary: "put directories on the ephemeral file system",
    forms: &["ephemeral-storage bind [OPTION]..."],
    about: &["Mounts parts of the file system that init has made over directories."],
    examples: &[
        "ephemeral-storage bind",
        "ephemeral-storage bind --dirs /var/lib/containerd /var/lib/kubelet",
    ],
    flags: &[DIRS],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| {
        Ok(Box::new(Post {
            uri: "/actions/ephemeral-storage/bind",
            body: EphemeralStorageBind {
                targets: matches.all(&DIRS)?.unwrap_or_default(),
            },
        }))
    },
};

/// `ephemeral-storage list-disks`.
pub const LIST_DISKS: Subcommand = Subcommand {
    name: "ephemeral-storage list-disks",
    summary: "list the disks that init can use",
    forms: &["ephemeral-storage list-disks [OPTION]"],
    about: &["Lists the ephemeral disks of this host."],
    examples: &["ephemeral-storage list-disks -f json"],
    flags: &[FORMAT],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| list("list-disks", &matches),
};

/// `ephemeral-storage list-ebs-volumes`.
pub const LIST_EBS_VOLUMES: Subcommand = Subcommand {
    name: "ephemeral-storage list-ebs-volumes",
    summary: "list the EBS volumes that init can use",
    forms: &["ephemeral-storage list-ebs-volumes [OPTION]"],
    about: &["Lists the EBS volumes of this host that are attached for ephemeral storage."],
    examples: &["ephemeral-storage list-ebs-volumes"],
    flags: &[FORMAT],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| list("list-ebs-volumes", &matches),
};

/// `ephemeral-storage list-dirs`.
pub const LIST_DIRS: Subcommand = Subcommand {
    name: "ephemeral-storage list-dirs",
    summary: "list the directories that bind takes",
    forms: &["ephemeral-storage list-dirs [OPTION]"],
    about: &["Lists the directories that bind takes, besides those below /mnt."],
    examples: &["ephemeral-storage list-dirs"],
    flags: &[FORMAT],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| list("list-dirs", &matches),
};

fn init(matches: &Matches) -> Result<EphemeralStorageInit, String> {
    let filesystem = match matches.last(&FILE_SYSTEM)?.as_deref() {
        None => None,
        Some("xfs") => Some(FileSystem::Xfs),
        Some("ext4") => Some(FileSystem::Ext4),
        Some(other) => {
            return Err(format!(
                "unknown file system {other:?}; there are xfs and ext4"
            ));
        }
    };
    let prefer =
        some(matches, &PREFER)?.map(|list| list.iter().map(|text| preference(text)).collect());
    Ok(EphemeralStorageInit {
        filesystem,
        disks: some(matches, &DISKS)?,
        ebs_volumes: some(matches, &EBS_VOLUMES)?,
        prefer: prefer.transpose()?,
    })
}

/// The values of a flag that needs one. An empty list of disks could mean all
/// of them, which is not for a client to guess.
fn some(matches: &Matches, flag: &Flag) -> Result<Option<Vec<String>>, String> {
    match matches.all(flag)? {
        Some(values) if values.is_empty() => Err(format!("{} needs a value", flag.names[0])),
        values => Ok(values),
    }
}

fn preference(text: &str) -> Result<StoragePreference, String> {
    let mut preference = StoragePreference::default();
    for part in text.split('+') {
        match part {
            "ephemeral-disk" => preference.ephemeral_disk = true,
            "ebs-volume" => preference.ebs_volume = true,
            _ => {
                return Err(format!(
                    "{text:?} is none of ephemeral-disk, ebs-volume and both joined by +"
                ));
            }
        }
    }
    Ok(preference)
}

fn list(path: &str, matches: &Matches) -> Result<Box<dyn Command>, String> {
    let mut uri = format!("/actions/ephemeral-storage/{path}");
    // Which formats there are is the server's business.
    if let Some(format) = matches.last(&FORMAT)? {
        uri = format!("{uri}?format={}", escape_value(&format));
    }
    Ok(Box::new(Show { uri }))
}

/// Asks for something to be done.
#[derive(Debug)]
struct Post<T> {
    uri: &'static str,
    body: T,
}

impl<T: Serialize + std::fmt::Debug> Command for Post<T> {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let body = serde_json::to_vec(&self.body)?;
        context.send("POST", self.uri, Some(&body))?;
        Ok(0)
    }
}

/// Shows an answer as it is.
#[derive(Debug)]
struct Show {
    uri: String,
}

impl Command for Show {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let answer = context.send("GET", &self.uri, None)?;
        context.out.write_all(&answer.body)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    fn parsed(line: &str) -> Result<String, String> {
        let init = matches_of(&INIT, line).and_then(|matches| init(&matches))?;
        Ok(serde_json::to_string(&init).expect("JSON"))
    }

    #[test]
    fn bodies_of_init() {
        for (line, expected) in [
            ("", Ok(r#"{"filesystem":null,"disks":null}"#)),
            ("-t xfs", Ok(r#"{"filesystem":"Xfs","disks":null}"#)),
            (
                "--disks a b --filesystem ext4 --disks c",
                Ok(r#"{"filesystem":"Ext4","disks":["a","b","c"]}"#),
            ),
            (
                "--ebs-volumes xvdda xvddb --prefer ebs-volume ebs-volume+ephemeral-disk",
                Ok(concat!(
                    r#"{"filesystem":null,"disks":null,"ebs_volumes":["xvdda","xvddb"],"#,
                    r#""prefer":[{"ephemeral_disk":false,"ebs_volume":true},"#,
                    r#"{"ephemeral_disk":true,"ebs_volume":true}]}"#
                )),
            ),
            (
                "-t Xfs",
                Err("unknown file system \"Xfs\"; there are xfs and ext4"),
            ),
            ("--disks", Err("--disks needs a value")),
            ("--disks --prefer ebs-volume", Err("--disks needs a value")),
            (
                "--prefer tape",
                Err("\"tape\" is none of ephemeral-disk, ebs-volume and both joined by +"),
            ),
            ("a", Err("unexpected word \"a\"")),
        ] {
            let expected = expected.map(str::to_string).map_err(str::to_string);
            assert_eq!(parsed(line), expected, "{line}");
        }
    }

    #[test]
    fn directories_to_bind() {
        for (line, expected) in [
            ("", &[][..]),
            ("--dirs", &[]),
            ("--dirs /a /b --dirs /c", &["/a", "/b", "/c"]),
        ] {
            let matches = matches_of(&BIND, line).expect(line);
            let dirs = matches.all(&DIRS).expect(line).unwrap_or_default();
            assert_eq!(dirs, expected, "{line}");
        }
    }
}
