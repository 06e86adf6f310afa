use super::*;
use crate::testing::{compress, make_ar, make_deb, make_tar};
use std::os::unix::fs::MetadataExt;

const CONTROL: &str = "Package: a\nVersion: 1.0-1\nArchitecture: amd64\nDescription: x\n y\n";

fn file(content: &[u8]) -> Kind {
    Kind::File {
        mode: 0o644,
        size: content.len() as u64,
        modified: 1_000_000_000,
    }
}

fn folder() -> Kind {
    Kind::Directory { mode: 0o755 }
}

fn link(target: &str) -> Kind {
    Kind::Symlink {
        target: target.to_string(),
    }
}

fn hard(target: &str) -> Kind {
    Kind::Hardlink {
        target: target.to_string(),
    }
}

/// "path: kind" of each entry.
fn list(archive: &[u8]) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for_each_entry(archive, |entry| {
        let mut content = String::new();
        entry
            .read_to_string(&mut content)
            .map_err(|source| Error::Read {
                what: "entry",
                source,
            })?;
        let kind = match entry.kind() {
            Kind::File { mode, size, .. } => format!("file {mode:o} {size} {content}"),
            Kind::Directory { mode } => format!("folder {mode:o}"),
            Kind::Symlink { target } => format!("link to {target}"),
            Kind::Hardlink { target } => format!("same as {target}"),
        };
        found.push(format!("{}: {kind}", entry.path()));
        Ok::<_, Error>(())
    })?;
    Ok(found)
}

#[test]
fn control_is_read() {
    let control = read_control(make_deb(CONTROL, &[]).as_slice()).unwrap();
    assert_eq!(
        (control.name.as_str(), control.version.as_str()),
        ("a", "1.0-1")
    );
    assert_eq!(control.architecture, "amd64");
}

#[test]
fn entries_are_normalised() {
    let long = format!("./usr/share/{}/x", "l".repeat(150));
    let archive = make_deb(
        CONTROL,
        &[
            ("./", folder(), b""),
            ("./bin/", folder(), b""),
            ("./bin/sh", file(b"hello"), b"hello"),
            ("./lib/x/", folder(), b""),
            ("./lib64", link("usr/lib64"), b""),
            ("./usr/./lib/y", hard("./lib/x"), b""),
            ("./sbin/z", link("/etc/z"), b""),
            ("./library", file(b""), b""),
            (&long, file(b"1"), b"1"),
        ],
    );
    let long = format!("{}: file 644 1 1", long.trim_start_matches("./"));
    let expected = [
        "usr/bin: folder 755",
        "usr/bin/sh: file 644 5 hello",
        "usr/lib/x: folder 755",
        "lib64: link to usr/lib64",
        "usr/lib/y: same as usr/lib/x",
        "usr/sbin/z: link to /etc/z",
        "library: file 644 0 ",
        &long,
    ];
    assert_eq!(list(&archive).unwrap(), expected);
}

#[test]
fn malformed_archives_are_refused() {
    let check = |archive: &[u8], expected: &str| {
        let error = list(archive).unwrap_err();
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = format!("{error}: {source}");
        assert!(
            text.contains(expected),
            "expected {expected:?}, got {text:?}"
        );
    };
    let entry = |path: &str, kind: Kind| make_deb(CONTROL, &[(path, kind, b"")]);
    check(b"", "cannot read package archive");
    check(b"not an archive", "does not begin as an archive does");
    check(b"!<arch>\n", "it has no data.tar");
    check(
        &make_ar(&[("debian-binary", b"2.0\n")]),
        "it has no data.tar",
    );
    check(&make_ar(&[("data.tar.lz", b"")]), "compressed in a way");
    check(&entry("../x", file(b"")), "leads outside");
    check(&entry("./usr/../../x", file(b"")), "leads outside");
    check(&entry("x", hard("../../etc/passwd")), "leads outside");
    check(&entry("x", link("")), "leads nowhere");
    let mut cut = make_deb(CONTROL, &[("x", file(b"1"), b"1")]);
    cut.truncate(cut.len() - 40);
    check(&cut, "cannot read package archive");
    let mut header = make_ar(&[("data.tar", b"")]);
    header[8 + 48] = b'x';
    check(&header, "not one of ar");
    let mut device = make_tar(&[("x", file(b""), b"")]);
    device[156] = b'3';
    let mut device_header = tar::Header::new_gnu();
    device_header.as_mut_bytes().copy_from_slice(&device[..512]);
    device_header.set_cksum();
    device[..512].copy_from_slice(device_header.as_bytes());
    check(&make_ar(&[("data.tar", &device)]), "which no package has");
}

#[test]
fn long_names_cannot_take_all_memory() {
    let name = vec![b'n'; 3 << 20];
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(name.len() as u64);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, name.as_slice()).unwrap();
    let tar = builder.into_inner().unwrap();
    let error = list(&make_ar(&[("data.tar.xz", &compress(&tar))])).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("too long"), "{source}");
}

fn unpack_all(root: &Path, entries: &[(&str, Kind, &[u8])]) -> Result<(), Error> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.deb");
    fs::write(&path, make_deb(CONTROL, entries)).unwrap();
    Deb::open(&path)?.unpack(root, |path| !path.starts_with("usr/share/doc"))
}

#[test]
fn unpacking_makes_files() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let script = Kind::File {
        mode: 0o4755,
        size: 4,
        modified: 1_000_000_000,
    };
    let secret = Kind::File {
        mode: 0o400,
        size: 1,
        modified: 1,
    };
    let entries: &[(&str, Kind, &[u8])] = &[
        ("./usr/bin/run", script, b"run!"),
        ("./usr/bin/same", hard("usr/bin/run"), b""),
        ("./usr/bin/other", link("run"), b""),
        ("./usr/share/doc/x", file(b"1"), b"1"),
        ("./etc/", Kind::Directory { mode: 0o500 }, b""),
        ("./etc/secret", secret, b"s"),
    ];
    // Twice, for packages replace each other's files.
    unpack_all(root.path(), entries).unwrap();
    unpack_all(root.path(), entries).unwrap();
    assert_eq!(fs::read_to_string(at("usr/bin/run")).unwrap(), "run!");
    let run = fs::metadata(at("usr/bin/run")).unwrap();
    assert_eq!(run.mode() & 0o7777, 0o755, "set-id bits are dropped");
    assert_eq!(run.mtime(), 1_000_000_000);
    assert_eq!(run.ino(), fs::metadata(at("usr/bin/same")).unwrap().ino());
    assert_eq!(
        fs::read_link(at("usr/bin/other")).unwrap(),
        Path::new("run")
    );
    assert_eq!(
        fs::metadata(at("etc")).unwrap().mode() & 0o777,
        0o700,
        "we must get into it"
    );
    assert_eq!(
        fs::metadata(at("etc/secret")).unwrap().mode() & 0o777,
        0o400
    );
    assert!(
        !at("usr/share/doc").exists(),
        "what is not wanted is left out"
    );
}

#[test]
fn nothing_is_written_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let check = |entries: &[(&str, Kind, &[u8])], inside: Option<&str>| {
        let root = tempfile::tempdir().unwrap();
        let result = unpack_all(root.path(), entries);
        assert_eq!(
            fs::read_dir(outside.path()).unwrap().count(),
            0,
            "{entries:?}"
        );
        match inside {
            Some(path) => {
                result.unwrap();
                let path = root.path().join(path.trim_start_matches('/'));
                assert!(
                    path.symlink_metadata().unwrap().is_file(),
                    "{}",
                    path.display()
                );
            }
            None => assert!(result.is_err(), "{entries:?}"),
        }
    };
    // Links are followed as they are once the root is the root.
    check(
        &[("d", link(target), b""), ("d/x", file(b"1"), b"1")],
        Some(&format!("{target}/x")),
    );
    check(
        &[
            ("a/d", link("../../../../b"), b""),
            ("a/d/x", file(b"1"), b"1"),
        ],
        Some("b/x"),
    );
    // A link in the place of the file itself is replaced.
    check(
        &[
            ("x", link(&format!("{target}/x")), b""),
            ("x", file(b"1"), b"1"),
        ],
        Some("x"),
    );
    check(&[("d", link("d"), b""), ("d/x", file(b"1"), b"1")], None);
    check(&[("d", file(b""), b""), ("d/x", file(b"1"), b"1")], None);
    check(
        &[("d", link(target), b""), ("y", hard("d/passwd"), b"")],
        None,
    );
}
