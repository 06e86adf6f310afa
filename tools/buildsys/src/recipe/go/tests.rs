//! Programs are built by the machine's own Go from modules in a folder, where there
//! is one; without a Go the tests say that they were skipped.

use super::*;
use crate::check;
use crate::manifest::{Definitions, Name};
use crate::progress::Progress;
use crate::rootfs::Rootfs;
use base64::Engine;
use sha2::{Digest, Sha256};
use std::process::Command;
use tempfile::TempDir;

const MODULE: &str = "example.org/tool";
const LIBRARY: &str = "example.org/greeting";

/// Files of the two modules that a proxy has.
fn tool() -> Vec<(&'static str, String)> {
    let main = r#"package main
import "example.org/greeting"
var version, built string
func main() { println(greeting.Text(), version, built) }
"#;
    let test = "package library\nimport \"testing\"\nfunc TestNothing(*testing.T) {}\n";
    vec![
        (
            "go.mod",
            format!("module {MODULE}\n\ngo 1.21.0\n\nrequire {LIBRARY} v0.1.0\n"),
        ),
        ("cmd/tool/main.go", main.to_string()),
        ("library/library.go", "package library\n".to_string()),
        ("library/library_test.go", test.to_string()),
    ]
}

fn library(language: &str) -> Vec<(&'static str, String)> {
    let code = "package greeting\nfunc Text() string { return \"hello\" }\n";
    vec![
        ("go.mod", format!("module {LIBRARY}\n\ngo {language}\n")),
        ("greeting.go", code.to_string()),
    ]
}

/// A project with one package, a module proxy in a folder, and a store.
struct Workshop {
    folder: TempDir,
    project: Project,
    store: Store,
    base: Toolchain,
    go: GoToolchain,
    proxy: String,
}

impl Workshop {
    /// `None` on a machine without Go.
    fn new() -> Option<Self> {
        let output = Command::new("go")
            .args(["env", "GOROOT"])
            .env("GOTOOLCHAIN", "local")
            .output();
        let Ok(output) = output else {
            eprintln!("skipped: this machine has no Go");
            return None;
        };
        let root = String::from_utf8(output.stdout).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = "[release]\nversion = '0.1.0'\ndefault-variant = 'v'\n[toolchains]\n\
            [debian]\ncomponents = ['main']\nsuites = ['s']\n";
        write(folder.path(), "Bulkhead.toml", config);
        let mut project = Project::open(folder.path()).unwrap();
        project.folders.cache = folder.path().join("cache");
        let store = Store::open(&folder.path().join("store"), u64::MAX).unwrap();
        let workshop = Self {
            project,
            store,
            base: Toolchain::of_this_machine().unwrap(),
            go: GoToolchain::at(Path::new(root.trim())),
            proxy: format!("file://{}/proxy", folder.path().display()),
            folder,
        };
        workshop.offer(MODULE, "v1.2.3", &tool());
        workshop.offer(LIBRARY, "v0.1.0", &library("1.21.0"));
        let lists = "module bulkhead/sample\n\ngo 1.21.0\n\ntool example.org/tool/cmd/tool\n\n\
            require (\n\texample.org/tool v1.2.3 // indirect\n\texample.org/greeting v0.1.0 // indirect\n)\n";
        workshop.write("packages/sample/go.mod", lists);
        workshop.write(
            "packages/sample/go.sum",
            &(sums(MODULE, "v1.2.3", &tool()) + &sums(LIBRARY, "v0.1.0", &library("1.21.0"))),
        );
        workshop.manifest(
            "commands = ['example.org/tool/cmd/tool']\n\
             [go.stamps]\n'main.version' = 'v{version}-{major}.{minor}'\n'main.built' = '{date}'\n",
        );
        Some(workshop)
    }

    fn write(&self, path: &str, text: &str) {
        write(self.folder.path(), path, text);
    }

    fn manifest(&self, go: &str) {
        let head = "[package]\nname = 'sample'\ndescription = 'a test'\n[go]\n";
        self.write("packages/sample/package.toml", &format!("{head}{go}"));
    }

    /// Gives the proxy a version of a module.
    fn offer(&self, module: &str, version: &str, files: &[(&str, String)]) {
        let place = |kind: &str| format!("proxy/{module}/@v/{version}.{kind}");
        let info = format!("{{\"Version\":\"{version}\",\"Time\":\"2020-01-01T00:00:00Z\"}}");
        self.write(&place("info"), &info);
        self.write(&place("mod"), &files[0].1);
        let path = self.folder.path().join(place("zip"));
        fs::write(path, zip(module, version, files)).unwrap();
    }

    fn build(&self, cached: bool) -> Result<Entry> {
        let definitions = Definitions::load(&self.project)?;
        let package = definitions.package(&Name::try_from("sample".to_string()).unwrap())?;
        let arch = crate::sdk::workstation()?;
        let programs = GoPrograms::read(&self.project, package, arch)?.unwrap();
        let logs = self.folder.path().join("logs");
        let context = JobContext::new("sample", &logs, &Progress::silent());
        let settings = UserSettings::of("", |name| match name {
            "GOPROXY" => Some(self.proxy.clone()),
            // Nothing here may ask the network.
            "GOSUMDB" => Some("off".to_string()),
            _ => None,
        });
        let (project, store) = (&self.project, &self.store);
        let modules =
            programs.modules(&context, project, &self.base, &self.go, &settings, store)?;
        let cache = caches_dir(&self.project.cache_dir());
        let cache = cached.then_some(cache.as_path());
        programs.build_from(&context, &self.base, &self.go, &modules, store, cache)
    }

    fn fails(&self) -> String {
        format!("{:#}", self.build(true).unwrap_err())
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The lines of a go.sum for a module.
fn sums(module: &str, version: &str, files: &[(&str, String)]) -> String {
    let hash = |files: Vec<(String, &String)>| {
        let mut lines: Vec<String> = files
            .iter()
            .map(|(name, text)| format!("{}  {name}\n", hex::encode(Sha256::digest(text))))
            .collect();
        lines.sort_by_key(|line| line[64..].to_string());
        let digest = Sha256::digest(lines.concat());
        format!(
            "h1:{}",
            base64::engine::general_purpose::STANDARD.encode(digest)
        )
    };
    let all = files
        .iter()
        .map(|(name, text)| (format!("{module}@{version}/{name}"), text))
        .collect();
    format!(
        "{module} {version} {}\n{module} {version}/go.mod {}\n",
        hash(all),
        hash(vec![("go.mod".to_string(), &files[0].1)])
    )
}

/// An archive of a module, nothing in it compressed. Checksums are left out: Go
/// goes by its own.
fn zip(module: &str, version: &str, files: &[(&str, String)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, text) in files {
        let name = format!("{module}@{version}/{name}");
        let (start, size) = (archive.len() as u32, text.len() as u32);
        let numbers = |out: &mut Vec<u8>, list: &[u16]| {
            list.iter().for_each(|n| out.extend(n.to_le_bytes()));
        };
        let sizes = [0, size, size].map(u32::to_le_bytes).concat();
        archive.extend(b"PK\x03\x04");
        numbers(&mut archive, &[20, 0, 0, 0, 0]);
        archive.extend(&sizes);
        numbers(&mut archive, &[name.len() as u16, 0]);
        archive.extend(name.as_bytes());
        archive.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02");
        numbers(&mut directory, &[20, 20, 0, 0, 0, 0]);
        directory.extend(&sizes);
        numbers(&mut directory, &[name.len() as u16, 0, 0, 0, 0]);
        directory.extend(0u32.to_le_bytes());
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, start) = (files.len() as u16, archive.len() as u32);
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06");
    [0, 0, count, count]
        .iter()
        .for_each(|n| archive.extend(n.to_le_bytes()));
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend(0u16.to_le_bytes());
    archive
}

#[test]
fn programs_are_the_same_wherever_they_are_built() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else {
        return;
    };
    let a = first.build(true).unwrap();
    let b = second.build(false).unwrap();
    assert_eq!(a.key(), b.key());
    let read = |entry: &Entry| fs::read(entry.path().join("tool")).unwrap();
    assert!(read(&a) == read(&b), "the programs differ");
    let left: Vec<_> = fs::read_dir(b.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "more than the program was left: {left:?}");

    let output = Command::new(a.path().join("tool")).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("hello v1.2.3-1.2 {DATE}\n")
    );
    let info = buildinfo::BuildInfo::read(&read(&a)).unwrap().unwrap();
    let expected = [(MODULE, "v1.2.3"), (LIBRARY, "v0.1.0")];
    assert_eq!(
        info.modules,
        expected.map(|(module, version)| (module.to_string(), version.to_string()))
    );
    let mut root = Rootfs::new();
    root.add_file("usr/bin/tool", read(&a), 0o755).unwrap();
    check::check(&root, &[]).unwrap();

    // Archives were kept: with them, modules come from nowhere else.
    first.store.clear().unwrap();
    store::remove_tree(&first.folder.path().join("proxy")).unwrap();
    fs::create_dir(first.folder.path().join("proxy")).unwrap();
    drop(a);
    first.store.clear().unwrap();
    assert!(read(&first.build(true).unwrap()) == read(&b));
}

#[test]
fn tests_become_a_program() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    workshop
        .manifest("commands = ['example.org/tool/cmd/tool']\ntests = ['example.org/tool/library']");
    let built = workshop.build(true).unwrap();
    let output = Command::new(built.path().join("library.test"))
        .arg("-test.v")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--- PASS: TestNothing"), "{text}");
    assert!(built.path().join("tool").is_file());
}

#[test]
fn a_module_that_is_not_as_in_go_sum_is_refused() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let mut changed = library("1.21.0");
    changed[1].1 = changed[1].1.replace("hello", "evil");
    workshop.offer(LIBRARY, "v0.1.0", &changed);
    let told = workshop.fails();
    for part in [
        "not the one that go.sum",
        "packages/sample/go.mod",
        "SECURITY ERROR",
        "sample.log",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }

    // One that was damaged after it was kept is fetched again.
    let kept = downloads(&workshop.project).unwrap().join(LIBRARY);
    fs::create_dir_all(kept.join("@v")).unwrap();
    let proxy = workshop.folder.path().join("proxy").join(LIBRARY);
    for kind in ["info", "mod", "zip"] {
        let name = format!("@v/v0.1.0.{kind}");
        fs::rename(proxy.join(&name), kept.join(&name)).unwrap();
    }
    workshop.offer(LIBRARY, "v0.1.0", &library("1.21.0"));
    workshop.build(true).unwrap();
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let restore = |name: &str, text: &str| workshop.write(&format!("packages/sample/{name}"), text);
    let sum = sums(MODULE, "v1.2.3", &tool()) + &sums(LIBRARY, "v0.1.0", &library("1.21.0"));

    restore("go.sum", &sums(MODULE, "v1.2.3", &tool()));
    let told = workshop.fails();
    assert!(told.contains("go.sum lacks a line"), "{told}");
    restore("go.sum", &sum);

    for (go, expected) in [
        (
            "commands = ['example.org/tool/library']",
            "is the package library and no program",
        ),
        (
            "commands = ['example.org/other/cmd']",
            "requires no module that could have it",
        ),
        (
            "commands = ['example.org/tool/cmd/none']",
            "example.org/tool/cmd/none",
        ),
        (
            "commands = ['example.org/tool/cmd/tool']\nstamps = { 'example.org/none.version' = '1' }",
            "no command has the package example.org/none",
        ),
    ] {
        workshop.manifest(go);
        let told = workshop.fails();
        assert!(told.contains(expected), "{expected:?} is not in {told}");
    }
    workshop.manifest("commands = ['example.org/tool/cmd/tool']");

    let newer = library("1.99.0");
    workshop.offer(LIBRARY, "v0.1.1", &newer);
    let lists = fs::read_to_string(workshop.folder.path().join("packages/sample/go.mod")).unwrap();
    restore(
        "go.mod",
        &lists.replace("greeting v0.1.0", "greeting v0.1.1"),
    );
    restore("go.sum", &(sum.clone() + &sums(LIBRARY, "v0.1.1", &newer)));
    let told = workshop.fails();
    assert!(told.contains("raise the toolchain line"), "{told}");
    assert!(told.contains("1.99"), "{told}");

    restore(
        "go.mod",
        &lists.replace("greeting v0.1.0", "greeting v0.1.9"),
    );
    restore("go.sum", &(sum.clone() + &sums(LIBRARY, "v0.1.9", &newer)));
    let told = workshop.fails();
    assert!(told.contains("does not give out a module"), "{told}");
}

#[test]
fn a_proxy_that_cannot_be_reached_is_told() {
    let Some(mut workshop) = Workshop::new() else {
        return;
    };
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    workshop.proxy = format!("http://127.0.0.1:{port}");
    let told = workshop.fails();
    for part in ["cannot reach the Go module proxy", "GOPROXY", "127.0.0.1"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}
